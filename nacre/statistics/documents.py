"""Answers as plain JSON, each with its query: what `nacre release -o` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from nacre.differential_privacy.queries import QueryOption
from nacre.statistics.across.opening import TogetherAnswered
from nacre.statistics.across.options import Across
from nacre.statistics.answers import Answer


def fields_of(answer: Answer, query: QueryOption) -> dict[str, Any]:
    """An answer, with the query, which `nacre report --check` holds it against; its event is the
    query's price."""
    fields = {key: value for key, value in asdict(answer).items() if key != "event"}
    asked = {key: value for key, value in asdict(query).items() if value is not None}
    return {**fields, "epsilon": query.epsilon, "delta": query.delta, "query": asked}


def together_document(
    found: TogetherAnswered, queries: Sequence[QueryOption], across: Across
) -> dict[str, Any]:
    """The answers of several parties: who answered, what each pays, and whom epsilon holds
    against."""
    shares = asdict(found.noise)
    both = zip(found.answers, queries, strict=True)
    return {
        "run": found.run,
        "parties": list(found.parties),
        "missing": list(found.missing),
        "noise": across.noise.kind,
        "against": found.against,
        "each_party": each_party(queries),
        "answers": [{**fields_of(answer, query), "shares": shares} for answer, query in both],
    }


def each_party(queries: Sequence[QueryOption]) -> Mapping[str, float]:
    """What a unit of each party pays for all answers together at most: epsilons and deltas add up.
    A ledger that composes more closely charges less."""
    return {
        "epsilon": sum(query.epsilon for query in queries),
        "delta": sum(query.delta for query in queries),
    }
