"""The server of a release whose parties are elsewhere: it holds no row."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from nacre.core.errors import PartyError, RunError
from nacre.core.files import read_json, write_json
from nacre.core.run_folder import RunFolder, create, refuse_existing, reopen
from nacre.federated_learning.across.kept import KeptReplies
from nacre.federated_learning.across.members import Meeting
from nacre.runs.federation.lead import Connect
from nacre.statistics.across.agreed import AgreedQueries
from nacre.statistics.across.opening import opened_together
from nacre.statistics.documents import together_document

_ASKS = 8  # of a release, at most, that are kept beside those that exchange keys


def lead_release(
    asked: AgreedQueries,
    text: bytes,  # of the file of queries
    into: Path,
    connect: Connect,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """The answers of the parties together, as `together_document` has them; they stand in the
    folder, as outcome.json, before the parties are let go.

    With `resume` it goes on: replies that were there are used again, and finished answers are given
    again at no further charge. Raises `RunError` as `lead` does, `PartyError` where too few
    parties answered, and what `connect` raises.
    """
    folder = RunFolder(into)
    if not resume:
        refuse_existing(into)
        facts = {"run": f"release {secrets.token_hex(16)}", "recipe": asked.digest, "led": "yes"}
        create(into, text, {"release": asked.digest}, facts, os.urandom(32))
    reopen(into)
    if folder.fact("recipe") != asked.digest:
        raise RunError(
            f"{into} holds a release of other queries; put them back, or take another `--into`"
        )
    if not folder.outcome.exists():
        _opened_into(asked, folder, connect)
    found: Any = read_json(folder.outcome)
    return found


def _opened_into(asked: AgreedQueries, folder: RunFolder, connect: Connect) -> None:
    """Writes the answers into the folder."""
    with folder.locked():
        source, run = folder.source(), folder.name()
        meeting = Meeting(run=run, recipe=asked.digest, parties=asked.across.parties, frozen="")
        terms = asked.terms(run, connect.roster)
        with connect.reach(meeting) as reached:
            key = source.secret("replies", "asked")
            kept = KeptReplies(reached, folder.parties / "asked", key, asks=_ASKS)
            try:
                answered = opened_together(kept, connect.identity, asked, terms)
            except PartyError:
                kept.too_few()
                raise
            document = together_document(answered, asked.queries, asked.across)
            write_json(folder.outcome, document)
        folder.destroy_key()
