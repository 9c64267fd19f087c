"""The examples of each format: valid ones are read by Nacre and fit the schema, invalid ones are
refused in a sentence."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from nacre.core import run_folder as run_folder
from nacre.core.errors import NacreError
from nacre.federated_learning import messages
from nacre.ledger.chain import Entry
from nacre.ledger.replay import Book
from nacre.ledger.storage import migrations
from nacre.models.load import FORMAT as MODEL_FORMAT
from nacre.prediction.predictor import signature_in
from nacre.report import facts, gather
from nacre.report.conform import conform
from tests.schema import faults

ROOT = Path(__file__).parents[1]
FORMATS = ROOT / "docs" / "formats"
EXAMPLES = FORMATS / "examples"
REFUSED = json.loads((EXAMPLES / "refused.json").read_text(encoding="utf-8"))
FINISHED = EXAMPLES / "run-folder" / "valid" / "finished"
NUMBERS = {
    "ledger-entry": migrations.FORMAT,
    "message": messages.FORMAT,
    "evidence": facts.FORMAT,
    "run-folder": run_folder.FORMAT,
    "model": MODEL_FORMAT,
}


def schema(kind: str) -> dict[str, Any]:
    return json.loads((FORMATS / f"{kind}.schema.json").read_text(encoding="utf-8"))


def wrong(value: Any, kind: str, part: str | None = None) -> list[str]:
    """How a value fails the schema of a format, or a definition in it."""
    whole = schema(kind)
    return list(faults(value, whole if part is None else whole["$defs"][part], whole))


def parsed(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# -- one reader and one schema for each format -------------------------------------------------


def read_ledger(path: Path, _: Path) -> None:
    book = Book()
    for row in parsed(path):
        book.follow(Entry(**row))


def fit_ledger(path: Path) -> list[str]:
    rows = parsed(path)
    inner = [
        fault
        for row in rows
        for fault in wrong(json.loads(row["content"]), "ledger-entry", f"content_{row['kind']}")
    ]
    return wrong(rows, "ledger-entry") + inner


def read_message(path: Path, _: Path) -> None:
    data = path.read_bytes()
    if path.name.startswith("reply"):
        like = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
        assert messages.Reply.from_bytes(data, like).to_bytes() == data
    else:
        assert messages.RoundRequest.from_bytes(data).to_bytes() == data


def fit_message(path: Path) -> list[str]:
    """Of the metadata alone; nothing where the file has none."""
    data = path.read_bytes()
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
    except ValueError:
        return []
    return wrong(json.loads(header["__metadata__"]["nacre"]), "message")


def read_evidence(path: Path, _: Path) -> None:
    conform(parsed(path), facts.Evidence)


def fit_evidence(path: Path) -> list[str]:
    return wrong(parsed(path), "evidence")


def read_run(path: Path, place: Path) -> None:
    """A folder; the files of an invalid one stand in place of those of the finished run."""
    run = shutil.copytree(FINISHED, place / "run")
    shutil.copytree(path, run, dirs_exist_ok=True)
    run_folder.reopen(run)
    gather(run)


def fit_run(path: Path) -> list[str]:
    found: list[str] = []
    for file in path.rglob("*"):
        if file.name == "released.jsonl":
            for line in file.read_text(encoding="utf-8").splitlines():
                found += wrong(json.loads(line), "run-folder")
        elif file.name == "run.json":
            found += wrong(parsed(file), "run-folder", "run")
        elif file.name == "plan.json":
            found += wrong(parsed(file), "evidence", "PlanFacts")
    return found


def read_model(path: Path, place: Path) -> None:
    shutil.copy(path, place / "model.json")
    signature, known = signature_in(place)
    assert json.loads(json.dumps(signature.to_json())) == known.signature


def fit_model(path: Path) -> list[str]:
    return wrong(parsed(path), "model")


KINDS = {
    "ledger-entry": (read_ledger, fit_ledger),
    "message": (read_message, fit_message),
    "evidence": (read_evidence, fit_evidence),
    "run-folder": (read_run, fit_run),
    "model": (read_model, fit_model),
}


def examples(side: str) -> list[Any]:
    return [
        pytest.param(kind, path, id=f"{kind}-{path.stem}")
        for kind in KINDS
        for path in sorted((EXAMPLES / kind / side).iterdir())
    ]


# -- what holds for all of them ----------------------------------------------------------------


@pytest.mark.parametrize(("kind", "path"), examples("valid"))
def test_a_valid_file_is_read_and_fits_the_schema(kind: str, path: Path, tmp_path: Path) -> None:
    read, fit = KINDS[kind]
    read(path, tmp_path)
    assert fit(path) == []


@pytest.mark.parametrize(("kind", "path"), examples("invalid"))
def test_an_invalid_file_is_refused_in_a_sentence(kind: str, path: Path, tmp_path: Path) -> None:
    """By the reader; by the schema where refused.json says that it can."""
    read, fit = KINDS[kind]
    expected = REFUSED[kind][path.stem]
    with pytest.raises((NacreError, ValueError), match=re.escape(expected["says"])) as refusal:
        read(path, tmp_path)
    assert "\n" not in str(refusal.value)
    if expected["schema"]:
        assert fit(path) != []
    elif "no-json" not in path.stem:  # which a schema cannot see
        assert fit(path) == [], "the schema refuses it too: say so in refused.json"


def test_every_refusal_has_its_example() -> None:
    for kind in KINDS:
        stems = {path.stem for path in (EXAMPLES / kind / "invalid").iterdir()}
        assert stems == REFUSED[kind].keys() and stems, kind


@pytest.mark.slow
def test_the_examples_are_what_the_code_writes() -> None:
    """An example that nobody writes any more is no example: run scripts/examples."""
    script = runpy.run_path(str(ROOT / "scripts" / "examples"))
    assert script["main"](["--check"]) == 0, "run scripts/examples"
    written = {path for path in EXAMPLES.rglob("*") if path.is_file()}
    assert written - script["files"]().keys() == {EXAMPLES / "refused.json"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_states_the_version_of_the_code_and_what_must_hold(kind: str) -> None:
    page = (FORMATS / f"{kind}.md").read_text(encoding="utf-8")
    assert re.search(rf"^# .+, format {NUMBERS[kind]}$", page, re.MULTILINE), NUMBERS[kind]
    assert len(re.findall(r"\bMUST\b", page)) >= 5
    assert f"({kind}.schema.json)" in page
    index = (FORMATS / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"\({kind}\.md\).* \| {NUMBERS[kind]} \|", index)


@pytest.mark.parametrize(
    ("value", "fits"),
    [({"a": 1}, True), ({"a": True}, False), ({}, False), ({"a": 0}, False), ([], False)],
)
def test_the_validator_refuses_what_a_schema_forbids(value: Any, fits: bool) -> None:
    inner = {"type": "integer", "exclusiveMinimum": 0}
    kind = {"type": "object", "properties": {"a": inner}, "required": ["a"]}
    assert (list(faults(value, kind, kind)) == []) is fits
    with pytest.raises(KeyError, match="multipleOf"):
        list(faults(4, {"multipleOf": 2}, {}))
