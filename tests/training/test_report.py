"""The report of a fit: one page that stands alone, whatever a run holds."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from text2token.settings.recipe import Recipe
from text2token.settings.record import RunRecord
from text2token.training.report import duration, measures, write_report
from text2token.utils.page import number

RUN: dict[str, Any] = {
    "text2token": "0.1.0",
    "command": "text2token fit wiki.txt --output DIR",
    "git": None,
    "created": "2026-11-23T20:00:00+00:00",
    "verb": "fit",
    "recipe": Recipe().model_dump(),
    "corpus": {"name": "wiki.txt", "fingerprint": "f" * 64, "texts": 400_000},
    "backbone": {
        "name": "smollm2-135m",
        "source": "smollm2-135m",
        "dimension": 576,
        "vocabulary": 49_152,
        "sha256": "a" * 64,
    },
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "machine": {"platform": "Linux", "cpu": "AMD EPYC", "cores": 2, "memory_gib": 23.4, "accelerator": None},
    "timings": {"statistics": 12.1, "train 1": 301.2, "train 2": 310.0},
    "peak_rss_gib": 3.2,
    "targets": [
        {"stage": 1, "builder": "data-driven", "texts": 2000, "mass_beyond_text": 0.0},
        {"stage": 2, "builder": "combined", "texts": 2000, "mass_beyond_text": 0.31},
    ],
    "log": [
        {"stage": 1, "step": 0, "eval_loss": 9.1, "eval_pair_cosine": 0.9},
        {"stage": 1, "step": 5, "loss": 7.2, "learning_rate": 2e-4, "epoch": 0.1},
        {"stage": 1, "step": 6, "eval_loss": 6.5, "eval_pair_cosine": 0.7},
        {"stage": 2, "step": 0, "eval_loss": 5.0, "eval_pair_cosine": 0.6},
        {"stage": 2, "step": 5, "loss": 4.8, "train_runtime": 310.0},
    ],
    "before": {"target_loss_stage_1": 9.1, "target_loss_stage_2": 8.8, "pair_cosine": 0.91, "pair_cosine_dense": 0.02},
    "after": {"target_loss_stage_1": 6.1, "target_loss_stage_2": 5.2, "pair_cosine": 0.55, "pair_cosine_dense": 0.03},
    "examples": [
        {"text": "The cat sat.", "before": [[" firehose", 4.0], [" cat", 1.0]], "after": [[" cat", 6.0], [" pet", 3.0]]}
    ],
    "files": {"dense/model.safetensors": "d" * 64},
}


class Page(HTMLParser):
    """Tags with their attributes, and the text of each kind of element, as a browser reads them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        for tag in set(self._open):
            self.texts[tag][-1] += data


def render(run: dict[str, Any], folder: Path) -> str:
    write_report(RunRecord.of(run), folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_stands_alone(tmp_path):
    html = render(RUN, tmp_path)
    for tag, attributes in Page(html).tags:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed"}
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert re.findall(r"url\((?!#)|@import", html) == []
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_contents_come_in_order(tmp_path):
    page = Page(render(RUN, tmp_path))
    [lead] = [text for text in page.texts["p"] if "was trained on" in text]
    assert " ".join(lead.split()) == "smollm2-135m was trained on 4,000 texts of wiki.txt in 10 min 23 s."
    assert page.texts["h2"] == [
        "Before and after",
        "Curves",
        "Aligned tokens",
        "Targets",
        "Timings",
        "Settings",
        "Origin",
        "How to load this",
    ]


def test_ids_are_unique(tmp_path):
    ids = [attributes["id"] for _, attributes in Page(render(RUN, tmp_path)).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_numbers_stand_before_against_after(tmp_path):
    rows = [row.split() for row in Page(render(RUN, tmp_path)).texts["tr"]]
    assert [row[-3:] for row in rows if "held-out" in row] == [["9.100", "↓", "6.100"], ["8.800", "↓", "5.200"]]
    assert [row[-3:] for row in rows if "cosine" in row] == [["0.910", "↓", "0.550"], ["0.020", "↑", "0.030"]]
    assert ["2:", "combined", "2,000", "31%"] in rows


def test_measures_of_a_stage_left_out_are_not_shown():
    run = RUN | {"before": {"pair_cosine": 1.0}, "after": {"pair_cosine": 0.5}}
    assert [measure.name for measure in measures(RunRecord.of(run))] == ["Mean cosine of random pairs, embeddings"]
    assert measures(RunRecord.of(RUN | {"before": {}, "after": {}})) == []


def test_every_setting_is_shown_with_its_value(tmp_path):
    page = Page(render(RUN | {"recipe": RUN["recipe"] | {"prefix": 'Text:\n"<b>'}}, tmp_path))
    names = [text.split()[0] for text in page.texts["dt"]]
    assert names == list(Recipe.model_fields)
    values = dict(zip(names, page.texts["dd"], strict=True))
    assert (values["learning_rate"], values["full"], values["max_minutes"]) == ("0.0003", "false", "null")
    assert values["prefix"] == r'"Text:\n\"<b>"'


def test_curves_follow_the_colours_of_the_page_and_mark_the_stage_border(tmp_path):
    html = render(RUN, tmp_path)
    loss, cosine = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert "#00000" not in html
    assert "var(--training)" in loss
    assert "var(--training)" not in cosine
    for svg in (loss, cosine):
        assert "stage 1" in svg
        assert "stage 2" in svg
        assert svg.count("stroke-dasharray") == 1
    [one_stage] = re.findall(r"<svg.*?</svg>", render(RUN | {"log": RUN["log"][:2]}, tmp_path), re.DOTALL)[:1]
    assert "stroke-dasharray" not in one_stage


def test_a_users_matplotlib_style_neither_leaks_in_nor_is_changed(tmp_path):
    plain = render(RUN, tmp_path)
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "black"}):
        assert render(RUN, tmp_path) == plain
        assert matplotlib.rcParams["text.usetex"]


def test_bars_are_shares_of_the_heaviest_token_and_know_the_words_of_the_text(tmp_path):
    items = [attributes for tag, attributes in Page(render(RUN, tmp_path)).tags if tag == "li"]
    assert [item["style"] for item in items] == [f"--share: {share}%" for share in ("100.0", "25.0", "100.0", "50.0")]
    assert [item["class"] for item in items] == ["beyond", "in-text", "in-text", "beyond"]


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" a b", "␣a␣b"),
        ("\n\t\r", "↵⇥\\r"),
        ("<b>&\"'", "<b>&\"'"),
        ("שלום", "שלום"),
        ("😀", "😀"),
        ("\u202ex\u200d", r"\u202ex\u200d"),
    ],
)
def test_tokens_are_shown_with_their_whitespace(token, shown, tmp_path):
    page = Page(render(RUN | {"examples": [{"text": "t", "before": [], "after": [[token, 1.0]]}]}, tmp_path))
    assert page.texts["bdi"] == [shown]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wild=st.text(alphabet=st.characters() | st.sampled_from("<>&\"'{}%\ud800")))
def test_no_content_changes_the_structure_of_the_page(wild, tmp_path):
    def run(text: str) -> dict[str, Any]:
        return RUN | {
            "log": [],
            "command": text,
            "corpus": RUN["corpus"] | {"name": text},
            "backbone": RUN["backbone"] | {"name": text},
            "recipe": RUN["recipe"] | {"prefix": text.encode(errors="replace").decode()},
            "examples": [{"text": text, "before": [], "after": [[text, 1.0]]}],
        }

    def structure(html: str) -> list[tuple[str, list[str]]]:
        return [(tag, sorted(attributes)) for tag, attributes in Page(html).tags]

    assert structure(render(run(wild), tmp_path)) == structure(render(run("plain"), tmp_path))


@pytest.mark.parametrize("missing", ["targets", "log", "dynamics", "before", "after", "examples"])
def test_a_run_without_an_optional_part_has_a_page(missing, tmp_path):
    run = {key: value for key, value in RUN.items() if key != missing}
    html = render(run, tmp_path)
    assert html.rstrip().endswith("</html>")
    assert ("There is nothing to draw" in html) == (missing == "log")


@pytest.mark.parametrize("no_number", [math.nan, math.inf, None])
def test_what_is_no_number_is_a_dash(no_number, tmp_path):
    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: item if key in ("stage", "step", "texts") else spoil(item) for key, item in value.items()}
        if isinstance(value, list):
            return [spoil(item) for item in value]
        return no_number if isinstance(value, float) else value

    run = {key: value if key in ("recipe", "machine") else spoil(value) for key, value in RUN.items()}
    html = render(run, tmp_path)
    assert "<svg" not in html
    numbers = [" ".join(row.split()[-2:]) for row in Page(html).texts["tr"] if "lower" in row]
    assert numbers == ["– –"] * 4
    assert html.count("--share: 0.0%") == 4


def test_a_value_that_is_no_number_leaves_a_gap(tmp_path):
    values = [9.0, 8.0, math.nan, 6.0, 5.0]
    log = [{"stage": 1, "step": step, "loss": value} for step, value in enumerate(values)]
    html = render(RUN | {"log": log}, tmp_path)
    [line] = re.findall(r'<path d="([^"]*)"[^>]*stroke: var\(--training\)', html)
    assert (line.count("M"), line.count("L")) == (2, 2)


@pytest.mark.parametrize(
    ("value", "shown"), [(400_000, "400,000"), (1234.5678, "1,234.568"), (math.nan, "–"), ("x", "–")]
)
def test_number(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (12.1, "12.1 s"), (59.9, "1 min 0 s"), (301.2, "5 min 1 s"), (7505, "2 h 5 min"), (None, "–")],
)
def test_duration(seconds, shown):
    assert duration(seconds) == shown
