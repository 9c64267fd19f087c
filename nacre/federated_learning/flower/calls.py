"""Calls to a SuperLink: which are made again, and what is said where one fails for good."""

# Parts of Flower are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import httpx
from flwr.supercore.error import FlowerError
from flwr.supercore.retry import RetryInvoker, constant
from google.protobuf.message import DecodeError

from nacre.core.errors import PartyError

Result = TypeVar("Result")


def retries(patience: float) -> RetryInvoker:
    """Calls that cannot be made are made again for `patience` seconds."""
    return RetryInvoker(
        wait_gen_factory=lambda: constant(0.5),
        recoverable_exceptions=(httpx.TransportError, httpx.HTTPStatusError),
        max_tries=None,
        max_time=patience,
        jitter=None,
        should_giveup=lambda error: not may_pass(error),
    )


def may_pass(error: Exception) -> bool:
    """Whether another try may do better."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (502, 503, 504)
    return not any(word in str(error).lower() for word in ("certificate", "ssl", "tls"))


def spoken(address: str, call: Callable[[], Result]) -> Result:
    """What the call gives. Raises `PartyError` for what httpx and Flower raise of a SuperLink that
    refuses or is not there."""
    try:
        return call()
    except httpx.HTTPStatusError as error:
        raise PartyError(_refused(address, error)) from error
    except (httpx.TransportError, DecodeError) as error:
        raise PartyError(unreachable(address, error)) from error


def _refused(address: str, error: httpx.HTTPStatusError) -> str:
    status = error.response.status_code
    said = FlowerError.from_json(error.response.text)
    reason = said.message if said is not None else f"HTTP status {status}"
    if status in (401, 403):
        return (
            f"the SuperLink at {address} does not know this run any more ({reason}), as "
            "after a restart; continue with `--resume`, which starts a run of its own there"
        )
    return f"the SuperLink at {address} refuses ({reason}); its log says more"


def unreachable(address: str, error: Exception, then: str = "continue with `--resume`") -> str:
    """Why a SuperLink cannot be reached, and what to do."""
    said = " ".join(str(error).split())
    if "certificate" in said.lower():
        return (
            f"the SuperLink at {address} does not prove to be the one that `--ca` vouches for "
            f"({said}); name the authority that its certificate was signed by, and an address that "
            "the certificate is for"
        )
    return (
        f"the SuperLink at {address} cannot be reached ({said or type(error).__name__}); see that "
        f"it runs there and that the firewall lets its port through, then {then}"
    )
