"""Write docs/search.md and its figure from benchmarks/results/sparse.json.

python benchmarks/search_page.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from page_parts import goals, revision, table
from text2token.utils.figures import figure_style, write_figure

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
FIGURE = "search-sweep"
GOALS = {
    "sparse_over_dense_mean": ("sparse over dense, nDCG@10, mean of the collections", "≥ 0.95"),
    "hybrid_minus_bm25_min": ("hybrid minus BM25, points of nDCG@10, worst collection", "≥ 1"),
    "sparse_p50_over_bm25s": ("sparse search over bm25s with its default backend, median time", "≤ 1"),
    "sparse_flops_over_dense": ("operations of a sparse search over a flat dense one", "≤ 0.1"),
    "seismic_recall10": ("recall@10 of the approximate index against the exact one", "≥ 0.99"),
}
FREE = 1.0  # points that a fusion may lose against BM25
QUALITY = """
Scores × 100, in brackets the 95 % bootstrap interval over queries. *ours* is fitted by text2token, without labels. *PromptEOL* is
the untrained backbone, with centring and spectral filter. *LLM2Vec* is its unsupervised recipe, read with the head of the
backbone. *MiniLM* is supervised and has no decoding head, so no sparse side. Texts are encoded in bf16 where the hardware has
it. *Paper's form*: the top-K tokens of a document against the set of a query's words and its top-M tokens, of logits above the
corpus mean. *No model at the query*: the words of the query alone, against documents with aligned tokens.
"""
COST = """
Kilobytes per document by side; seconds of a build beyond encoding. Milliseconds of the processor per query, median / slowest of
up to 50: of encoding it; of searching with its vectors; and, *words alone*, of everything that a sparse search without the
model does. Operations of a sparse search over those of a flat dense one.
"""
UPDATES = """
Documents are added and deleted while the index stays as it is: `text2token index --output index --add more.jsonl --delete 17`,
or `--delete-file ids.txt`. New documents come in a segment of their own, deleted ones are marked, small segments are merged,
and a segment is written anew when a fifth of it is dead. Document frequencies are those of the moment of a query. The average
length in BM25's weights stays that of the first documents: build anew when new documents are of another length. BM25 is for
English: its stop words are left out and words stemmed; other languages are better served by the sparse and the dense side. A
build that is killed continues with the documents that are left when the command is repeated, and has in the end those that it
was given last. One process writes an index at a time, and another is told so; searches go on meanwhile, in the vectors that
were there when they opened it. An index knows its model by a hash of weights and template, and refuses another; means and
correction it keeps itself. Where the model has moved, `text2token search --model` names it.
"""
SCALE = """
- **The embedded engine** needs no service and grows linearly in time and disk: the default as far as its time per query will
  do, about a million documents where some 20 ms are fast enough. Sparse and BM25 sides are exact at any size; the dense side is
  up to 200,000 documents per segment, and from there on a graph (HNSW in the table). Its arrays are memory-mapped, so that only
  what queries touch is in memory; a folder that may only be read can be searched, too.
- **Seismic** (`--engine seismic`) is approximate and made for millions of documents, which were not measured here; up to what
  the table shows exact search is the faster one. It keeps no dense side, and is built anew, in memory, at the end of every
  addition and by the first search after a deletion.
- **Milvus** (`--engine milvus --uri URL`) is for more than one machine, and for collections beyond one disk: a server from
  version 2.4 on, the first that knows sparse vectors. One that asks for a login gets what the environment variable
  `MILVUS_TOKEN` holds: `user:password` or an API key. Each side is searched by the server, one request per side; reciprocal
  ranks of equal weight (`--fusion rrf`) are fused there, too, all else here. milvus-lite, a file as `--uri` that one process at
  a time can open, is the same code for trying out; no cluster was measured here.
"""
ALONE = """
The `sparse` folder of a fit is a plain `SparseEncoder`: its aligned tokens, without the words and the rarity that an index adds.

```python
from sentence_transformers import SparseEncoder, util

model = SparseEncoder("model/sparse")
documents = model.encode_document(["The cat sat on the mat.", "A dog chased the cat."])
util.semantic_search(model.encode_query(["a sitting cat"]), documents, top_k=1, score_function=util.dot_score)
```

mteb takes the same object: `mteb.evaluate(model, mteb.get_tasks(tasks=["SciFact"]))`, as does
`text2token evaluate model --mode sparse`.
"""


def main() -> None:
    """Render page and figure."""
    result = json.loads((HERE / "results" / "sparse.json").read_text())
    details = result["details"]
    (DOCS / "figures").mkdir(exist_ok=True)
    sections = [
        "# Search",
        "Generated by `python benchmarks/search_page.py` from `benchmarks/results/sparse.json`.",
        goals(result["figures"], GOALS),
        "## How good is it?",
        *map(_quality, details["tables"]),
        QUALITY.strip(),
        "## What does it cost?",
        *map(_cost, details["tables"]),
        COST.strip(),
        "## How were K, M, weights and fusion chosen?",
        _tuning(details),
        "## How do documents come and go?",
        UPDATES.strip(),
        "## Without this package",
        ALONE.strip(),
    ]
    if "speed" in details:
        sections += [
            "## How fast is it, and when does one machine not do?",
            _speed(details["speed"]),
        ]
    machine = result["machine"]
    sections.append(
        f"{machine['cores']} cores ({machine['cpu']}), revision `{revision(result['git'])}`, command `{result['command']}`."
    )
    (DOCS / "search.md").write_text("\n\n".join(sections) + "\n")


def _quality(measured: Mapping[str, Any]) -> str:
    collections = measured["collections"]
    parts = [_of(measured)]
    for measure, heading in {"ndcg_cut_10": "nDCG@10", "recall_100": "recall@100"}.items():
        rows = [
            [
                model if model == way else f"{model}, {way}",
                *(_score(sets.get(name, {}).get(way), measure) for name in collections),
            ]
            for model, sets in measured["quality"].items()
            for way in dict.fromkeys(way for ways in sets.values() for way in ways)
        ]
        parts.append(table([heading, *collections], rows))
    return "\n\n".join(parts)


def _of(measured: Mapping[str, Any]) -> str:
    """Which documents a table is of."""
    sizes = ", ".join(
        f"{name} {c['documents']:,} documents and {c['queries']} queries" for name, c in measured["collections"].items()
    )
    limit = measured["documents"]
    return (
        f"**Whole collections**: {sizes}."
        if limit is None
        else f"**Cut to {limit:,} documents**, judged ones first: {sizes}."
    )


def _score(measured: Mapping[str, Any] | None, measure: str) -> str:
    if measured is None:
        return ""
    low, high = measured[measure]["interval"]
    return f"{measured[measure]['score']:.1f} ({low:.1f} to {high:.1f})"


def _cost(measured: Mapping[str, Any]) -> str:
    rows = []
    for model, sets in measured["cost"].items():
        for name, row in sets.items():
            sizes = row["bytes_a_document"]
            kinds = [f"{sizes.get(kind, 0) / 1000:.1f}" for kind in ("sparse", "dense", "bm25", "documents")]
            times = [
                "{:.2f} / {:.2f}".format(*row["milliseconds"][key]) if key in row["milliseconds"] else ""
                for key in ("encode", "search sparse", "search dense", "search bm25", "search hybrid", "words alone")
            ]
            share = f"{row['flops_over_dense']:.3f}" if "flops_over_dense" in row else ""
            rows.append([model, name, *kinds, f"{row['index_seconds_beyond_encoding']:.0f}", *times, share])
    heading = [
        "model",
        "collection",
        "sparse",
        "dense",
        "BM25",
        "texts",
        "build, s",
        "encode",
        "sparse",
        "dense",
        "BM25",
        "hybrid",
        "words alone",
        "operations",
    ]
    return f"{_of(measured)}\n\n{table(heading, rows)}"


def _tuning(details: Mapping[str, Any]) -> str:
    if "tuning" not in details:
        return "Not measured."
    tuning = details["tuning"]
    _draw(tuning["sweep"])
    shares = tuning["shares (document, query)"]
    documents = list(dict.fromkeys(key.split(", ")[0] for key in shares))
    queries = list(dict.fromkeys(key.split(", ")[1] for key in shares))
    grid = [[document, *(f"{shares[f'{document}, {query}']:.1f}" for query in queries)] for document in documents]
    others = {f"forms merged: {key}": score for key, score in tuning["merged forms"].items()}
    others |= {f"parts: {key}": score for key, score in tuning["parts"].items()}
    return "\n\n".join(
        [
            f"On known items, never on a test set: {tuning['documents']:,} Wikipedia paragraphs without title or first sentence, "
            f"searched by {tuning['queries']} of these; nDCG@10 × 100, model *{tuning['model']}*. Settings in use: "
            f"`{json.dumps(details['settings'])}`, fusion `{json.dumps(details['fusion'])}`.",
            f"![nDCG@10 by K and M](figures/{FIGURE}.svg)",
            table(["document share ↓, query share →", *queries], grid),
            table(["setting", "nDCG@10"], [[name, f"{score:.1f}"] for name, score in others.items()]),
            _fusions(tuning["fusion"]),
        ]
    )


def _fusions(tuning: Mapping[str, Mapping[str, float]]) -> str:
    """Ways to fuse, by their mean gain over BM25."""
    bars = {name: scores["bm25 alone"] for name, scores in tuning.items()}
    gains = {
        way: [tuning[name][way] - bar for name, bar in bars.items()]
        for way in next(iter(tuning.values()))
        if way != "bm25 alone"
    }
    ordered = sorted(gains.items(), key=lambda pair: -mean(pair[1]))
    shown = [pair for pair in ordered if min(pair[1]) > -FREE][:5] + ordered[:8]
    rows = [[way, *(f"{gain:+.1f}" for gain in gained), f"{mean(gained):+.1f}"] for way, gained in dict(shown).items()]
    return "\n\n".join(
        [
            "Fusion, where BM25 weighs 1, on five sets of known items: besides those, spans of 3 to 12 words cut out of "
            "documents of each collection, whose queries and judgements were not looked at. Points of nDCG@10 over BM25 alone; "
            f"first the best five that nowhere lose {FREE:g} or more, then the best of all. The default was chosen on the same "
            "sets with a model of earlier targets, as the largest gain that nowhere lost half a point, and is kept as long as it "
            "is among these five: what differs between two models by so little is chance of a hundred queries.",
            "`text2token search --weight dense 1` changes a weight, `--fusion rrf` fuses reciprocal ranks, all of weight 1; "
            "`--no-model` searches with the words of the query alone.",
            table(["fusion", *(f"{name} ({bar:.1f})" for name, bar in bars.items()), "mean"], rows),
        ]
    )


def _speed(speed: Mapping[str, Any]) -> str:
    vectors, against = speed["vectors"], speed["bm25s"]
    ratios = " and ".join(
        "{median:.2f} ({min:.2f} to {max:.2f}) with its {name} backend".format(name=name, **against[f"over {name}"])
        for name in ("numpy", "numba")
    )
    rows = [
        [
            row["engine"],
            f"{row['documents']:,}",
            f"{row['build_seconds']:.1f}",
            f"{row['bytes_a_document'] / 1000:.1f}",
            f"{row['p50']:.2f} / {row['p99']:.2f}",
            f"{row['recall10']:.3f}",
        ]
        for row in speed["growth"]
    ]
    return "\n\n".join(
        [
            f"{vectors['documents']:,} documents of SciFact with {vectors['tokens_a_document']:.0f} tokens each, queries with "
            f"{vectors['tokens_a_query']:.0f}; times are of one processor, without encoding. Exact sparse search takes, of the "
            f"median time of bm25s on the same documents, {ratios}: queries of this index have more tokens than words.",
            "More documents are these, drawn again with weights jittered and a fifth of the tokens exchanged; dense vectors are "
            "random projections of them. Seismic, HNSW and milvus-lite were not built beyond what the table shows.",
            table(
                [
                    "engine",
                    "documents",
                    "build of one side, s",
                    "kB per document",
                    "ms per query, median / 99th",
                    "recall@10",
                ],
                rows,
            ),
            SCALE.strip(),
        ]
    )


def _draw(sweep: Mapping[str, Any]) -> None:
    labels = {"weighted": "ours", "paper": "the paper's form"}
    with figure_style():
        figure = Figure(figsize=(8, 3), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, letter, what in zip(panels, "KM", ("document, K", "query, M"), strict=True):
            for form, by_letter in sweep.items():
                ticks = list(by_letter[letter])
                axes.plot(range(len(ticks)), list(by_letter[letter].values()), marker="o", label=labels[form])
                axes.set_xticks(range(len(ticks)), ticks)
            axes.set_xlabel(f"aligned tokens of a {what}")
        panels[0].set_ylabel("nDCG@10, known items")
        panels[0].legend()
    write_figure(figure, DOCS / "figures", FIGURE)


if __name__ == "__main__":
    main()
