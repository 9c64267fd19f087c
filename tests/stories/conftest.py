"""What the stories share: runs that are begun once, and whose undisturbed copy ends once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stories.faults import Story, begun, begun_again


@pytest.fixture(scope="session")
def begun_in(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Story]:
    """Gives a run of a kind whose first step is to come, in this folder. A run is the same for the
    same key, so all runs of a kind are copies of one, and have its undisturbed copy to equal."""
    first: dict[str, Story] = {}

    def made(kind: str, folder: Path) -> Story:
        if kind not in first:
            first[kind] = begun(kind, tmp_path_factory.mktemp(kind) / "story")
            first[kind].end_copy()
            assert first[kind].broken == []
        return begun_again(first[kind], folder)

    return made
