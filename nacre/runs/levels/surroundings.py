"""What a loop has around it: charges, a folder, a watch, devices, and the way to parties."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from nacre.core.parts import Transport
from nacre.runs.federation.memory import PartiesElsewhere
from nacre.runs.progress import Progress, Silent
from nacre.training.devices.portions import Devices
from nacre.training.fit import Journal, NoJournal


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a loop has around it: what it is charged to, kept in, shown by and shared with.

    By itself it charges nothing, keeps nothing and tells nothing, in one process. Where several
    share a run, charges, folder and watch are those of the first.
    """

    charges: Mapping[str, Journal] = field(default_factory=dict[str, Journal])  # by holder
    folder: Path | None = None  # of the run, whose state/ has its checkpoints
    watch: Progress = field(default_factory=Silent)
    devices: Devices = field(default_factory=Devices)
    early: bool = False  # put the last checkpoint back and end there
    workers: int = 1  # processes that train parties, this one among them
    stack: ExitStack = field(default_factory=ExitStack)  # what ends with the loop
    parties: PartiesElsewhere | None = None  # in this process where there are none elsewhere
    through: Callable[[Transport], Transport] = lambda wire: wire  # on the way to parties that are
    # in this process: what an audit puts between

    def charge(self, holder: str) -> Journal:
        """The journal of a holder; one that keeps nothing where nothing is private."""
        return self.charges.get(holder, NoJournal())
