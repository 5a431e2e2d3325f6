# The README's two commands are `make demo` and `make test`; each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint bench bench-quality bench-alignment bench-sparse clean

demo: .venv/core
	$(BIN)/text2token demo --recipe recipes/demo.yaml --output demo --overwrite

test: .venv/dev
	$(BIN)/pytest

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/dev  ## needs DATA=folder with corpus/ and mteb/
	$(BIN)/python benchmarks/main_job.py --data $(DATA)

bench-quality: .venv/dev  ## needs DATA too; hours of training and judging, continues when repeated
	$(BIN)/python benchmarks/quality.py --data $(DATA) $(QUALITY)
	$(BIN)/python benchmarks/tables.py

bench-alignment: .venv/dev  ## needs DATA; an hour or two, continues when repeated
	$(BIN)/python benchmarks/alignment.py --data $(DATA)
	$(BIN)/python benchmarks/alignment_page.py
	$(BIN)/python benchmarks/spectrum_page.py

bench-sparse: .venv/dev  ## needs DATA, and models of bench-quality: OURS=folder LLM2VEC=folder; continues when repeated
	$(BIN)/python benchmarks/sparse.py --data $(DATA) --ours $(OURS) $(if $(LLM2VEC),--llm2vec $(LLM2VEC)) $(SPARSE)
	$(BIN)/python benchmarks/search_page.py

clean:
	rm -rf .venv demo

.venv/core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/dev: .venv/core
	$(PIP) --editable '.[dev,eval,search,milvus,seismic]'
	touch $@

