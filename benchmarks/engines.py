"""Other engines of simulated federations, each in a process that runs a round on command.

    python -c "import engines; engines.main()" ENGINE SETTINGS

`federation_engines.py` starts these, with a Python that has the engine; Nacre is not imported here.
SETTINGS is JSON: `folder` (with `x.npy`, `y.npy` and `nets.py`), `width` of the model, `parties`,
`cohort`, `examples` of a party, `batch`, `lr`, `threads` and `cores`. Once all is imported the
process writes a line `{"ready": true}` and waits for a line. After its first round and
each later one the process writes a line `{"round": SECONDS, "updates": PARTIES}`, and then waits
for a line. The first says `start` instead: seconds from the first call of the engine to the end of
that round, imports and the reading of the rows left out.

`bare` copies the weights, takes the steps and adds the changes up, and is no engine; `pfl` is
pfl-research; `flower` is Flower's simulation over Ray, one core a client.
"""

# Neither engine is in the environment in which types are checked, and one has no types.
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import copy
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

Settings = dict[str, Any]


class Commanded:
    """Reports rounds, and waits for the next command after each, and before the first."""

    def __init__(self) -> None:
        self._first = True
        print(json.dumps({"ready": True}), flush=True)
        sys.stdin.readline()
        self._began = time.perf_counter()

    def ended(self, updates: int) -> bool:
        """Reports a round; whether there is to be another one."""
        seconds = time.perf_counter() - self._began
        print(json.dumps({"start" if self._first else "round": seconds, "updates": updates}),
              flush=True)  # fmt: skip
        self._first = False
        line = sys.stdin.readline().strip()
        self._began = time.perf_counter()
        return line == "round"


def rows_of(asked: Settings) -> tuple[torch.Tensor, torch.Tensor]:
    """All images and labels, as pages of their files; those of a party lie together."""
    if not _HELD:  # once a process: an actor of Ray answers for many parties
        for name in "xy":
            pages = np.load(Path(asked["folder"]) / f"{name}.npy", mmap_mode="c")
            _HELD[name] = torch.from_numpy(pages)
    return _HELD["x"], _HELD["y"]


_HELD: dict[str, torch.Tensor] = {}


def model_of(asked: Settings) -> nn.Sequential:
    """The network, from the file that Nacre's recipe names."""
    made: dict[str, Any] = {}
    exec((Path(asked["folder"]) / "nets.py").read_text(), made)
    return made["cnn"](asked["width"])


def bare(asked: Settings) -> None:
    """What no federation can do without."""
    x, y = rows_of(asked)
    each = asked["examples"]
    watch, drawn = Commanded(), np.random.default_rng(0)
    server = model_of(asked)
    own = copy.deepcopy(server)
    while True:
        total = [torch.zeros_like(weight) for weight in server.parameters()]
        for party in drawn.choice(asked["parties"], asked["cohort"], replace=False):
            own.load_state_dict(server.state_dict())
            optimizer = torch.optim.SGD(own.parameters(), lr=asked["lr"])
            for places in (party * each + torch.randperm(each)).split(asked["batch"]):
                optimizer.zero_grad()
                nn.functional.cross_entropy(own(x[places]), y[places]).backward()
                optimizer.step()
            for added, weight, before in zip(
                total, own.parameters(), server.parameters(), strict=True
            ):
                added += (weight - before).detach()
        with torch.no_grad():
            for weight, added in zip(server.parameters(), total, strict=True):
                weight += added / asked["cohort"]
        if not watch.ended(asked["cohort"]):
            return


def pfl(asked: Settings) -> None:
    """pfl-research: its SimulatedBackend and FederatedAveraging in one process."""
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.pytorch import PyTorchTensorDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics, Weighted
    from pfl.model.pytorch import PyTorchModel

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model_of(asked)

        def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(self.inner(x), y)

        def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
            return {"loss": Weighted(float(self.loss(x, y)) * len(x), len(x))}

    class Rounds(TrainingProcessCallback):
        def after_central_iteration(
            self, aggregate_metrics: Any, model: Any, *, central_iteration: int
        ) -> tuple[bool, Metrics]:
            return not watch.ended(asked["cohort"]), Metrics()

    x, y = rows_of(asked)
    each = asked["examples"]
    watch = Commanded()

    def user(number: int) -> Any:
        held = slice(number * each, (number + 1) * each)
        return PyTorchTensorDataset((x[held], y[held]), user_id=str(number))

    data = FederatedDataset(user, get_user_sampler("minimize_reuse", range(asked["parties"])))
    net = Net()
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=10**6, evaluation_frequency=10**6,
            train_cohort_size=asked["cohort"], val_cohort_size=0,
        ),
        SimulatedBackend(data, data),
        PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), lr=1.0)),
        NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=asked["lr"], local_batch_size=asked["batch"]
        ),
        NNEvalHyperParams(local_batch_size=None),
        [Rounds()],
    )  # fmt: skip


def flower(asked: Settings) -> None:
    """Flower's simulation: FedAvg over Ray, each client on one core with one thread."""
    import ray  # noqa: F401  # which Flower imports when it starts
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    client, server = ClientApp(), ServerApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        x, y = rows_of(asked)
        each, party = asked["examples"], int(context.node_config["partition-id"])
        model = model_of(asked)
        model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=asked["lr"])
        for places in (party * each + torch.randperm(each)).split(asked["batch"]):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[places]), y[places]).backward()
            optimizer.step()
        content = RecordDict({
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": each}),
        })  # fmt: skip
        return Message(content=content, reply_to=message)

    class Strategy(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            replies = list(replies)
            if failed := [reply.error.reason for reply in replies if reply.has_error()]:
                raise RuntimeError(failed[0])
            found = super().aggregate_train(server_round, replies)
            if not watch.ended(len(replies)):
                os._exit(0)  # its threads would wait for one another
            return found

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = Strategy(
            fraction_train=asked["cohort"] / asked["parties"], fraction_evaluate=0.0,
            min_train_nodes=asked["cohort"],  # the fraction is of nodes that are up already
            min_available_nodes=asked["parties"],
        )  # fmt: skip
        arrays = ArrayRecord(model_of(asked).state_dict())
        strategy.start(grid=grid, initial_arrays=arrays, num_rounds=10**6)

    logging.getLogger("flwr").setLevel(logging.ERROR)
    watch = Commanded()
    run_simulation(
        server, client, asked["parties"],
        backend_config={
            "init_args": {"num_cpus": asked["cores"], "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )  # fmt: skip


ENGINES: dict[str, Callable[[Settings], None]] = {"bare": bare, "pfl": pfl, "flower": flower}


def main() -> None:
    """Runs one engine until it is asked for no more rounds."""
    warnings.simplefilter("ignore")
    settings: Settings = json.loads(sys.argv[2])
    torch.set_num_threads(settings["threads"])
    ENGINES[sys.argv[1]](settings)
