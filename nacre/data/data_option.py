"""What every option under `data` offers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nacre.data.dataset import Cohorts, Schema
from nacre.data.scaling import ScalingOption
from nacre.data.split import Holdout

if TYPE_CHECKING:
    from nacre.data.text.token_cache import Aids


class DataOption(Protocol):
    """What every option under `data` offers. `read` alone touches rows."""

    @property
    def kind(self) -> str: ...

    @property
    def size(self) -> int:
        """The declared number of private units: public, and what rates are computed from."""
        ...

    @property
    def public_demonstration(self) -> bool:
        """Whether the owner declares all of these rows public."""
        ...

    @property
    def scaling(self) -> ScalingOption:
        """How features become inputs of the model."""
        ...

    @property
    def unit(self) -> str | None:
        """The column that names a row's group, or None."""
        ...

    @property
    def party(self) -> str | None:
        """The column that names who holds a row, or None."""
        ...

    @property
    def has_public(self) -> bool:
        """Whether `read` will return public rows."""
        ...

    @property
    def has_test(self) -> bool:
        """Whether `read` will return test rows."""
        ...

    @property
    def holdout(self) -> Holdout | None:
        """The private rows that are kept out of training, or None."""
        ...

    def sentence(self) -> str:
        """Which rows, in a few words."""
        ...

    def assumptions(self, folder: Path) -> list[str]:
        """What has to hold beyond what every run rests on, one sentence each."""
        ...

    def schema(self, folder: Path = Path()) -> Schema:
        """What a row looks like, without reading one; `folder` is where a tokenizer may lie."""
        ...

    def read(self, folder: Path, seed: int, split_key: bytes, aids: Aids | None = None) -> Cohorts:
        """Reads and checks every row; paths are relative to `folder`. Raises `DataError`."""
        ...
