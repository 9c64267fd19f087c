"""One finished run of each kind of model, trained once for all tests of predictions."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from nacre.cli.main import cli
from nacre.planning.plan import plan
from nacre.runs.run import train
from tests.data.tokenizer_folders import encoder
from tests.models.transformer_folders import folder_of
from tests.training.tiny import CENTRAL, recipe

TABLE: dict[str, Any] = CENTRAL | {
    "data": {
        "kind": "table", "path": "people.csv", "target": "ill", "classes": ["no", "yes"],
        "columns": {
            "age": {"low": 0, "high": 120},
            "ward": {"categories": ["east", "west", "3"]},
            "pulse": {"low": 30, "high": 220},
        },
        "drop": ["name"], "unit": "person", "size": 60,
        "on_missing": "drop", "on_out_of_range": "clamp",
    },
    "differential_privacy": {"unit": "group", "rows_per_unit": 1, "epsilon": 8, "delta": 1.0e-3},
    "training": {"steps": 2, "batch": 30},
    "ledger": {
        "path": "table.db", "dataset": "people", "grant": {"epsilon": 8.1, "delta": 1.0e-3},
    },
}  # fmt: skip


def other(base: dict[str, Any], data: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """The recipe with other data and another model, unprotected, which is faster to train."""
    protection = ("differential_privacy", "gradient_clipping", "ledger")
    plain = {key: value for key, value in base.items() if key not in protection}
    return plain | {"data": data | {"public_demonstration": True}, "model": model}


IMAGES = other(
    TABLE,
    {"kind": "arrays", "path": "images.npz", "shape": [1, 8, 8], "classes": 2, "low": 0,
     "high": 16, "size": 60},
    {"kind": "cnn", "channels": [4], "hidden": 4},
)  # fmt: skip
TEXT = other(
    TABLE,
    {"kind": "text", "path": "reviews.jsonl", "text": "text", "label": "label",
     "classes": ["bad", "good"], "length": 12, "size": 60},
    {"kind": "pretrained", "name": "bert"},
)  # fmt: skip
LANGUAGE = other(
    TABLE,
    {"kind": "text", "path": "lines.txt", "task": "causal_lm", "length": 24, "size": 60,
     "tokenizer": {"kind": "bytes"}},
    {"kind": "gpt", "layers": 1, "width": 8, "heads": 2},
)  # fmt: skip


def people(file: Path) -> None:
    """A table of patients, with a name that is no column of the model."""
    draw = random.Random(0)
    with file.open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["person", "name", "age", "ward", "pulse", "ill"])
        for place in range(60):
            age = draw.randint(20, 90)
            ward = draw.choice(["east", "west", "3"])
            ill = "yes" if draw.random() < age / 100 else "no"
            table.writerow([f"p{place}", f"=name {place}", age, ward, draw.randint(40, 180), ill])


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the rows of every kind, and runs `table`, `images`, `text`, `language`."""
    folder = tmp_path_factory.mktemp("prediction")
    people(folder / "people.csv")
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 17, (60, 8, 8)).astype(np.float32)
    np.savez(
        folder / "images.npz", x=pixels, y=np.arange(60) % 2, name=[f"i{i}" for i in range(60)]
    )
    encoder(folder_of("Bert", folder))
    with (folder / "reviews.jsonl").open("w") as file:
        for i in range(60):
            words = [("good", "bad")[i % 2], "film", *"abc"[: i % 3]]
            row = {"id": i, "text": " ".join(words), "label": ("good", "bad")[i % 2]}
            file.write(json.dumps(row) + "\n")
    (folder / "lines.txt").write_text("".join(f"note {i} of mine\n" for i in range(60)))
    kinds = {"table": TABLE, "images": IMAGES, "text": TEXT, "language": LANGUAGE}
    for name, base in kinds.items():
        train(plan(recipe(folder, base)), folder / name)
    return folder


@pytest.fixture(scope="session")
def nacre() -> Any:
    """Runs `nacre` with these words."""

    def run(*words: object) -> Result:
        return CliRunner().invoke(cli, [str(word) for word in words])

    return run
