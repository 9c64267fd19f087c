"""What whole parties reply is raw: it is never in clear on the disk, and is gone with the run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from nacre.core.run_folder import RunFolder
from nacre.core.types import Unprotected
from nacre.federated_learning import Party, Reply
from nacre.federated_learning.answers import RoundFiles
from nacre.planning.plan import plan
from nacre.runs.run import abandon, finish, open_run, train
from tests.planning.test_clipping import CLIENT
from tests.training.tiny import StopAfter, Stopped, recipe

pytestmark = pytest.mark.slow


def _interrupted(place: Path) -> None:
    with pytest.raises(Stopped):
        train(plan(recipe(place, CLIENT)), place / "run", observe=StopAfter(2))


def _answers(run: Path) -> list[Path]:
    return sorted((run / "local" / "parties").rglob("*.answers"))


def test_no_reply_of_a_whole_party_stands_in_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    reply = Party.reply

    def replied(self: Party, *given: Any) -> Reply:
        found = reply(self, *given)
        sent.append(found.to_bytes())
        return found

    monkeypatch.setattr(Party, "reply", replied)
    _interrupted(tmp_path)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert _answers(tmp_path / "run") and sent
    for found in map(Reply.from_bytes, sent):
        assert isinstance(found.how, Unprotected)
        assert "noise is added to the sum over clients" in found.how.reason  # the true one
        raw = max((t.numpy().tobytes() for t in found.tensors.values()), key=len)
        assert not [path for path in files if raw in path.read_bytes()]


def test_a_resumed_run_reads_its_replies_and_ends_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last round is asked again: the stored bytes answer, nothing is trained anew."""
    _interrupted(tmp_path)
    run, copy = tmp_path / "run", tmp_path / "copy"
    for path in sorted((run / "state").glob("step-*"))[-1:]:
        path.unlink()  # a kill between the replies and the checkpoint of their round
    shutil.copytree(run, copy)
    again: list[str] = []
    get = RoundFiles.get

    def counted(self: RoundFiles, name: str, step: str) -> tuple[bytes, bytes] | None:
        known = get(self, name, step)
        if known is not None:
            again.append(step)
        return known

    monkeypatch.setattr(RoundFiles, "get", counted)
    train(plan(recipe(tmp_path, CLIENT), resume=run), run, resume=True)
    assert again
    assert not (run / "local" / "parties").exists()
    assert RunFolder(run).outcome.exists()


@pytest.mark.parametrize("end", [finish, abandon], ids=["finish", "abandon"])
def test_an_ended_run_has_no_replies(tmp_path: Path, end: object) -> None:
    _interrupted(tmp_path)
    assert callable(end)
    end(tmp_path / "run")
    assert not (tmp_path / "run" / "local" / "parties").exists()
    assert not RunFolder(tmp_path / "run").run_key.exists()


def test_a_run_killed_before_its_key_was_destroyed_is_cleaned_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFolder, "destroy_key", lambda self: (_ for _ in ()).throw(Stopped))
    with pytest.raises(Stopped):
        train(plan(recipe(tmp_path, CLIENT)), tmp_path / "run")
    monkeypatch.undo()
    folder = RunFolder(tmp_path / "run")
    assert folder.outcome.exists() and _answers(folder.path) and folder.run_key.exists()
    open_run(folder.path)
    assert not folder.parties.exists() and not folder.run_key.exists()
