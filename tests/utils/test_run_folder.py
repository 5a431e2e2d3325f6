"""What comes to the output of a run while it runs is not replaced unasked."""

from __future__ import annotations

import pytest

from text2token.utils.errors import PassingError, UserError
from text2token.utils.run_folder import RunFolder


def test_a_run_that_another_process_has_published_is_not_replaced(tmp_path):
    first, second = (RunFolder.open(tmp_path / "m", overwrite=False) for _ in range(2))
    with first.session({"seed": 1}):
        first.result.mkdir()
        (first.result / "run.json").write_text("first")
        first.publish()
    with pytest.raises(UserError, match=r"The output '.*m' exists"), second.session({"seed": 2}):
        pass
    assert (tmp_path / "m" / "run.json").read_text() == "first"


@pytest.mark.parametrize("is_file", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_a_user_puts_there_during_a_run_stays_and_so_does_the_work(tmp_path, is_file, overwrite):
    run, own = RunFolder.open(tmp_path / "m", overwrite=overwrite, is_file=is_file), tmp_path / "m" / "thesis.txt"

    def work():
        with run.session({}):
            run.result.write_text("done") if is_file else run.result.mkdir()
            own.parent.mkdir()
            own.write_text("a thesis")
            run.publish()

    with pytest.raises(PassingError, match="repeat the command"):
        work()
    assert own.read_text() == "a thesis"
    assert run.result.exists()
    own.parent.rename(tmp_path / "moved")
    run = RunFolder.open(tmp_path / "m", overwrite=overwrite, is_file=is_file)
    with run.session({}):
        run.publish()
    assert (tmp_path / "m").exists()
    assert not run.work.exists()


def complete(run, settings):
    with run.session(settings):
        run.result.mkdir()
        (run.result / "run.json").write_text("{}")
        run.publish()


def test_damaged_settings_are_those_of_another_run(tmp_path):
    run = RunFolder.open(tmp_path / "out", overwrite=False)
    run.work.mkdir()
    (run.work / "settings.json").write_text('{"seed')
    with pytest.raises(UserError, match="are damaged, so it cannot be continued: choose another folder"):
        complete(run, {"seed": 1})
    complete(RunFolder.open(run.output, overwrite=True), {"seed": 1})
    assert (run.output / "run.json").is_file()


def test_damaged_timings_are_named(tmp_path):
    run = RunFolder.open(tmp_path / "out", overwrite=False)
    run.work.mkdir()
    (run.work / "timings.json").write_text("{")
    with pytest.raises(UserError, match="is damaged: delete it and repeat"), run.clock("encode"):
        pass
