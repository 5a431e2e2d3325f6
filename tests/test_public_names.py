"""The six names of the package, whatever was imported before."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_is_light():
    assert run("import sys, text2token; print('torch' in sys.modules)") == "False"


@pytest.mark.slow
def test_every_name_is_what_it_says_even_when_all_modules_are_loaded():
    code = """
import importlib, pkgutil, text2token
for module in pkgutil.walk_packages(text2token.__path__, "text2token."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*(f"{name}:{type(getattr(text2token, name)).__name__}" for name in text2token.__all__))
"""
    kinds = dict(pair.split(":") for pair in run(code).split())
    assert kinds["fit"] == kinds["build_targets"] == "function"
    assert set(kinds) == {"Corpus", "Embedder", "Recipe", "UserError", "build_targets", "fit"}


def test_an_unknown_name_is_an_attribute_error():
    assert run("import text2token\ntry: text2token.nothing\nexcept AttributeError as error: print(error)").endswith(
        "nothing"
    )
