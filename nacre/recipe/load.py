"""Recipes from YAML and back; nothing but a `RecipeError` ever comes out of a bad file."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic_core import ValidationError
from yaml import YAMLError  # pyright: ignore[reportMissingModuleSource]

from nacre.adversarial_training.objectives.refused import refused
from nacre.core.errors import RecipeError
from nacre.models import OWN, Code
from nacre.recipe.audits import NOT_BUILT
from nacre.recipe.document import FILL, Document, dump, key_path, parse, read_bytes
from nacre.recipe.mistakes import mistakes
from nacre.recipe.options import content, validator
from nacre.recipe.schema import Origin, Recipe, recipe_digest

__all__ = [
    "FORMAT", "dumps", "load_recipe", "loads", "read_options", "read_text", "recipe_digest",
    "require_writable",
]  # fmt: skip

FORMAT = 1
"""The format of recipes that this version reads, as written under `nacre`."""

Option = TypeVar("Option")


def load_recipe(path: Path | str, *, folder: Path | None = None, code: Code = OWN) -> Recipe:
    """The recipe in a file; its paths are relative to `folder`, or else to where the file is.

    `code` says which Python code may be run for it. A recipe in a run folder, which may be from
    elsewhere, needs `code.runs` before any is. Raises `RecipeError` with file, line and key for
    anything that is not a recipe.
    """
    file = Path(path)
    recipe = _recipe(read_bytes(file), str(file), file.parent if folder is None else folder)
    of_run = (file.parent / "plan.json").exists()
    return replace(recipe, code=code.of_run_folder() if of_run else code)


def loads(text: str, name: str = "recipe", *, folder: Path = Path()) -> Recipe:
    """The recipe in a text; errors call it `name`, its paths are relative to `folder`."""
    return _recipe(text.encode(errors="surrogatepass"), name, folder)


def dumps(recipe: Recipe) -> str:
    """YAML that `loads` reads back as an equal recipe, every default written out."""
    return dump(content(recipe))


def require_writable(recipe: Recipe) -> None:
    """Raises `RecipeError` for a recipe made in Python that no file could say: a value of another
    type than declared (true for a number), one that is not finite, or one beyond any number here.

    Options check their own ranges, and a comparison is true of NaN as of nothing else; a run folder
    keeps the recipe as a file, which has to be read again.
    """
    with suppress(ValueError):  # of numbers that have no digest; the file says which
        if recipe.source is not None:
            return
    try:
        loads(dumps(recipe), folder=recipe.folder)
    except RecipeError as error:
        raise RecipeError(error.message, key=error.key) from error
    except (YAMLError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RecipeError(
            f"the recipe holds a value that cannot be written down ({reason}); use numbers, text, "
            "lists and options"
        ) from error


def read_options(path: Path, option: type[Option]) -> Option:
    """A file of another kind than a recipe, read by the same rules. Raises `RecipeError`."""
    return read_text(parse(read_bytes(path), str(path)), option)


def read_text(document: Document, option: type[Option]) -> Option:
    """The document as this option. Raises `RecipeError` for what is wrong in it."""
    _check_format(document)
    _require_filled(document)
    try:
        return validator(option).validate_python(document.values)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise mistakes(details, document, option) from error


def _recipe(data: bytes, name: str, folder: Path) -> Recipe:
    document = parse(data, name)
    _spell_out_audits(document)
    _require_own_perturbations(document)
    recipe = read_text(document, Recipe)
    origin = Origin(name, data, document.lines, recipe_digest(recipe))
    return replace(recipe, folder=folder, origin=origin)


def _check_format(document: Document) -> None:
    """Refuses a file of another format, before its keys are refused as unknown."""
    if "nacre" not in document.values:
        raise document.error(("nacre",), f"is missing; begin the file with `nacre: {FORMAT}`")
    found = document.values["nacre"]
    if type(found) is not int or found != FORMAT:
        raise document.error(
            ("nacre",),
            f"{found!r} is a format that this version does not read; write `nacre: {FORMAT}`, or "
            "install the version that the file was written for",
        )


def _require_filled(document: Document) -> None:
    """Refuses a draft of `nacre init` in which something is left to be filled in."""
    if not document.unfilled:
        return
    first = document.unfilled[0]
    lines = sorted({document.lines[key_path(place)] for place in document.unfilled})
    others = lines[1:]
    named = ", ".join(map(str, others[:_NAMED])) + (" …" if len(others) > _NAMED else "")
    more = f" (and on {len(others)} more lines: {named})" if others else ""
    raise document.error(
        first,
        f"{FILL} stands where a value is needed{more}; write what can be known without these rows "
        "(quote the word where it is meant as text)",
    )


_NAMED = 5  # lines that the refusal of a draft names


def _require_own_perturbations(document: Document) -> None:
    """Refuses adversarial training in which one row moves another's perturbation, with the
    reason, before its name is refused as unknown."""
    found = refused(document.values.get("adversarial_training"))
    if found is not None:
        place, sentence = found
        raise document.error(("adversarial_training", *place), sentence)


def _spell_out_audits(document: Document) -> None:
    """`membership` is short for `{kind: membership}`; what is not built yet is refused as such."""
    entries: Any = document.values.get("audit")
    if not isinstance(entries, list):
        return
    for i, entry in enumerate(entries):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        kind: Any = entry.get("kind") if isinstance(entry, dict) else entry  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if kind in NOT_BUILT:
            raise document.error(("audit", i), f"{kind!r} is not built yet; leave it out")
        if isinstance(entry, str):
            entries[i] = {"kind": entry}
        elif isinstance(entry, dict) and isinstance(attackers := entry.get("attackers"), list):  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            entry["attackers"] = [{"kind": a} if isinstance(a, str) else a for a in attackers]  # pyright: ignore[reportUnknownVariableType]
