"""Recipes: the same names everywhere, and one sentence for what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from text2token import Recipe, UserError
from text2token.settings.templates import TEMPLATES, Template, named_templates

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.name)
def test_packaged_recipes_load(file):
    assert isinstance(Recipe.load(file), Recipe)


def test_the_default_recipe_spells_out_the_defaults():
    (default,) = [file for file in RECIPES if file.name == "default.yaml"]
    assert Recipe.load(default) == Recipe()


def test_overrides_win_and_an_empty_file_means_the_defaults(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("max_texts: 10\nseed: 3\n")
    assert Recipe.load(file, seed=4) == Recipe(max_texts=10, seed=4)
    file.write_text("# nothing\n")
    assert Recipe.load(file) == Recipe()


@pytest.mark.parametrize(
    ("content", "name", "value"),
    [
        ("seed: 010", "seed", 10),
        ("max_texts: 1_000", "max_texts", 1000),
        ("learning_rate: 3e-5", "learning_rate", 3e-5),
        ("stop_words: no", "stop_words", "no"),
        ("prefix: 007", "prefix", "007"),
        ("suffix: 2020-01-01", "suffix", "2020-01-01"),
        ("full: yes", "full", True),
        ("max_minutes: null", "max_minutes", None),
        ("prefix: 'null'", "prefix", "null"),
        ("seed: !!int 010", "seed", 10),
        ("suffix: !!timestamp today", "suffix", "today"),
    ],
)
def test_a_value_is_read_as_on_the_command_line(tmp_path, content, name, value):
    (tmp_path / "r.yaml").write_text(f"seed: 1\n{content}\n" if name != "seed" else content)
    assert getattr(Recipe.load(tmp_path / "r.yaml"), name) == value


def test_a_truth_value_is_no_number_from_python():
    with pytest.raises(ValueError, match="'max_texts' is a truth value"):
        Recipe(max_texts=True)


def test_templates():
    assert Recipe(template="eol").text_template() == TEMPLATES["eol"]
    assert Recipe(suffix=" =>").text_template() == Template(TEMPLATES["keywords"].prefix, " =>")
    assert Recipe(template="none", prefix="query: ").text_template() == Template("query: ")
    assert named_templates("eol,topic") == (TEMPLATES["eol"], TEMPLATES["topic"])
    with pytest.raises(UserError, match="no template 'x'"):
        Recipe(template="x").text_template()
    assert named_templates("eol, topic") == (TEMPLATES["eol"], TEMPLATES["topic"])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"- a\n", "is not a mapping"),
        (b"~: 2\n", "is not a mapping"),
        (b"1: 2\n", "'1'.*known are backbone"),
        (b"a: [\n", "Cannot read the recipe"),
        (b"\xff\xfe\x00", "Cannot read the recipe"),
        (b"colour: red\n", "'colour'.*known are backbone"),
        (b"seed: -1\n", "'seed'.*greater than or equal to 0"),
        (b"held_out: 1\n", "'held_out'"),
        (b"mixing: 2\n", "'mixing'"),
        (b"keep_from: 0.9\nkeep_to: 0.1\n", r"keep_from \(0.9\) must be below keep_to \(0.1\)"),
        (b"correction: center\n", "no correction 'center'"),
        (b"correction: filter+centre\n", "'filter' changes the dimension"),
        (b"prior_templates: eol,riddle\n", "no template 'riddle'"),
        (b"stop_words: en,tlh\n", "No stop list for language 'tlh'"),
        (b"seed: 1\nmixing: 0\nseed: 2\n", r"line 3: 'seed' occurs twice"),
        (b"seed: 1\nmixing: [}\n", "line 2: "),
        (b"max_texts: true\n", "'max_texts': Input should be a valid integer"),
        (b"max_minutes: yes\n", "'max_minutes': Input should be a valid number"),
        (b"max_texts: 1:30\n", "'max_texts': Input should be a valid integer"),
        (b"temperature: inf\n", "'temperature': Input should be a finite number"),
        (b"full: !!bool maybe\n", "'full': Input should be a valid boolean"),
        (b"seed: !!int ''\n", "'seed': Input should be a valid integer"),
        (b"mixing: !!float ''\n", "'mixing': Input should be a valid number"),
        (b"seed: !!int [1]\n", "line 1: expected a scalar node"),
        (b"? [a]\n: 2\n", "Cannot read the recipe .*, line 1: found unhashable key"),
        (b"prior_templates: riddle\n", r"[^.]\.$"),
        (b"max_length: 32\ntrain_length: 64", r"train_length \(64\) must not be above max_length \(32\)"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path, content, sentence):
    file = tmp_path / "r.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=sentence) as error:
        Recipe.load(file)
    assert "\n" not in str(error.value)


def test_a_shorter_max_length_shortens_the_default_in_training_only():
    recipe = Recipe.load(None, max_length=32)
    assert (recipe.train_length, Recipe().train_length) == (32, 64)
    assert recipe.model_fields_set == {"max_length"}
    assert Recipe(**recipe.model_dump()) == recipe


def test_a_removed_setting_is_accepted_with_its_old_default_only():
    assert Recipe(**{"common": "mean"}) == Recipe()
    with pytest.raises(UserError, match="the setting 'common' no longer exists"):
        Recipe.load(None, common="first-component")


def test_settings_import_no_torch():
    code = "import sys, text2token.settings as s; s.Recipe(), s.VectorSettings(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
