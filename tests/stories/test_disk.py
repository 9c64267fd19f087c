"""A full disk, at several moments: a sentence, no under-count, and the run goes on later."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stories.faults import RECIPES, Story, begun
from tests.stories.mutations import told_badly

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
    text = said.read_text()
    assert code in (1, 2), text
    assert "Traceback" not in text and "fault of nacre" not in text
    sentence = text.splitlines()[-1]
    assert told_badly(sentence) == []
    return sentence


def test_a_full_disk_before_the_run_leaves_nothing(disk: Path, tmp_path: Path) -> None:
    told = Story("central", disk)
    (disk / "recipe.yaml").write_text(RECIPES["central"])
    filler = fill(disk, left=0)
    assert "make room" in failed(told, tmp_path / "said.txt")
    assert sorted(path.name for path in disk.iterdir()) == ["filler", "recipe.yaml"]
    filler.unlink()
    assert told.train(told.run) == 0


ROOM = [(kind, left) for kind in RECIPES for left in (0, 1 << 13, 1 << 15, 1 << 17, 1 << 18)]


# A search removes what it no longer needs, so it fits into what stops the others.
@pytest.mark.parametrize(("kind", "left"), [r for r in ROOM if r[0] != "search" or r[1] < 1 << 17])
def test_a_run_goes_on_once_there_is_room(kind: str, left: int, disk: Path, tmp_path: Path) -> None:
    told = begun(kind, disk / "story")
    filler = fill(disk, left)
    sentence = failed(told, tmp_path / "said.txt")
    assert "room" in sentence or "disk I/O error" in sentence  # SQLite's word for a full index
    filler.unlink()  # SQLite cannot even read on a disk that has no room for its index
    told.look()
    told.end()
    assert told.broken == []


@pytest.mark.parametrize("largest", [1 << 10, 1 << 15, 1 << 16])
def test_a_limit_on_files_is_no_worse(largest: int, tmp_path: Path) -> None:
    """As a full disk, where no disk can be mounted: the system refuses to let a file grow."""
    told = begun("central", tmp_path / "story")
    failed(told, tmp_path / "said.txt", largest=largest)
    told.look()
    told.end()
    assert told.broken == []
