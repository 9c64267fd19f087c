"""The card that goes with a model that is handed on: README.md, as the Hugging Face hub reads it.

What evidence says is filled in; what only people know is left blank, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from nacre.core.errors import one_line
from nacre.report.facts import Evidence, PartyFacts
from nacre.report.sections.headline import key_figures, warnings
from nacre.report.sections.numbers import delta, epsilon_text
from nacre.report.sections.words import UNIT

_BLANK = "*To be filled in by those who publish the model.*"
_FOR_PEOPLE = (
    ("Intended use", "What is it for, and who is to use it?"),
    ("Not intended for", "Which decisions must not rest on it?"),
    (
        "The people in the data",
        "Who are they, when and how were the rows collected, on what terms?",
    ),
    ("Known errors", "For whom or where does it fail, and how was that looked for?"),
    ("Licence and contact", "Who answers for it?"),
)
_HELD = {
    "merged": "`model.json` holds it",
    "adapter": "the run's `model.json` holds it",
    "onnx": "the graph's metadata hold it under `nacre.signature`",
}
_TASKS = {
    "classification": "tells classes apart",
    "regression": "tells a number",
    "causal_lm": "continues text",
    "token_classification": "tells a class for each word",
}


def model_card(evidence: Evidence, form: Literal["merged", "adapter", "onnx"]) -> str:
    """The text of README.md. The same evidence gives the same text.

    Where evidence contradicts the plan, the card says so before any epsilon.
    """
    plan = evidence["plan"]
    stock = evidence["model"].get("option", {}).get("kind") == "stock"
    merged = "transformers" if stock else "nacre"
    library = {"merged": merged, "adapter": "peft", "onnx": "onnx"}[form]
    tags = ["nacre", *(["differential-privacy"] if plan["private"] else [])]
    parts = [
        f"---\nlibrary_name: {library}\ntags: [{', '.join(tags)}]\n---",
        f"# {_text(plan['name'])}",
        *(f"> **{_text(warning)}**" for warning in warnings(evidence)),
        f"## What it was trained for\n\n{_purpose(evidence)}",
        f"## Privacy\n\n{_privacy(evidence)}",
        f"## What it reads\n\n{_inputs(evidence['model'].get('signature'), _HELD[form])}",
        f"## What was measured\n\n{_measured(evidence)}",
        f"## What this rests on\n\n{_list(plan['assumptions'])}",
        f"## Limits\n\n{_list(plan['not_covered'])}",
        *(f"## {head}\n\n{asked} {_BLANK}" for head, asked in _FOR_PEOPLE),
        f"## Where it comes from\n\n{_origin(evidence)}",
    ]
    return "\n\n".join(parts) + "\n"


def _purpose(evidence: Evidence) -> str:
    signature: dict[str, Any] = evidence["model"].get("signature") or {}
    task = evidence["plan"]["task"]
    said = f"A model that {_TASKS.get(task, _text(task))}"
    if target := signature.get("target"):
        said += f", as the column `{_code(target)}` has them"
    if classes := signature.get("classes"):
        said += f": {', '.join(_text(name) for name in classes)}"
    techniques = [str(text) for text in evidence["plan"]["techniques"].values() if text]
    return f"{said}.\n\n{_list(techniques)}"


def _privacy(evidence: Evidence) -> str:
    plan = evidence["plan"]
    if not plan["private"]:
        return "None is promised: whatever the model gives away of its rows, nothing bounds it."
    rows = [
        [
            party["name"],
            epsilon_text(party["epsilon"]),
            delta(party["delta"]),
            _unit(party, evidence),
            party["adjacency"].replace("_", "-"),
            party["accountant"] or "none",
        ]
        for party in plan["parties"]
    ]
    heads = ["rows of", "epsilon", "delta", "protected", "neighbours by", "computed by"]
    released = evidence["released"]
    draws = released.get("evaluation", 0)
    beside = f", beside {draws} draws for the protected figure" if draws else ""
    against = {_unit(p, evidence): said for p in plan["parties"] if (said := p.get("against"))}
    holds = "".join(f"- *{unit}*: holds against {said}.\n" for unit, said in against.items())
    return (
        f"{_table(heads, rows)}\n\n"
        f"{holds}{'' if not holds else chr(10)}"
        f"{released['noised']} noised releases are on record, {released['inherited']} computed "
        f"from releases, {released['unprotected']} without protection{beside}. Epsilon bounds "
        "what this model tells of one unit, whatever else is known. It is that of this run alone: "
        "other runs on the same people add to it, and their ledger says to what."
    )


def _unit(party: PartyFacts, evidence: Evidence) -> str:
    column = (evidence["model"].get("signature") or {}).get("unit")
    named = f" (column {column})" if column and party["unit"] == "group" else ""
    return UNIT[party["unit"]] + named


def _inputs(signature: dict[str, Any] | None, where: str) -> str:
    if signature is None:
        return f"Its files do not say (they are of an older format). {_BLANK}"
    if columns := signature["columns"]:
        rows = [
            [
                column["name"],
                column["kind"],
                ", ".join(column["categories"])
                if column["categories"]
                else f"{_end(column['low'])} to {_end(column['high'])}",
            ]
            for column in columns
        ]
        what = _table(["column", "kind", "declared values"], rows)
    elif signature["text"] is not None:
        what = f"Text, of {signature['text']['length']} tokens at most; the rest is cut off."
    else:
        shape = " × ".join(map(str, signature["shape"]))
        ends = f"{_end(signature['low'])} to {_end(signature['high'])}"
        what = f"Arrays of shape {shape}, with entries from {ends}."
    return f"{what}\n\nAll of it was declared before a private row was read; {where} for programs."


def _end(value: float | None) -> str:
    return "no declared end" if value is None else f"{value:.12g}"


def _measured(evidence: Evidence) -> str:
    _, *figures = key_figures(evidence)
    rows = [[figure.label, figure.value, figure.detail] for figure in figures]
    return _table(["figure", "value", "to be read with"], rows)


def _origin(evidence: Evidence) -> str:
    plan = evidence["plan"]
    return (
        f"Made by Nacre {_text(plan['nacre'])} on {plan['created'][:10]}; the recipe's SHA-256 is "
        f"`{plan['recipe_digest']}`, that of the run's weights "
        f"`{evidence['files'].get('model.safetensors', 'not on record')}`. `nacre report RUN "
        "--check` recomputes what is said of privacy from the run folder."
    )


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {_text(sentence)}" for sentence in sentences)


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: object) -> str:
    """Text in which nothing is markup: names and categories may hold anything."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", one_line(str(value)))


def _code(value: object) -> str:
    """Text between backticks, which hold none."""
    return one_line(str(value)).replace("`", "'")
