# The README's two commands are `make demo` and `make test`; each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
# Python compiles what it imports; to compile all files of a library takes longer.
export PIP_NO_COMPILE := 1
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: bench-curve bench-own-corpus bench-speed bench-scale bench-serving demo test test-serving test-processes lint docs test-package test-lowest lowest bench bench-quality bench-alignment bench-sparse clean

demo: .venv/serve
	$(BIN)/text2token demo --recipe recipes/demo.yaml --output demo --overwrite

test: .venv/dev  ## two processes, each with one thread: faster than one process with two
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src

test-serving: .venv/dev  ## real servers, clients and a browser; needs Debian's chromium
	OMP_NUM_THREADS=1 $(BIN)/pytest -m serving

test-processes: .venv/dev  ## training and encoding on several processes: torchrun, accelerate, Ray
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m processes

docs: .venv/docs  ## the site, in site/; a broken link or reference fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	! grep -rlE '(src|href)="https?://[^"]*\.(js|css|woff2?)"' site --include='*.html'  # the site needs no other server

test-package: .venv/package  ## the wheel works in a clean environment outside the checkout
	rm -rf build/package
	$(BIN)/python -m build --quiet --outdir build/package/dist .
	$(PYTHON) -m venv build/package/venv
	build/package/venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		"$$(ls build/package/dist/*.whl)[search]"
	cd build/package && env -u PYTHONPATH venv/bin/python ../../.ci/check_package.py

test-lowest: .venv-lowest/ready  ## the fast tests of the package with the lowest versions that pyproject.toml allows
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n 2 -m "not slow and not serving and not processes" \
		--ignore tests/benchmarks --ignore tests/search/test_postgres.py \
		--ignore tests/serving/test_explorer.py --ignore tests/serving/test_schema.py --ignore tests/serving/test_server.py

lowest: .venv/package  ## after a change of bounds in pyproject.toml; torch and the test tools stay the pinned ones
	grep -E '^(torch|hypothesis|markdown-it-py|pytest|pytest-xdist)==' constraints.txt | \
		$(BIN)/uv pip compile pyproject.toml - --extra eval --extra search --extra serve --extra otel --extra milvus --extra postgres --extra qdrant --extra ray --extra s3 --quiet \
		--resolution lowest-direct --python-version 3.11 --only-binary :all: --no-annotate --no-header \
		| grep -vE '^(nvidia|cuda|triton)' > constraints-lowest.txt  # the CPU build of torch needs none of these

bench-speed: .venv/dev .venv-llama/ready  ## needs DATA and a quiet machine; hours, continues when repeated; SPEED='--documents 500' cuts the student's collections
	$(BIN)/python benchmarks/speed.py --data $(DATA) --llama .venv-llama/bin/python $(SPEED)
	$(BIN)/python benchmarks/pages.py

bench-serving: .venv/dev .venv-infinity/ready  ## needs DATA and MODEL=folder that fit wrote; half an hour on a quiet machine
	$(BIN)/python benchmarks/serving.py --data $(DATA) --model $(MODEL) --peer .venv-infinity/bin/infinity_emb
	$(BIN)/python benchmarks/pages.py

bench: .venv/dev  ## needs DATA=folder with corpus/ and mteb/
	$(BIN)/python benchmarks/main_job.py --data $(DATA)

bench-quality: .venv/dev  ## needs DATA too; hours of training and judging, continues when repeated
	$(BIN)/python benchmarks/quality.py --data $(DATA) $(QUALITY)
	$(BIN)/python benchmarks/pages.py

bench-curve: .venv/dev  ## needs DATA; ten hours on two cores, continues when repeated
	$(BIN)/python benchmarks/curve.py --data $(DATA) $(CURVE)
	$(BIN)/python benchmarks/pages.py

bench-own-corpus: .venv/dev  ## needs DATA; hours, continues when repeated; OWN_CORPUS='--documents 500' cuts the collections
	$(BIN)/python benchmarks/own_corpus.py --data $(DATA) $(OWN_CORPUS)
	$(BIN)/python benchmarks/pages.py

bench-alignment: .venv/dev  ## needs DATA; an hour or two, continues when repeated
	$(BIN)/python benchmarks/alignment.py --data $(DATA)
	$(BIN)/python benchmarks/pages.py

bench-sparse: .venv/dev  ## needs DATA, and models of bench-quality: OURS=folder LLM2VEC=folder; continues when repeated
	$(BIN)/python benchmarks/sparse.py --data $(DATA) --ours $(OURS) $(if $(LLM2VEC),--llm2vec $(LLM2VEC)) $(SPARSE)
	$(BIN)/python benchmarks/pages.py

bench-scale: .venv/dev  ## needs DATA and MODEL=folder that fit wrote, and a quiet machine; continues when repeated
	$(BIN)/python benchmarks/scale.py --data $(DATA) --model $(MODEL) $(SCALE)
	$(BIN)/python benchmarks/pages.py

clean:
	rm -rf .venv .venv-infinity .venv-llama .venv-lowest build demo site

.venv/core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/serve: .venv/core
	$(PIP) --editable '.[serve]'
	touch $@

.venv/dev: .venv/core
	$(PIP) --editable '.[dev,eval,search,serve,otel,milvus,postgres,qdrant,ray,s3]'
	touch $@

.venv/docs: .venv/dev
	$(PIP) --editable '.[docs]'
	touch $@

.venv/package: .venv/dev
	$(PIP) --editable '.[package]'
	touch $@

.venv-infinity/ready: constraints.txt  ## the peer of bench-serving; it needs older versions than ours
	$(PYTHON) -m venv .venv-infinity
	.venv-infinity/bin/python -m pip install --quiet --disable-pip-version-check \
		"infinity-emb[torch,server]==0.0.78" "$$(grep '^torch==' constraints.txt)"
	touch $@

.venv-llama/ready:  ## the peer of bench-speed; it has no wheels and is built for this processor, a quarter of an hour with cmake and g++
	$(PYTHON) -m venv .venv-llama
	CMAKE_ARGS="-DGGML_NATIVE=ON" .venv-llama/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-binary llama-cpp-python "llama-cpp-python==0.3.36"
	touch $@

.venv-lowest/ready: pyproject.toml constraints-lowest.txt
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-lowest.txt \
		--editable '.[eval,search,serve,otel,milvus,postgres,qdrant]' hypothesis markdown-it-py pytest pytest-xdist
	touch $@
