"""A recipe drafted for texts of one's own: from a header alone, or, of a file whose names stand in
its rows, from what is said of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from nacre.core.errors import DataError, RecipeError, Refusal
from nacre.data.readers import suffix
from nacre.data.reading.header import ColumnForm, TableHeader, table_header
from nacre.recipe.document import FILL, key_path, parse
from nacre.recipe.drafting.draft import Draft
from nacre.recipe.drafting.guesses import is_writer, text_column
from nacre.recipe.drafting.template import (
    batch_for,
    delta_for,
    federation_lines,
    name_after,
    protection_lines,
    size_lines,
)
from nacre.recipe.drafting.yaml_text import as_name

DraftedTask = Literal["classification", "regression", "causal_lm"]
TASKS: tuple[DraftedTask, ...] = ("classification", "regression", "causal_lm")
"""What is drafted; a recipe by hand has token_classification too."""

_EPSILON = 8
"""Of the drafted run, and of the grant."""
_BASE = "base"
"""The folder that is taken for the pretrained model where it lies beside the recipe."""
_LARGEST = 512
"""Units of a step: of a large batch the noise is a small part."""
_GUESSED = "guess from the name"


@dataclass(frozen=True, kw_only=True)
class TextRoles:
    """What is said of texts on the command line."""

    text: str | None = None
    target: str | None = None
    unit: str | None = None
    party: str | None = None
    size: int | None = None
    task: DraftedTask | None = None
    base: str | None = None


@dataclass(frozen=True)
class _Roles:
    """What is learnt, and which column is what."""

    task: DraftedTask
    columns: dict[str, str | None]
    """Key of the recipe -> its column; None where that is to be filled in."""
    guessed: frozenset[str]
    writer: str | None
    """A column that may tell whose a text is, which no role has."""


def drafted_text(file: Path, path: str, roles: TextRoles, folder: Path) -> Draft:
    """The recipe for texts; `path` is where they lie from the recipe, which lies in `folder`.

    Of CSV, TSV and Parquet the header alone is read; of JSON lines and plain text nothing is, since
    a key stands in the rows that have it. Raises `Refusal`.
    """
    plain = suffix(str(file)) == ".txt"
    header = None
    if plain or suffix(str(file)) in (".jsonl", ".ndjson"):
        _require_file(file)
    else:
        header = table_header(file)
        _require_read(header)
    if plain:
        _require_no_columns(file, roles)
    found = _roles(header, roles, plain=plain)
    text = "\n".join(
        [*_head(path, header), *_data(path, found, roles), *_rest(file, roles, found, folder)]
    )
    try:
        document = parse(text.encode(), "the recipe")
    except RecipeError as error:
        raise Refusal(
            f"{file} has a column that no recipe can name ({error.message}); rename it"
        ) from error
    lines = {document.lines[key_path(place)] for place in document.unfilled}
    named = [name for name in found.columns.values() if name is not None]
    guessed = [name for key, name in found.columns.items() if key in found.guessed and name]
    return Draft(text, len(named), guessed, sorted(lines))


def _require_file(file: Path) -> None:
    """Refuses a file that is not there; nothing of it is read."""
    remedy = "name the file of texts itself"
    if file.is_dir():
        raise DataError(f"{file} is a folder; {remedy}")
    if not file.exists():
        raise DataError(f"{file} cannot be read (no such file or directory); {remedy}")


def _require_read(header: TableHeader) -> None:
    """Refuses a CSV that texts are not read from: a recipe for texts declares no dialect."""
    if header.dialect.separator is not None:
        raise DataError(
            f"{header.file} separates its columns by {header.dialect.separator!r}, and texts are "
            "read from .csv with commas and .tsv with tabs; save it as one of these, or as .parquet"
        )
    if header.dialect.encoding != "utf-8":
        raise DataError(f"{header.file} is not UTF-8, in which texts are read; save it in UTF-8")


def _require_no_columns(file: Path, roles: TextRoles) -> None:
    for option in ("text", "target", "unit", "party"):
        if getattr(roles, option) is not None:
            raise DataError(f"{file} is plain text, which has no columns; leave out `--{option}`")
    if roles.task not in (None, "causal_lm"):
        raise DataError(
            f"{file} is plain text, which has no labels, so no {roles.task} is learnt from it; "
            "leave out `--task`, or name a table of texts and labels"
        )


def _roles(header: TableHeader | None, said: TextRoles, *, plain: bool) -> _Roles:
    """Who is who among the columns. Raises `Refusal` for a name that the header lacks, for a column
    of two roles, and for a label where none is learnt."""
    if plain:
        return _Roles("causal_lm", {}, frozenset(), None)
    if said.target is not None and said.task == "causal_lm":
        raise Refusal(
            "`--target` has no meaning for `--task causal_lm`, which learns the text itself; leave "
            "one out"
        )
    options = {key: getattr(said, key) for key in ("text", "target", "unit", "party")}
    known = {key: name for key, name in options.items() if name is not None}
    taken: dict[str, str] = {}
    for key, name in known.items():
        if header is not None and name not in header.forms:
            near = get_close_matches(name, header.names, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else "name a column of its header"
            raise Refusal(f"{header.file} has no column {name!r} for `--{key}`; {remedy}")
        if name in taken:
            raise Refusal(f"column {name!r} is named by --{taken[name]} and by --{key}; keep one")
        taken[name] = key
    left: dict[str, ColumnForm] = {} if header is None else dict(header.forms)
    for name in taken:
        left.pop(name, None)
    writer = next((name for name in left if is_writer(name)), None)
    left.pop(writer or "", None)
    pair = _pair(left, said)
    if pair is not None:
        columns: dict[str, str | None] = {"prompt": pair[0], "completion": pair[1]}
        return _Roles("causal_lm", columns | _owners(said), frozenset(columns), writer)
    columns = {"text": said.text or text_column("text", left)}
    left.pop(columns["text"] or "", None)
    task = said.task or "classification"
    if task != "causal_lm":
        columns["label"] = said.target or text_column("label", left)
    guessed = {key for key, name in columns.items() if name is not None and name not in taken}
    return _Roles(task, columns | _owners(said), frozenset(guessed), writer)


def _pair(left: dict[str, ColumnForm], said: TextRoles) -> tuple[str, str] | None:
    """The columns of prompts and of their answers, where these are all that a header offers."""
    asked = said.text is not None or said.target is not None
    if asked or said.task not in (None, "causal_lm") or text_column("text", left) is not None:
        return None
    prompt, completion = text_column("prompt", left), text_column("completion", left)
    return None if prompt is None or completion is None else (prompt, completion)


def _owners(said: TextRoles) -> dict[str, str | None]:
    named = {"unit": said.unit, "party": said.party}
    return {key: name for key, name in named.items() if name is not None}


def _head(path: str, header: TableHeader | None) -> list[str]:
    read = "from its header alone: no row"
    if header is None:
        read = "without reading it: no row"
    return [
        f"# A private model of {as_name(path)}, drafted by `nacre init text` {read}",
        f"# was read. Where {FILL} stands something is missing; until then `nacre plan` refuses",
        "# this file and names the lines. Every key: `nacre explain`.",
        "#",
        "# Classes, length and size are declared and public. Taken from private rows they would",
        "# tell of the people in them: a rare class is somebody's, and so is the longest text.",
        "# Write what is true of all texts of this kind.",
        "",
        "nacre: 1",
        f"name: {as_name(name_after(Path(path), 'texts'))}",
        "seed: 0",
        "",
    ]


_WHY = {
    "text": "the column of the texts",
    "prompt": "what is asked: read and not learnt",
    "completion": "what is to be answered: learnt",
    "label": "the column to predict",
}


def _data(path: str, found: _Roles, said: TextRoles) -> list[str]:
    lines = ["data:", "  kind: text", f"  path: {as_name(path)}"]
    for key, why in _WHY.items():
        if key in found.columns:
            name = found.columns[key]
            shown = FILL if name is None else as_name(name)
            guess = f"{_GUESSED}; " if key in found.guessed else ""
            lines.append(f"  {key}: {shown}  # {guess}{why}")
    if not found.columns.keys() & {"text", "prompt"}:
        lines.append("  documents: line  # a text is a line; `paragraph`: up to an empty line")
    if found.task != "classification":
        lines.append(f"  task: {found.task}")
    if found.task == "classification":
        lines += [
            f"  classes: [{FILL}, {FILL}]  # every value of the label; another one is refused",
            "  #   Where it is a number, write `task: regression` here and under `model`, and no",
            "  #   classes; for a language model `task: causal_lm` there, and no label or classes",
        ]
    lines += [
        "  length: 128  # tokens of a text, some 90 English words; at most what the base reads",
        "  #   A longer text loses its end (`cut: start`: its beginning); a larger length costs",
        "  #   memory and time",
    ]
    if said.unit is not None:
        lines.append(f"  unit: {as_name(said.unit)}  # all texts with one value of it are one unit")
    elif "text" in found.columns or "prompt" in found.columns:
        writer = FILL if found.writer is None else as_name(found.writer)
        lines += [
            f"  # unit: {writer}  # `--unit`: the column that tells whose a text is, where a",
            "  #   person has several (then `unit: group` and `rows_per_unit` below); else one",
            "  #   text is hidden, and not the person",
        ]
    if said.party is not None:
        lines.append(f"  party: {as_name(said.party)}")
    lines += size_lines(said.size, said.unit)
    return [*lines, "  # on_missing: drop  # or a row that lacks a value is refused", ""]


def _base(said: TextRoles, folder: Path) -> str:
    """The folder of the base from the recipe, or its name on the hub; `FILL` where nothing is said
    and none lies beside the recipe. Raises `Refusal`."""
    if said.base is None:
        return _BASE if (folder / _BASE / "config.json").is_file() else FILL
    place = Path(said.base)
    if not place.is_dir():
        if place.exists() or said.base.startswith((".", "/", "~")):
            raise Refusal(f"`--base {said.base}` is no folder; name the one that holds the model")
        return as_name(said.base)
    if not (place / "config.json").is_file():
        raise Refusal(
            f"`--base {said.base}` has no config.json, so it holds no model; name the folder with "
            "config.json, model.safetensors and the files of the tokenizer"
        )
    return as_name(Path(os.path.relpath(place, folder)).as_posix())


def _rest(file: Path, said: TextRoles, found: _Roles, folder: Path) -> Sequence[str]:
    delta, name = delta_for(said.size), as_name(name_after(file, "texts"))
    batch, of_batch = batch_for(said.size, said.party, _LARGEST)
    pooling = [
        "  # pooling: mean  # or cls, pooler, stock: what the answer is read from. Left out, it is",
        "  #   what the base was trained for by its 1_Pooling/config.json, else the stock head",
        "  #   (`nacre export --form adapter`, for PEFT, needs stock)",
    ]
    return [
        "model:",
        "  kind: pretrained",
        f"  name: {_base(said, folder)}  # `--base`: a folder, relative to this file, with",
        "  #   config.json, model.safetensors and the files of its tokenizer, or a name on the",
        "  #   Hugging Face hub. What it was learnt from must be public, or at least hold none of",
        "  #   these texts: epsilon does not cover what the base knew before",
        f"  task: {found.task}",
        "  dropout: 0.0",
        *(pooling if found.task != "causal_lm" else []),
        "",
        "fine_tuning: {kind: lora, rank: 8, alpha: 16}  # or `kind: full`, `bias`, `norms`, `head`",
        "gradient_clipping: {kind: automatic}  # each unit's gradient to the same length",
        "",
        *federation_lines(said.party),
        *protection_lines(said.unit, _EPSILON, delta),
        "training:",
        *(["  steps: 200"] if said.party is None else []),  # of a federation its rounds count
        f"  batch: {batch}  # units expected a step, {of_batch}",
        "  optimizer: {kind: sgd, lr: 0.5, momentum: 0.9}",
        "",
        "execution: {microbatch: 32}  # units at a time, to save memory",
        "",
        "ledger:",
        "  path: privacy.db  # every run on these texts is charged to it",
        f"  dataset: {name}",
        f"  grant: {{epsilon: {_EPSILON}, delta: {delta}, rule: pld}}  # once, by the owner",
        "",
        "audit: [membership]",
        "",
    ]
