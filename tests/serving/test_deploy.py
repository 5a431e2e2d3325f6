"""The files in ``docs/deploy`` fit the server."""

import configparser
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "deploy"


def read_unit():
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read(FOLDER / "text2token.service", encoding="utf-8")
    return unit["Service"]


def test_a_unit_that_may_write_nowhere_has_temporary_files_and_a_home():
    service = read_unit()
    assert service["ProtectSystem"] == "strict"
    assert service["PrivateTmp"] == "true"
    assert service["Environment"] == f"HOME=%C/{service['CacheDirectory']}"
