"""What travels between the server and a party: tensors and a handful of facts, as bytes.

A message is one safetensors file. Its metadata has a single entry, `nacre`: JSON with exactly the
fields below, no more and no fewer, so a message carries nothing else.

    request  format message kind round recipe        tensors: the weights, float32
    reply    format message kind round party how     tensors: what was released, float32

*Guarantee:* a reply has no place for counts, losses or timings of private rows; what it carries is
one `Release` and the right it leaves by. Bytes from outside are data and never code: whatever they
are, reading them gives a message or a `PartyError`.
"""

# Parts of torch and safetensors are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from nacre.core.errors import PartyError
from nacre.core.files import tensors_to_bytes
from nacre.core.random import digest
from nacre.core.strict import parsed
from nacre.core.types import Inherited, Noised, Tensors, Unprotected

MessageKind = Literal["train", "evaluate"]
"""What is asked: a change of these weights, or figures of them."""

How = Noised | Inherited | Unprotected
"""By what right a release leaves; as in `Release`."""

FORMAT = 1
"""Of every message, as docs/formats/message.md has it."""
_LAST_ROUND = 2**31 - 1

_UNREADABLE = (SafetensorError, ValueError, TypeError, LookupError, RuntimeError, ArithmeticError)
"""All that safetensors, torch and json raise on bytes that are no message."""


@dataclass(frozen=True)
class RoundRequest:
    """What the server asks of a party: the same bytes for every party of a round."""

    kind: MessageKind
    round: int  # counted from 0
    recipe: str  # hex digest of the recipe that both sides run
    tensors: Tensors  # the weights that training moves

    def to_bytes(self) -> bytes:
        """The message; the same request gives the same bytes."""
        facts = {"kind": self.kind, "round": self.round, "recipe": self.recipe}
        return _packed("request", facts, self.tensors)

    @classmethod
    def from_bytes(cls, data: bytes) -> RoundRequest:
        """What `to_bytes` packed. Raises `PartyError` for any other bytes."""
        try:
            facts, tensors = _unpacked("request", {"kind", "round", "recipe"}, data)
            recipe = _text(facts["recipe"], "recipe")
            return cls(_kind(facts["kind"]), _round(facts["round"]), recipe, tensors)
        except _UNREADABLE as error:
            raise _refusal("request", error) from error

    def digest(self) -> bytes:
        """SHA-256 of everything that is asked."""
        return digest(self.kind, self.round, self.recipe, self.tensors)


@dataclass(frozen=True)
class Reply:
    """What a party releases in answer to one request."""

    kind: MessageKind
    round: int
    party: str
    tensors: Tensors  # train: weights after minus weights before
    how: How

    def to_bytes(self) -> bytes:
        """The message; the same reply gives the same bytes."""
        facts = {
            "kind": self.kind,
            "round": self.round,
            "party": self.party,
            "how": how_to_json(self.how),
        }
        return _packed("reply", facts, self.tensors)

    @classmethod
    def from_bytes(cls, data: bytes) -> Reply:
        """What `to_bytes` packed. Raises `PartyError` for any other bytes."""
        try:
            facts, tensors = _unpacked("reply", {"kind", "round", "party", "how"}, data)
            party, how = _text(facts["party"], "party"), how_from_json(facts["how"])
            return cls(_kind(facts["kind"]), _round(facts["round"]), party, tensors, how)
        except _UNREADABLE as error:
            raise _refusal("reply", error) from error


def misfit(tensors: Tensors, like: Mapping[str, torch.Tensor]) -> str | None:
    """How the names or shapes differ from those of `like`, in words; None where they agree."""
    if tensors.keys() != like.keys():
        return f"its tensors are not those of the model: {sorted(tensors.keys() ^ like.keys())}"
    for name, value in tensors.items():
        if value.shape != like[name].shape:
            shapes = f"{tuple(value.shape)} where {tuple(like[name].shape)} is needed"
            return f"tensor {name!r} has shape {shapes}"
    return None


def _refusal(message: str, error: Exception) -> PartyError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return PartyError(
        f"a {message} arrived that cannot be read ({reason}); run the same version of nacre on "
        "both sides"
    )


def _packed(message: str, facts: Mapping[str, Any], tensors: Tensors) -> bytes:
    """One metadata entry only: safetensors keeps several in no fixed order."""
    text = json.dumps({"format": FORMAT, "message": message, **facts}, sort_keys=True)
    return tensors_to_bytes({name: t.float() for name, t in tensors.items()}, {"nacre": text})


def _unpacked(message: str, fields: set[str], data: bytes) -> tuple[dict[str, Any], Tensors]:
    tensors: Tensors = load(data)  # first: it checks the header that is read again below
    for name, value in tensors.items():
        if value.dtype != torch.float32:
            raise ValueError(f"tensor {name!r} is {value.dtype}, not float32")
    facts = _object(parsed(_metadata(data)), {"format", "message", *fields})
    if facts["format"] != FORMAT or facts["message"] != message:
        raise ValueError(f"it is no {message} of format {FORMAT}")
    return facts, tensors


def _metadata(data: bytes) -> str:
    """The entry `nacre` of a safetensors header: its length in 8 bytes, then as much JSON."""
    size = int.from_bytes(data[:8], "little")
    header = parsed(data[8 : 8 + size])
    return _object(header.get("__metadata__"), {"nacre"})["nacre"]


def _object(value: Any, fields: set[str]) -> dict[str, Any]:
    """`value`, if it is a JSON object with exactly these fields."""
    if not isinstance(value, dict) or cast(dict[str, Any], value).keys() != fields:
        raise ValueError(f"its fields are not {', '.join(sorted(fields))}")
    return cast(dict[str, Any], value)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value


def _kind(value: Any) -> MessageKind:
    if value not in ("train", "evaluate"):
        raise ValueError("kind is neither train nor evaluate")
    return value


def _round(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _LAST_ROUND:
        raise ValueError("round is no number of a round")
    return value


def how_to_json(how: How) -> dict[str, Any]:
    """By what right a release leaves, as a message has it."""
    if isinstance(how, Noised):
        return {"kind": "noised", **_noised_to_json(how)}
    if isinstance(how, Inherited):
        steps = [_noised_to_json(step) for step in how.steps]
        return {"kind": "inherited", "sources": list(how.sources), "steps": steps}
    return {"kind": "unprotected", "reason": how.reason}


def how_from_json(value: Any) -> How:
    """What `how_to_json` wrote. Raises `ValueError` for anything else."""
    kind = cast(dict[str, Any], value).get("kind") if isinstance(value, dict) else None
    if kind == "noised":
        facts = _object(value, {"kind", "deviation", "bound"})
        return _noised(facts["deviation"], facts["bound"])
    if kind == "inherited":
        facts = _object(value, {"kind", "sources", "steps"})
        sources = [_text(source, "a source") for source in _list(facts["sources"], "sources")]
        steps = [_object(step, {"deviation", "bound"}) for step in _list(facts["steps"], "steps")]
        noised = [_noised(step["deviation"], step["bound"]) for step in steps]
        return Inherited(tuple(sources), tuple(noised))
    if kind == "unprotected":
        return Unprotected(_text(_object(value, {"kind", "reason"})["reason"], "reason"))
    raise ValueError("how is neither noised nor inherited nor unprotected")


def _noised_to_json(how: Noised) -> dict[str, Any]:
    bound = None if how.bound is None else float(how.bound)
    return {"deviation": float(how.deviation), "bound": bound}


def _noised(deviation: Any, bound: Any) -> Noised:
    for name, value in (("deviation", deviation), ("bound", 1.0 if bound is None else bound)):
        if type(value) is not float or not 0 < value < math.inf:
            raise ValueError(f"{name} is no finite number above 0")
    return Noised(deviation, bound)


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} is no list")
    return cast(list[Any], value)
