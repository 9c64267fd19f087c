"""Real tasks of benchmarks/utility.py: their data, model and settings."""

from __future__ import annotations

import argparse
import gzip
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

import nacre as n
from nacre.data import Arrays, ColumnSpec, Holdout, Images

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True, kw_only=True)
class Task:
    """Settings were chosen on seed 100, those of the table are others."""

    data: Callable[[Path], Any]  # a folder to write into -> the `data` section
    model: Any
    delta: float
    batch: int
    steps: int
    lr: float
    norm: float
    decay: float = 0.95
    unit: Literal["example", "group"] = "example"
    rows_per_unit: int | None = None
    plain_lrs: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    plain_epochs: int = 20

    def tried(self, asked: argparse.Namespace) -> Task:
        """With the settings that were asked for instead of its own."""
        names = ("lr", "norm", "batch", "steps")
        found = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
        return replace(self, **found)


def _images(name: str) -> Callable[[Path], Images]:
    def made(folder: Path) -> Images:
        files = {"images": "train-images-idx3", "labels": "train-labels-idx1"}
        files |= {"test_images": "t10k-images-idx3", "test_labels": "t10k-labels-idx1"}
        for file in files.values():
            shutil.copy(DATA / "images" / name / f"{file}-ubyte.gz", folder)
        named = {key: f"{file}-ubyte.gz" for key, file in files.items()}
        return Images(**named, size=60_000, public_demonstration=True)  # pyright: ignore

    return made


def _cifar(folder: Path) -> Images:
    """The subset as IDX files."""
    held = np.load(DATA / "images" / "cifar10_subset" / "cifar10_subset.npz")
    for name in ("x_train", "y_train", "x_test", "y_test"):
        _idx(folder / name, held[name])
    return Images(
        images="x_train", labels="y_train", test_images="x_test", test_labels="y_test",
        shape=(3, 32, 32), size=10_000, public_demonstration=True,
    )  # fmt: skip


def _cifar_base(folder: Path) -> Images:
    """The subset's images of CIFAR-10's test set, as the base was trained on the whole training
    set: 2,000 of them are the private rows and 1,000 are tested on."""
    held = np.load(DATA / "images" / "cifar10_subset" / "cifar10_subset.npz")
    order = np.random.default_rng(0).permutation(3000)
    for name, rows in (("train", order[:2000]), ("test", order[2000:])):
        _idx(folder / f"x_{name}", held["x_test"][rows])
        _idx(folder / f"y_{name}", held["y_test"][rows])
    return Images(
        images="x_train", labels="y_train", test_images="x_test", test_labels="y_test",
        shape=(3, 32, 32), size=2_000, public_demonstration=True,
    )  # fmt: skip


def _idx(file: Path, values: np.ndarray) -> None:
    """LeCun's format: two zeros, the type (8: bytes), the number of dimensions, their lengths."""
    head = bytes([0, 0, 8, values.ndim])
    file.write_bytes(head + np.array(values.shape, ">u4").tobytes() + values.tobytes())


def _adult(folder: Path) -> n.Table:
    """Every column as its documentation describes it; amounts of money on a log scale."""
    rows = pd.concat(
        pd.read_csv(DATA / "finance" / "adult" / f"{part}.csv.gz", keep_default_na=False)
        for part in ("train", "test")
    )
    for name in ("capital_gain", "capital_loss"):
        rows[name] = np.log1p(rows[name])
    rows.to_csv(folder / "adult.csv", index=False)
    columns = {
        "age": ColumnSpec(low=17, high=90),
        "education_num": ColumnSpec(low=1, high=16),
        "capital_gain": ColumnSpec(low=0, high=12),
        "capital_loss": ColumnSpec(low=0, high=12),
        "hours_per_week": ColumnSpec(low=1, high=99),
    }
    named = ("workclass", "marital_status", "occupation", "relationship", "race", "sex")
    columns |= {name: ColumnSpec(categories=tuple(sorted(set(rows[name])))) for name in named}
    return n.Table(
        path="adult.csv", target="label", classes=("0", "1"), columns=columns,
        drop=("fnlwgt", "education", "native_country", "income"), size=39_073,
        public_demonstration=True, holdout=Holdout(share=0.2),
    )  # fmt: skip


def _credit(folder: Path) -> n.Table:
    """Amounts in thousands of dollars on a log scale that keeps their sign."""
    rows = pd.read_csv(DATA / "finance" / "credit_default" / "credit_default.csv.gz")
    amounts = [name for name in rows if "AMT" in name or name == "LIMIT_BAL"]
    for name in amounts:
        rows[name] = np.sign(rows[name]) * np.log1p(rows[name].abs() / 1000)
    rows.to_csv(folder / "credit.csv", index=False)
    columns = {name: ColumnSpec(low=-8, high=8) for name in amounts}
    columns |= {name: ColumnSpec(low=-2, high=8) for name in rows if name.startswith("PAY_")
                and name not in amounts}  # fmt: skip
    columns["AGE"] = ColumnSpec(low=18, high=90)
    for name, most in (("SEX", 2), ("EDUCATION", 6), ("MARRIAGE", 3)):
        columns[name] = ColumnSpec(categories=tuple(str(value) for value in range(most + 1)))
    return n.Table(
        path="credit.csv", target="Default", classes=("0", "1"), columns=columns, drop=("ID",),
        size=24_000, public_demonstration=True, holdout=Holdout(share=0.2),
    )  # fmt: skip


def _heart(folder: Path) -> n.Table:
    """Four hospitals together. What a hospital did not measure is told by a column of its own."""
    with gzip.open(DATA / "medicine" / "heart_disease" / "heart_disease.csv.gz") as file:
        rows = pd.read_csv(file)
    ranges = {
        "age": (20, 90), "trestbps": (0, 250), "chol": (0, 650), "thalach": (50, 220),
        "oldpeak": (-3, 7), "ca": (0, 3),
    }  # fmt: skip
    named = ("sex", "cp", "fbs", "restecg", "exang", "slope", "thal")
    for name, (low, high) in ranges.items():
        rows[f"{name}_missing"] = rows[name].isna().astype(int)
        rows[name] = rows[name].fillna((low + high) / 2)
    for name in named:
        rows[name] = rows[name].fillna(-1).astype(int)
    rows.to_csv(folder / "heart.csv", index=False)
    columns = {name: ColumnSpec(low=low, high=high) for name, (low, high) in ranges.items()}
    columns |= {f"{name}_missing": ColumnSpec(low=0, high=1) for name in ranges}
    columns |= {
        name: ColumnSpec(categories=tuple(str(value) for value in sorted(set(rows[name]))))
        for name in named
    }
    return n.Table(
        path="heart.csv", target="label", classes=("0", "1"), columns=columns,
        drop=("hospital", "num"), size=736, public_demonstration=True,
        holdout=Holdout(share=0.2),
    )  # fmt: skip


def _har(by_person: bool) -> Callable[[Path], Arrays]:
    def made(folder: Path) -> Arrays:
        """Five plain figures of each window and channel, clamped to ±4 of fixed units."""
        held = np.load(DATA / "iot" / "uci_har" / "uci_har_raw_float16.npz")
        x = held["X"].astype("float32")
        moves = np.abs(np.diff(x, axis=1)).mean(1)
        plain = [x.mean(1), x.std(1), x.min(1), x.max(1), 4 * moves]
        features = np.clip(2 * np.concatenate(plain, axis=1), -4, 4)
        np.savez(folder / "har.npz", x=features, y=held["y"].astype("int64"), who=held["subject"])
        return Arrays(
            path="har.npz", shape=(features.shape[1],), classes=6, low=-4, high=4, unit="who",
            size=24 if by_person else 8_200, public_demonstration=True,
            holdout=Holdout(share=0.2, by="unit"),
        )  # fmt: skip

    return made


_WAVELETS = n.Scattering(scales=2, angles=8, groups=27, whiten=1.0)
_BASE = n.PythonModel(
    call="bases:resnet20",
    arguments={"path": str(DATA / "weights" / "cifar10_resnet20.safetensors")},
)
_TANH = n.MLP(hidden=(32,), activation="tanh")

TASKS: dict[str, Task] = {
    "mnist": Task(
        data=_images("mnist"), model=_WAVELETS, delta=1e-5, batch=4096, steps=600, lr=3,
        norm=0.1, plain_lrs=(1e-3,), plain_epochs=10,
    ),
    "fashion": Task(
        data=_images("fashion-mnist"), model=_WAVELETS, delta=1e-5, batch=4096, steps=600, lr=3,
        norm=0.1, plain_lrs=(1e-3,), plain_epochs=10,
    ),
    "cifar subset": Task(
        data=_cifar, model=replace(_WAVELETS, groups=81), delta=1e-5, batch=2048, steps=400, lr=2,
        norm=0.1, plain_lrs=(1e-4,), plain_epochs=10,
    ),
    "cifar base": Task(
        data=_cifar_base, model=_BASE, delta=1e-5, batch=1000, steps=60, lr=1, norm=0.1,
    ),
    "adult": Task(
        data=_adult, model=_TANH, delta=1e-5, batch=2048, steps=200, lr=1, norm=1,
    ),
    "credit": Task(
        data=_credit, model=_TANH, delta=1e-5, batch=2048, steps=200, lr=1, norm=1,
    ),
    "heart": Task(
        data=_heart, model=n.MLP(hidden=()), delta=1e-3, batch=368, steps=60, lr=1, norm=1,
        plain_epochs=60,
    ),
    "har": Task(
        data=_har(False), model=_TANH, delta=1e-5, batch=1024, steps=300, lr=1, norm=1,
    ),
    "har people": Task(
        data=_har(True), model=n.MLP(hidden=()), delta=1e-2, batch=24, steps=8, lr=2, norm=1,
        decay=0.8, unit="group", rows_per_unit=400,
    ),
}  # fmt: skip
