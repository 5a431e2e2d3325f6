"""The options of ``serve`` that need no server: keys, and the form of the log."""

import json
import logging
import sys

import pytest

from conftest import refused
from text2token.cli.serve import Access, JsonFormatter, _service
from text2token.serving import ServerSettings


def keys(*given):
    return Access(writable=False, given=given, file=None).keys()


def test_the_variable_gives_one_key_unless_an_option_does(monkeypatch):
    monkeypatch.delenv("TEXT2TOKEN_API_KEY", raising=False)
    assert keys() == ()
    monkeypatch.setenv("TEXT2TOKEN_API_KEY", " a key \n")
    assert keys() == ("a key",)
    assert keys("first ", "second") == ("first", "second")


@pytest.mark.parametrize("value", ["", " \n"])
def test_a_blank_variable_does_not_open_the_server(value):
    said = refused("serve", "model", "--port", "0", env={"TEXT2TOKEN_API_KEY": value})
    assert said == "Error: The variable TEXT2TOKEN_API_KEY is empty: set it to a key, or unset it.\n"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_routes_have_the_precision_of_the_server(model_folder, monkeypatch, precision):
    monkeypatch.setattr("text2token.model.precision.has_bf16", lambda device: True)
    model = _service(str(model_folder), ServerSettings("tiny"), precision).model
    assert model.plain.precision == model.embedder.precision == precision


@pytest.mark.parametrize("host", ["", " "])
def test_an_empty_host_is_refused(host):
    said = refused("serve", "model", "--port", "0", "--host", host)
    assert said == "Error: The value of --host is empty: name an address, or leave the option out.\n"


def test_a_json_line_holds_the_traceback_and_the_stack():
    try:
        raise ValueError("broken")
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord(
        "text2token", logging.ERROR, __file__, 1, "It %s", ("failed",), error, sinfo="Stack: here"
    )
    (line,) = JsonFormatter().format(record).splitlines()
    told = json.loads(line)
    assert (told["message"], told["stack"]) == ("It failed", "Stack: here")
    assert told["exception"].startswith("Traceback")
    assert told["exception"].endswith("ValueError: broken")
    plain = logging.LogRecord("text2token", logging.INFO, __file__, 1, "Fine", (), None)
    assert set(json.loads(JsonFormatter().format(plain))) == {"time", "level", "logger", "message"}
