"""What travels between the server and a party: tensors and a handful of facts, as bytes.

A message is one safetensors file. Its metadata has a single entry, `nacre`: JSON with exactly the
fields below, no more and no fewer, so a message carries nothing else.

    request  format message kind round recipe                  tensors: the weights, float32
    reply    format message kind round party how encoding exponents
                                                               tensors: what was released

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
from functools import cached_property
from typing import Any, Literal, cast, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from nacre.core.errors import PartyError
from nacre.core.files import tensors_to_bytes
from nacre.core.random import digest
from nacre.core.strict import parsed
from nacre.core.tensors import finite
from nacre.core.types import Inherited, Noised, Tensors, Unprotected
from nacre.federated_learning.encodings import Encoding, decoded, in_encoding

MessageKind = Literal["train", "evaluate"]
"""What is asked: a change of these weights, or figures of them."""

How = Noised | Inherited | Unprotected
"""By what right a release leaves; as in `Release`."""

FORMAT = 2
"""Of every message, as docs/formats/message.md has it."""
_LAST_ROUND = 2**31 - 1
_REPLY = {"kind", "round", "party", "how", "encoding", "exponents"}

_UNREADABLE = (SafetensorError, ValueError, TypeError, LookupError, RuntimeError, ArithmeticError)
"""All that safetensors, torch and json raise on bytes that are no message."""


@dataclass(frozen=True)
class RoundRequest:
    """What the server asks of a party: the same bytes for every party of a round."""

    kind: MessageKind
    round: int  # counted from 0
    recipe: str  # hex digest of the recipe that both sides run
    tensors: Tensors  # the weights that training moves, and the server's control where there is one

    @property
    def weights(self) -> Tensors:
        """The weights alone: what a reply has the names and shapes of."""
        return without_control(self.tensors)

    def to_bytes(self) -> bytes:
        """The message; the same request gives the same bytes."""
        facts = {"kind": self.kind, "round": self.round, "recipe": self.recipe}
        return _packed("request", facts, in_encoding(self.tensors, "float32")[0])

    @classmethod
    def from_bytes(cls, data: bytes) -> RoundRequest:
        """What `to_bytes` packed. Raises `PartyError` for any other bytes."""
        try:
            facts, packed = _unpacked("request", {"kind", "round", "recipe"}, data)
            tensors = decoded(packed, "float32", None, None)
            recipe = _text(facts["recipe"], "recipe")
            return cls(_kind(facts["kind"]), _round(facts["round"]), recipe, tensors)
        except _UNREADABLE as error:
            raise _refusal("request", error) from error

    @cached_property
    def finite(self) -> bool:
        """Whether every weight is a finite number; looked at once, however many parties ask."""
        return finite(self.tensors)

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
    encoding: Encoding = "float32"  # one that holds the tensors without loss

    def to_bytes(self) -> bytes:
        """The message; the same reply gives the same bytes."""
        tensors, exponents = in_encoding(self.tensors, self.encoding)
        facts = {
            "kind": self.kind,
            "round": self.round,
            "party": self.party,
            "how": how_to_json(self.how),
            "encoding": self.encoding,
            "exponents": exponents,
        }
        return _packed("reply", facts, tensors)

    @classmethod
    def from_bytes(cls, data: bytes, like: Mapping[str, torch.Tensor] | None = None) -> Reply:
        """What `to_bytes` packed. Raises `PartyError` for any other bytes.

        `like` has the names and shapes that were asked for; a sparse reply is refused without it.
        """
        try:
            facts, packed = _unpacked("reply", _REPLY, data)
            party, how = _text(facts["party"], "party"), how_from_json(facts["how"])
            encoding = _encoding(facts["encoding"])
            tensors = decoded(packed, encoding, facts["exponents"], like)
            kind, number = _kind(facts["kind"]), _round(facts["round"])
            return cls(kind, number, party, tensors, how, encoding)
        except _UNREADABLE as error:
            raise _refusal("reply", error) from error


CONTROL = ".control."
"""Before the name of a weight: the server's control of it. No parameter's name begins so."""


def with_control(weights: Tensors, control: Tensors) -> Tensors:
    """The tensors of a request."""
    return weights | {CONTROL + name: value for name, value in control.items()}


def without_control(tensors: Tensors) -> Tensors:
    """The weights of a request."""
    return {name: t for name, t in tensors.items() if not name.startswith(CONTROL)}


def control_of(tensors: Tensors) -> Tensors:
    """The server's control of each weight; empty where a run has none."""
    return {
        name.removeprefix(CONTROL): t for name, t in tensors.items() if name.startswith(CONTROL)
    }


def right_of_reply(data: bytes) -> How:
    """By what right a reply leaves, read without its tensors. Raises `PartyError` as
    `Reply.from_bytes` does for bytes that are none."""
    try:
        return how_from_json(_facts("reply", _REPLY, data)["how"])
    except _UNREADABLE as error:
        raise _refusal("reply", error) from error


def as_read(tensors: Tensors) -> bool:
    """Whether these tensors are as they would be read from a message: then it need not be made."""
    return all(
        type(t) is torch.Tensor and t.dtype == torch.float32 and t.is_cpu and not t.requires_grad
        for t in tensors.values()
    )


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
    return tensors_to_bytes(tensors, {"nacre": text})


def _unpacked(message: str, fields: set[str], data: bytes) -> tuple[dict[str, Any], Tensors]:
    tensors: Tensors = load(data)  # first: it checks the header that is read again below
    return _facts(message, fields, data), tensors


def _facts(message: str, fields: set[str], data: bytes) -> dict[str, Any]:
    facts = _object(parsed(_metadata(data)), {"format", "message", *fields})
    if facts["format"] != FORMAT or facts["message"] != message:
        raise ValueError(f"it is no {message} of format {FORMAT}")
    return facts


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


def _encoding(value: Any) -> Encoding:
    if value not in get_args(Encoding):
        raise ValueError("its encoding is none of " + ", ".join(get_args(Encoding)))
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
