"""A full disk, at several moments: a sentence, no under-count, and the run goes on later."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stories.faults import RECIPES, Story
from tests.stories.mutations import told_badly
from tests.training.tiny import CENTRAL, text

pytestmark = pytest.mark.slow

SIZE = 16 << 20  # bytes of the disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, left: int) -> Path:
    """Takes all but `left` bytes of the disk; remove the file to make room."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 12))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        file.truncate(max(0, file.tell() - left))
    return filler


def failed(told: Story, said: Path, **more: int) -> str:
    """The sentence of a run that the disk stopped."""
    code = told.train(told.run, says=said, **more)
    words = said.read_text()
    assert code in (1, 2), words
    assert "Traceback" not in words and "fault of nacre" not in words
    sentence = words.splitlines()[-1]
    assert told_badly(sentence) == []
    return sentence


def test_a_full_disk_before_the_run_leaves_nothing(disk: Path, tmp_path: Path) -> None:
    told = Story("central", disk, undisturbed=disk / "undisturbed")
    (disk / "recipe.yaml").write_text(text(CENTRAL, ledger__path="{run}/privacy.db"))
    filler = fill(disk, left=0)
    assert "make room" in failed(told, tmp_path / "said.txt")
    assert sorted(path.name for path in disk.iterdir()) == ["filler", "recipe.yaml"]
    filler.unlink()
    assert told.train(told.run) == 0


# Bytes of room that stop one run, one after another: before it opens, at its base or its first
# trial, and at a file, a reply or the ledger on its way. A search fits into a little more.
ROOM = [
    ("central", (0, 1 << 15)),
    ("central", (1 << 17,)),
    ("central", (5 << 15,)),
    ("banded", (0, 1 << 15, 1 << 17)),
    ("federated", (1 << 14, 1 << 15, 1 << 16)),
    ("search", (0, 1 << 15, 1 << 16)),
]


@pytest.mark.parametrize("kind", RECIPES)
def test_a_run_goes_on_once_there_is_room(kind: str, begun_in: Any, disk: Path) -> None:
    said = disk.with_name("said.txt")
    for rooms in (rooms for of, rooms in ROOM if of == kind):
        told = begun_in(kind, disk / "story")
        for left in rooms:
            filler = fill(disk, left)
            sentence = failed(told, said)
            assert "room" in sentence or "disk I/O error" in sentence  # SQLite, of a full index
            filler.unlink()  # SQLite cannot even read on a disk that has no room for its index
            told.kills.append(f"{left} bytes of room")
            told.look()
        told.end()
        assert told.broken == []
        shutil.rmtree(told.folder)


def test_a_limit_on_files_is_no_worse(begun_in: Any, tmp_path: Path) -> None:
    """As a full disk, where no disk can be mounted: the system refuses to let a file grow."""
    told = begun_in("central", tmp_path / "story")
    for largest in (1 << 10, 1 << 15, 1 << 16):
        failed(told, tmp_path / "said.txt", largest=largest)
        told.kills.append(f"{largest} bytes in a file")
        told.look()
    told.end()
    assert told.broken == []
