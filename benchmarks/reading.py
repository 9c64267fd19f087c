"""What people wait for before step 1: `python benchmarks/reading.py [--quick] [--json]`.

A table of 40 numbers, 8 categories, a unit column and a label is written as Parquet and as CSV and
read as a run reads it: columns, schema, one-hot features, digest, scaling, units; and the sketch of
its cells. Then documents in JSON, images as bytes, and the digest of tensors. Seconds are of the
processor (user and system), one thread; memory is the most that the reading added to what the
process held before it. Each reading has a process of its own, started after the imports.
`--quick` takes a tenth of the rows and a tenth of the seconds; most of its memory is what libraries
need themselves, and is not judged.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
from rows import Row, show

from nacre.core.random import Source
from nacre.data.arrays import Arrays
from nacre.data.data_option import DataOption
from nacre.data.dataset import Cohorts
from nacre.data.scaling import fit_scaling
from nacre.data.sketches.sketch import sketched
from nacre.data.table import ColumnSpec, Table
from nacre.data.text.text import Text
from nacre.data.units import Units

KEY = bytes(range(32))
NUMBERS, CATEGORIES = 40, 8
Seconds = dict[str, float]


def main() -> None:
    """Prints a row for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    chosen = parser.parse_args()
    part = 10 if chosen.quick else 1
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        show(list(_rows(Path(made), part)), chosen.json)


def _rows(folder: Path, part: int) -> list[Row]:
    count, documents, images = 1_000_000 // part, 200_000 // part, 60_000 // part
    write_table(folder, count)
    write_documents(folder, documents)
    write_images(folder, images)
    found: list[Row] = []
    for kind, seconds, gigabytes in (("parquet", 4.0, 0.9), ("csv", 10.0, 1.1)):
        what = f"{count} rows of {NUMBERS + CATEGORIES + 2} columns, {kind}"
        found += _figures(what, table(f"rows.{kind}", count), folder, "group", seconds / part)
        if part == 1:
            found.append(_judged(found.pop(), gigabytes))
    text = Text(path="rows.jsonl", text="text", label="label", classes=("a", "b"), size=documents)
    found += _figures(f"{documents} documents", text, folder, "example", 30 / part)[:-1]
    arrays = Arrays(path="rows.npz", shape=(784,), classes=10, low=0, high=255, size=images)
    found += _figures(f"{images} images", arrays, folder, "example", 2 / part)[:1]
    return [*found, digests()]


def _figures(what: str, option: DataOption, folder: Path, unit: str, target: float) -> list[Row]:
    """Seconds to rows that steps can draw from, those of the sketch, and gigabytes."""
    seconds = _apart(lambda: reading(option, folder, unit))
    ready = sum(seconds[name] for name in ("read", "units"))
    limit = f"<= {target:g} s"
    return [
        Row(f"{what}: read, s", ready, target=limit, holds=ready <= target),
        Row(f"{what}: sketched, s", seconds["sketch"]),
        Row(f"{what}: memory, GB", seconds["memory"]),
    ]


def _judged(row: Row, target: float) -> Row:
    return Row(row.what, row.value, target=f"<= {target:g} GB", holds=row.value <= target)


def reading(option: DataOption, folder: Path, unit: str) -> Seconds:
    """Seconds of the processor by stage, and the gigabytes that reading took at most."""
    before = _peak()
    clock = time.process_time
    start = clock()
    cohorts: Cohorts = option.read(folder, 0, KEY)
    scaler = fit_scaling(option.scaling, option.schema(), None)
    rows = scaler.apply(cohorts.private, overwrite=bool(cohorts.cells))
    read = clock()
    Units(rows, "group" if unit == "group" else "example", None, Source(KEY))
    units = clock()
    memory = _peak() - before
    sketched(cohorts.cells, KEY)
    return {
        "read": read - start, "units": units - read, "sketch": clock() - units, "memory": memory
    }  # fmt: skip


def _peak() -> float:
    """Gigabytes that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _apart(work: Callable[[], Seconds]) -> Seconds:
    """What `work` gives in a process of its own."""

    def send(to: Connection) -> None:
        to.send(json.dumps(work()))

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=send, args=(theirs,))
    process.start()
    found: Seconds = json.loads(ours.recv())
    process.join()
    return found


def write_table(folder: Path, count: int) -> None:
    """`rows.parquet` and `rows.csv`."""
    noise = np.random.default_rng(1)
    columns: dict[str, np.ndarray] = {f"n{i}": noise.normal(size=count) for i in range(NUMBERS)}
    for i in range(CATEGORIES):
        words = np.array([f"kind {j}" for j in range(3 + i)])
        columns[f"c{i}"] = words[noise.integers(0, 3 + i, count)]
    columns["unit"] = noise.integers(0, count // 2, count)
    columns["label"] = np.array(["no", "yes"])[noise.integers(0, 2, count)]
    made = pa.table(columns)
    pa.parquet.write_table(made, folder / "rows.parquet")
    pa.csv.write_csv(made, folder / "rows.csv")


def table(path: str, count: int) -> Table:
    """What a recipe declares of it."""
    columns = {f"n{i}": ColumnSpec(low=-10, high=10) for i in range(NUMBERS)}
    columns |= {
        f"c{i}": ColumnSpec(categories=tuple(f"kind {j}" for j in range(3 + i)))
        for i in range(CATEGORIES)
    }
    return Table(
        path=path, target="label", classes=("no", "yes"), columns=columns, unit="unit",
        size=count // 2,
    )  # fmt: skip


def write_documents(folder: Path, count: int) -> None:
    """`rows.jsonl`, of 75 words a document out of thirty thousand."""
    noise = np.random.default_rng(2)
    words = np.array([f"w{i:x}" for i in range(30_000)])
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as opened:
        for places in noise.zipf(1.3, (count, 75)) % len(words):
            row = {"text": " ".join(words[places]), "label": "ab"[int(places[0]) % 2]}
            opened.write(json.dumps(row) + "\n")


def write_images(folder: Path, count: int) -> None:
    """`rows.npz`, 28 by 28 pixels of ten classes."""
    noise = np.random.default_rng(3)
    pixels = noise.integers(0, 256, (count, 784), dtype=np.uint8)
    np.savez(folder / "rows.npz", x=pixels, y=np.arange(count) % 10)


def digests() -> Row:
    """Gigabytes a second that `Source.digest` takes in, the best of nine times."""
    tensor, source = torch.zeros(1 << 26), Source(KEY)
    best = float("inf")
    for _ in range(9):
        start = time.process_time()
        source.digest(tensor)
        best = min(best, time.process_time() - start)
    speed = tensor.numel() * 4 / best / 1e9
    return Row("digests, GB/s", speed, target=">= 8", holds=speed >= 8)


if __name__ == "__main__":
    main()
