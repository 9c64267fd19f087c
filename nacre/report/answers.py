"""Answers that `nacre release -o` wrote, held against the queries that stand beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nacre.core.errors import FileDamaged, RecipeError
from nacre.core.files import read_json
from nacre.recipe.document import parse
from nacre.recipe.load import read_text
from nacre.statistics.paid import recorded, require_due
from nacre.statistics.query_file import Queries


def check_answers(file: Path) -> list[str]:
    """The names of the answers, each with the noise that its query pays for.

    Raises `NotAsPlanned` for the first that has other noise, `FileDamaged` for a file of another
    form.
    """
    facts: Any = read_json(file)
    try:
        answers: list[Any] = list(facts["answers"])
        asked = [answer["query"] for answer in answers]
        text = json.dumps({"nacre": 1, "queries": asked}).encode()
        queries = read_text(parse(text, str(file)), Queries).queries
        pairs = [(query, recorded(one)) for query, one in zip(queries, answers, strict=True)]
    except (KeyError, TypeError, ValueError, RecipeError) as error:
        raise FileDamaged(
            f"{file} is not what `nacre release -o` writes ({error}): put it back, or check a file "
            "of this version, whose answers hold their queries"
        ) from error
    for query, noise in pairs:
        require_due(query, noise)
    return [noise.name for _, noise in pairs]
