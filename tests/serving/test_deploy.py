"""The files in ``docs/deploy`` fit the server."""

import configparser
import re
from pathlib import Path

from text2token.cli.serve import _GRACE

FOLDER = Path(__file__).parents[2] / "docs" / "deploy"


def read_unit():
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read(FOLDER / "text2token.service", encoding="utf-8")
    return unit["Service"]


def test_the_kill_comes_after_the_server_has_given_up_requests():
    assert int(read_unit()["TimeoutStopSec"]) > _GRACE
    period = re.search(r"stop_grace_period: (\d+)s", (FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    assert int(period[1]) > _GRACE


def test_a_unit_that_may_write_nowhere_has_temporary_files_and_a_home():
    service = read_unit()
    assert service["ProtectSystem"] == "strict"
    assert service["PrivateTmp"] == "true"
    assert service["Environment"] == f"HOME=%C/{service['CacheDirectory']}"
