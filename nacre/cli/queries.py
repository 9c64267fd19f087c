"""What both sides of a release over parties read: a file of queries, and the way to the others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from nacre.statistics.across.agreed import AgreedQueries


def agreed_queries(path: Path) -> tuple[AgreedQueries, bytes]:
    """What a file of queries asks of several parties, and its bytes. Raises `Refusal` for any
    other."""
    from nacre.recipe.document import parse, read_bytes
    from nacre.recipe.load import read_text
    from nacre.statistics.across.agreed import AgreedQueries
    from nacre.statistics.query_file import Queries

    text = read_bytes(path)
    return AgreedQueries.of(read_text(parse(text, str(path)), Queries)), text


def asks_queries(path: Path) -> bool:
    """Whether this is a file of queries and no recipe."""
    from nacre.recipe.document import parse, read_bytes

    return "queries" in parse(read_bytes(path), str(path)).values


def authority(ca: Path | None, insecure: bool) -> Path | None:
    """The authority's certificate; None without TLS, which has to be asked for."""
    if (ca is None) != insecure:
        raise click.UsageError(
            "name the certificate of the SuperLink's authority with `--ca ca.pem`, or say "
            "`--insecure`, which shows all that is sent to everybody on the way"
        )
    return ca
