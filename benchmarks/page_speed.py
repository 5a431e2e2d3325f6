"""What the page on speed needs beside its results: the goals of each kind of machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = ("speed", "speed-avx2")
"""Results of a machine with bf16, and of one without."""

_BF16 = {
    "encode_over_st_fp32": ("encoding over sentence-transformers in fp32, real mix", "≥ 2.6"),
    "encode_over_st_bf16": ("encoding over sentence-transformers in bf16, real mix", "≥ 1.4"),
}
_FP32 = {"encode_over_st_fp32": ("encoding over sentence-transformers in fp32, real mix", "≥ 1.3")}
_ANY = {
    "encode_share_of_peak": ("share of the machine's peak, texts of 256 tokens", "≥ 0.65"),
    "encode_spearman": ("Spearman's correlation of cosines with those of fp32", "≥ 0.999"),
    "encode_top10_kept": ("share of the ten strongest tokens of fp32 that stay", "≥ 0.97"),
    "train_texts_over_simcse": ("training over SimCSE, texts per second", "≥ 2"),
    "train_share_of_peak": ("training, share of the peak", "≥ 0.45"),
    "fit_overhead_s": ("seconds of a default fit that are not training", "≤ 150"),
    "query_ms_p50_teacher": ("ms of a query, encoded by the model, hybrid", "≤ 30"),
    "query_ms_p50_student": ("ms of a query, encoded by a student, hybrid", "≤ 1.5"),
    "student_query_ndcg_kept": ("nDCG@10 of hybrid search, student's queries over the model's", "≥ 0.985"),
    "student_query_gain": ("the same minus hybrid search without a model at the query, points", "≥ 0.7"),
    "student_query_dense_kept": ("nDCG@10 of dense search, student's queries over the model's", "≥ 0.9"),
    "student_alone_ndcg_kept": ("nDCG@10 of dense search, student alone over the model", "≥ 0.8"),
    "student_stsb_validation": ("STSBenchmark validation of the student", "≥ 74"),
    "student_speedup": ("student over model, tokens per second", "≥ 100"),
    "explain_cpu_s": ("CPU seconds of explain, one text", "≤ 8"),
    "encode_cpu_s": ("CPU seconds of encode, one text", "≤ 8"),
    "search_cpu_s": ("CPU seconds of search", "≤ 8"),
    "search_no_model_cpu_s": ("CPU seconds of search without the model", "≤ 1.5"),
    "memory_x10": ("memory with ten times the texts, fit and index", "≤ 1.15"),
}


def context(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template of the page reads."""
    return {"result": result, "wanted": {**(_BF16 if result["name"] == "speed" else _FP32), **_ANY}}
