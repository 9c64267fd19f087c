"""One server that forks the processes of the tests: it has imported everything, and computed
nothing, so no thread of torch is lost in a fork.

A test process has one such server, and what is imported counts from its start: two lists would
leave whoever comes second with ten seconds of imports for every process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path

PRELOADED = (
    "nacre.cli.main", "nacre.cli.progress", "nacre.cli.train", "nacre.cli.tune",
    "nacre.differential_privacy.event_types", "nacre.runs.run", "nacre.runs.tune",
    "dp_accounting", "dp_accounting.rdp", "dp_accounting.pld.privacy_loss_distribution", "pandas",
    "sklearn.datasets.data", "sklearn.datasets.descr", "torch._dynamo", "torch._functorch.vmap",
    "tests.ledger.worker", "tests.stories.faults", "tests.training.processes",
    "tests.training.test_devices", "tests.integrations.test_processes", "tests.frozen",
)  # fmt: skip
_ROOT = Path(__file__).parents[1]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(list(PRELOADED))


def served() -> ForkServerContext:
    """The context whose processes start with everything imported."""
    with contextlib.chdir(_ROOT):  # where the server finds the tests
        ensure_running()
    return _CONTEXT
