"""What the package declares: bounds that are tested, and versions that are pinned."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def bounds(requirements: list[str]) -> dict[str, str]:
    """Name and lower bound of each requirement; the bound is empty where there is none."""
    parts = [re.fullmatch(r"([\w.-]+)(?:\[.*\])?(?:>=([\w.]+))?.*", text) for text in requirements]
    return {canonical(part[1]): part[2] or "" for part in parts if part and part[1] != "text2token"}


def pins(file: str) -> dict[str, str]:
    lines = [line.split("==") for line in (ROOT / file).read_text().splitlines() if "==" in line]
    return {canonical(name): version for name, version in lines}


def release(version: str) -> list[int]:
    numbers = [int(number) for number in re.findall(r"\d+", version)][:3]
    return numbers + [0] * (3 - len(numbers))


def test_the_lowest_versions_are_those_that_are_declared():
    tested = pins("constraints-lowest.txt")
    used = [text for extra, texts in EXTRAS.items() if extra not in ("dev", "docs", "package") for text in texts]
    declared = bounds(PROJECT["dependencies"] + used)
    assert len(declared) > 20
    wrong = {
        name: (bound, tested.get(name))
        for name, bound in declared.items()
        if name != "torch" and release(tested.get(name, "0"))[:2] != release(bound)[:2]
    }
    assert not wrong, "run 'make lowest'"


def test_every_declared_package_is_pinned():
    declared = bounds(PROJECT["dependencies"] + [text for texts in EXTRAS.values() for text in texts])
    assert not declared.keys() - pins("constraints.txt").keys()


def test_pinned_versions_are_allowed():
    pinned = pins("constraints.txt")
    declared = bounds(PROJECT["dependencies"] + [text for texts in EXTRAS.values() for text in texts])
    assert all(release(pinned[name]) >= release(bound) for name, bound in declared.items() if bound)
