"""Canaries: random secrets put among private documents, to see whether a model repeats them."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import hashlib
import string
from dataclasses import dataclass
from typing import Literal

from nacre.core.errors import BadArgument
from nacre.core.random import Source

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True)
class Canaries:
    """Secrets that the recipe makes up. Each is put among the private documents by a fair coin of
    its own: those left out show what a model that never saw them would do."""

    kind: Literal["canaries"] = "canaries"
    count: int = 128
    """Canaries, of which about half go in. From 32 no audit can show an epsilon above 1.6, from 128
    none above 3."""
    repeats: int = 1
    """How often each of them goes in. What is promised to one row says little about a secret that
    stands in several."""
    template: str = "the code of {name} is {secret}"
    """The text of a canary; `{name}` and `{secret}` are drawn at random."""
    digits: int = 6
    """Digits of a secret."""

    def sentence(self) -> str:
        """What the documents are learnt beside."""
        times = "1 time" if self.repeats == 1 else f"{self.repeats} times"
        return (
            f"About half of {self.count} random secrets are learnt beside the documents, "
            f"{times} each; nobody's secret is among them."
        )

    def __post_init__(self) -> None:
        if self.count < 8 or self.repeats < 1:
            raise BadArgument(
                f"count={self.count} must be at least 8 and repeats={self.repeats} at least 1"
            )
        if not 1 <= self.digits <= 18:
            raise BadArgument(f"digits={self.digits} must lie between 1 and 18")
        try:
            parts = list(string.Formatter().parse(self.template))
        except ValueError:
            parts = [("", "", None, None)]
        fields = [name for _, name, _, _ in parts if name is not None]
        plain = all(not form and not how for _, _, form, how in parts)
        if not plain or "secret" not in fields or not set(fields) <= {"name", "secret"}:
            raise BadArgument(
                f"template={self.template!r} must hold {{secret}}, may hold {{name}}, and no other "
                "braces"
            )


@dataclass(frozen=True)
class Canary:
    """One random secret, and the name that it is stated for."""

    name: str
    secret: str
    inserted: bool  # by a fair coin

    def text(self, option: Canaries, secret: str | None = None) -> str:
        """What it says, with its own secret or with another one."""
        return option.template.format(name=self.name, secret=secret or self.secret)


def made(option: Canaries, seed: int) -> tuple[Canary, ...]:
    """The canaries of a recipe; the same seed makes the same ones."""
    source = _source(seed)
    return tuple(
        Canary(_word(source.child(i, "name")), _digits(option, source.child(i, "secret")), _coin(
            source.child(i, "coin")
        ))
        for i in range(option.count)
    )  # fmt: skip


def inserted(option: Canaries, seed: int) -> tuple[list[str], list[str]]:
    """(documents, whose each is): the canaries that go in, each as often as the recipe says."""
    within = [canary for canary in made(option, seed) if canary.inserted]
    texts = [canary.text(option) for canary in within for _ in range(option.repeats)]
    owners = [f"canary {canary.name}" for canary in within for _ in range(option.repeats)]
    return texts, owners


def others(option: Canaries, seed: int, canary: Canary, count: int) -> list[str]:
    """`count` documents that differ from the canary and each other in their secret alone.

    Raises `ValueError` where there are fewer secrets than that.
    """
    if count >= 10**option.digits:
        raise ValueError(f"there are no {count} other secrets of {option.digits} digits")
    source = _source(seed).child("others", canary.name)
    found: dict[str, None] = {}
    number = 0
    while len(found) < count:
        secret = _digits(option, source.child(number))
        number += 1
        if secret != canary.secret:
            found[secret] = None
    return [canary.text(option, secret) for secret in found]


def _source(seed: int) -> Source:
    return Source(hashlib.sha256(f"nacre canaries {seed}".encode()).digest())


def _coin(source: Source) -> bool:
    return bool(source.number("coin") & 1)


def _digits(option: Canaries, source: Source) -> str:
    return f"{source.number('digits') % 10**option.digits:0{option.digits}d}"


def _word(source: Source) -> str:
    letters = source.number("letters")
    return "".join(_LETTERS[letters // 26**i % 26] for i in range(7))
