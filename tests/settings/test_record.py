"""The schema of run.json: strict when written, tolerant of other versions when read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from conftest import write_record
from text2token import Recipe, UserError
from text2token.settings.record import RunRecord

OLD = Path(__file__).parents[1] / "saved" / "format-1"


def read(folder):
    return RunRecord.read(folder / "run.json")


@pytest.fixture
def written(tmp_path):
    write_record(tmp_path, "llm")
    return tmp_path / "run.json"


@pytest.mark.parametrize(("folder", "verb"), [("fit", "fit"), ("adapt", "adapt"), ("baseline", "baseline")])
def test_records_of_format_1_are_read(folder, verb):
    old = json.loads((OLD / folder / "run.json").read_text())
    record = read(OLD / folder)
    assert (record.format, record.verb) == (2, verb)
    assert "common" in old["recipe"]
    assert record.recipe == Recipe(**{key: value for key, value in old["recipe"].items() if key != "common"})
    assert record.backbone.source == old["backbone"]["source"]
    assert record.log == old.get("log", [])
    assert [row.builder for row in record.targets] == [row["builder"] for row in old.get("targets", [])]


def test_overlaps_of_format_1_become_correlations():
    old, record = json.loads((OLD / "adapt" / "run.json").read_text()), read(OLD / "adapt")
    assert record.before["overlap"] == pytest.approx(old["before"]["overlap"] / 100)
    assert record.after["overlap"] == pytest.approx(old["after"]["overlap"] / 100)
    assert [row.overlap for row in record.judged] == pytest.approx([row["overlap"] / 100 for row in old["judged"]])
    assert record.before["pair_cosine"] == old["before"]["pair_cosine"]


def test_what_is_written_is_read(written):
    record = RunRecord.read(written)
    record.write(written)
    assert RunRecord.read(written) == record


@pytest.mark.parametrize("change", [{"colour": "red"}, {"before": {"beauty": 1.0}}, {"targets": [{"stage": 1}]}])
def test_a_wrong_key_is_an_error_of_the_program(written, change):
    facts = json.loads(written.read_text()) | change
    with pytest.raises(ValidationError):
        RunRecord.of(facts)
    with pytest.raises(ValidationError):
        RunRecord.of({key: value for key, value in facts.items() if key not in {*change, "corpus"}})


def test_a_setting_that_no_longer_exists_leaves_the_record_readable(written):
    facts = json.loads(written.read_text())
    written.write_text(json.dumps(facts | {"recipe": facts["recipe"] | {"common": "first-component", "gone": 1}}))
    assert RunRecord.read(written).recipe.backbone == "llm"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "Cannot read the record"),
        ("[1]", "is not a record of fit, adapt or baseline"),
        ("{}", "is not a record of fit, adapt or baseline"),
        ('{"recipe": {"backbone": 1}}', "is not a record of fit, adapt or baseline"),
        ('{"format": 3}', "A newer version of text2token wrote"),
        ("[" * 100_000, "Cannot read the record"),
        (None, "is not a finished run"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path, content, sentence):
    file = tmp_path / "run.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=sentence):
        RunRecord.read(file)


@given(st.text(alphabet=st.characters() | st.just("\ud800")), st.sampled_from([float("nan"), float("inf")]))
def test_any_name_and_any_number_can_be_recorded(name, number):
    old = json.loads((OLD / "fit" / "run.json").read_text())
    facts = read(OLD / "fit").model_dump() | {"command": name, "before": {"pair_cosine": number}}
    record = RunRecord.of(facts)
    assert record.model_dump_json()  # UTF-8
    assert record.command == name.encode(errors="backslashreplace").decode()
    assert record.before == {"pair_cosine": None}
    assert old["after"] == record.after
