"""The adversarial batches of a run: kept beside its findings, and scored again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from nacre.audit.model_security.batch import AdversarialBatch, Reproduced, reproduced
from nacre.audit.model_security.batch_file import batches_in, load_batch, save_batch
from nacre.audit.target import Target
from nacre.core.errors import RunError

BATCHES = "attacks"
"""The folder under `local/` of a run."""


@dataclass(frozen=True)
class KeptBatches:
    """What the evasions of one audit found, held until its findings are written."""

    found: dict[str, AdversarialBatch] = field(default_factory=dict[str, AdversarialBatch])

    def of(self, variant: str, target: Target) -> Target:
        """The target, whose evasions leave their batches here: VARIANT-1, VARIANT-2, …"""

        def keep(batch: AdversarialBatch) -> None:
            name = variant.replace(" ", "-")
            number = 1 + sum(known.rsplit("-", 1)[0] == name for known in self.found)
            self.found[f"{name}-{number}"] = batch

        return replace(target, keep=keep)

    def write(self, folder: Path) -> None:
        """Puts each in `folder`; batches of a former audit that none of these replaces go."""
        if self.found:
            folder.mkdir(parents=True, exist_ok=True)
        for name, batch in self.found.items():
            save_batch(batch, folder, name)
        for name in set(batches_in(folder)) - set(self.found):
            for suffix in (".json", ".safetensors"):  # without the first there is no batch
                (folder / f"{name}{suffix}").unlink(missing_ok=True)


def scored_again(
    folder: Path,
    model_of: Callable[[str], nn.Module],  # a batch's name -> the model to ask
) -> dict[str, Reproduced]:
    """Every batch of the folder, scored again. Raises `RunError` where there is none."""
    names = batches_in(folder)
    if not names:
        raise RunError(
            f"{folder} holds no adversarial batch; `nacre audit` writes one for each evasion"
        )
    return {name: reproduced(load_batch(folder, name), model_of(name)) for name in names}
