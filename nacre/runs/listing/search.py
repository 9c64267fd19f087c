"""The runs below a folder. Links are not followed, and what is hidden is not looked into."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from nacre.runs.listing.entry import RunEntry, answers_entry, holds_marks, run_entry

_PASSED_BY = frozenset({"local", "node_modules", "__pycache__"})


@dataclass
class RunSearch:
    """What was found, as it is found."""

    depth: int
    """Folders in each other that are looked into."""
    found: list[RunEntry] = field(default_factory=list[RunEntry])
    deeper: bool = False
    """Whether there are folders that lie deeper, so were not looked into."""

    def look(self, folder: Path, left: int | None = None) -> None:
        """Looks into a folder and those in it. Never raises: a folder that the system will not
        show is an entry."""
        left = self.depth if left is None else left
        try:
            if holds_marks(folder):
                entry = run_entry(folder, every_figure=False)
                self.found.append(entry)
                if entry.state != "foreign":
                    return
            with os.scandir(folder) as inside:
                entries = sorted(inside, key=lambda one: one.name)
            for one in entries:
                self._look_at(one, left)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            self.found.append(RunEntry(path=folder, state="closed", reason=reason))

    def _look_at(self, one: os.DirEntry[str], left: int) -> None:
        if one.is_dir(follow_symlinks=False):
            if one.name.startswith(".") or one.name in _PASSED_BY:
                return
            if left == 0:
                self.deeper = True
            else:
                self.look(Path(one.path), left - 1)
        elif one.name.endswith(".json") and one.is_file(follow_symlinks=False):
            answers = answers_entry(Path(one.path))
            if answers is not None:
                self.found.append(answers)


def runs_under(folder: Path, depth: int) -> RunSearch:
    """The runs in a folder and below it, the oldest first; what has no date comes last."""
    search = RunSearch(depth)
    search.look(folder)
    search.found.sort(key=lambda entry: (entry.created or "~", str(entry.path)))
    return search
