"""Flower as a carrier of bytes: the only folder that knows it, and pinned to one version of it.

What is used: a stock `flower-superlink` (TLS, node keys, queues of messages). What is not: its
strategies, noise, secure sums, simulation, and processes that it starts. The server and the parties
are processes of Nacre that speak to the SuperLink over its own HTTP interfaces; a part of these is
internal to Flower, so `tests/federated_learning/test_flower_seam.py` says what has changed where
another version is installed.
"""

from __future__ import annotations

import importlib.util
import os
from importlib.metadata import version

from nacre.core.errors import Refusal

PINNED = "1.42.0"
"""The version of Flower whose interfaces are spoken."""

# Before Flower is imported: nothing of a run is anybody else's to count.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"


def require_flower() -> None:
    """Raises `Refusal` where Flower is not installed, or in another version than the pinned one."""
    if importlib.util.find_spec("flwr") is None:
        raise Refusal(
            f"`--over flower` needs Flower {PINNED}, which is not installed; install "
            "`nacre[flower]`"
        )
    found = version("flwr")
    if found != PINNED:
        raise Refusal(
            f"Flower {found} is installed and this version of nacre speaks to {PINNED}, whose "
            "internal interfaces it uses; install `nacre[flower]`"
        )
