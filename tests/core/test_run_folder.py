import os
import stat

import pytest

from nacre.core import run_folder
from nacre.core.errors import FileDamaged, NacreError, RunError
from nacre.core.files import read_json, write_json
from nacre.core.random import Source


def _made(path):
    return run_folder.create(path, b"nacre: 1\n", {"name": "x"}, {"run": "r"}, bytes(32))


def test_a_folder_is_whole_and_its_secrets_are_its_owners(tmp_path):
    made = _made(tmp_path / "run")
    assert made.recipe.read_bytes() == b"nacre: 1\n"
    assert read_json(made.plan) == {"name": "x"}
    assert stat.S_IMODE(made.local.stat().st_mode) == 0o700
    assert stat.S_IMODE(made.run_key.stat().st_mode) == 0o600
    assert isinstance(made.source(), Source)
    assert os.listdir(tmp_path) == ["run"]


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "run").mkdir()
    assert _made(tmp_path / "run").plan.exists()


def test_an_open_run_says_how_to_continue(tmp_path):
    _made(tmp_path / "run")
    with pytest.raises(RunError, match="its run is open: continue it with `--resume`"):
        _made(tmp_path / "run")


def test_a_complete_run_says_where_its_report_is(tmp_path):
    made = _made(tmp_path / "run")
    made.outcome.write_text("{}")
    with pytest.raises(RunError, match=r"complete: read .*report\.html"):
        _made(tmp_path / "run")


def test_something_else_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    for name in ("file", "full"):
        with pytest.raises(RunError, match="choose another"):
            _made(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder.os, "replace", full)
    with pytest.raises(NacreError, match="No space left"):
        _made(tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder, "write_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _made(tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_a_destroyed_key_ends_the_run(tmp_path):
    made = _made(tmp_path / "run")
    made.destroy_key()
    made.destroy_key()
    assert not made.run_key.exists()
    with pytest.raises(RunError, match="has ended"):
        made.source()


def test_the_end_of_a_run_removes_what_its_parties_replied(tmp_path):
    """Under privacy of whole parties a reply is a raw change, which no noise has reached."""
    made = _made(tmp_path / "run")
    (made.parties / "a").mkdir(parents=True)
    (made.parties / "a" / "reply.safetensors").write_bytes(b"raw")
    made.destroy_key()
    assert not made.parties.exists()


def test_a_key_of_another_length_is_no_key(tmp_path):
    made = _made(tmp_path / "run")
    made.run_key.write_bytes(b"short")
    with pytest.raises(FileDamaged, match="5 bytes"):
        made.source()
    with pytest.raises(FileDamaged, match="cannot be read"):
        made.key(tmp_path / "none")


def test_no_run_no_folder(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        run_folder.reopen(tmp_path)
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(RunError, match="a model without its run"):
        run_folder.reopen(tmp_path)


def test_a_folder_states_its_format_and_another_one_is_refused(tmp_path):
    made = _made(tmp_path / "run")
    facts = read_json(made.facts)
    assert facts["format"] == run_folder.FORMAT == 1
    assert run_folder.reopen(made.path) == made
    for other in (2, "1", True, None):
        write_json(made.facts, facts | {"format": other})
        with pytest.raises(RunError, match=r"of format .* reads format 1; use the version that"):
            run_folder.reopen(made.path)
    write_json(made.facts, {"run": "r"})  # as the first folders were
    assert run_folder.reopen(made.path) == made
