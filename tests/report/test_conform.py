"""JSON is checked against types, and the first misfit is named."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

import pytest

from nacre.report.conform import conform


class Inner(TypedDict):
    size: int
    share: NotRequired[float]


class Outer(TypedDict):
    kind: Literal["a", "b"]
    inner: list[Inner]
    other: dict[str, Any] | None
    on: bool


def whole(**other: Any) -> dict[str, Any]:
    return {"kind": "a", "inner": [{"size": 1}], "other": None, "on": True} | other


@pytest.mark.parametrize(
    "value",
    [
        whole(),
        whole(kind="b", other={"x": object()}),
        whole(inner=[{"size": 2, "share": 1}], unknown="let through"),
        whole(inner=[]),
    ],
)
def test_fits(value: Any) -> None:
    conform(value, Outer)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "`the whole` should be an object"),
        (whole(kind="c"), "`kind` should be 'a' or 'b'"),
        (whole(kind=None), "`kind` should be 'a' or 'b'"),
        (whole(inner={}), "`inner` should be a list"),
        (whole(inner=[{"size": 1}, {}]), "`inner[1].size` is missing"),
        (whole(inner=[{"size": True}]), "`inner[0].size` should be a whole number"),
        (whole(inner=[{"size": 1.5}]), "`inner[0].size` should be a whole number"),
        (whole(inner=[{"size": 1, "share": "x"}]), "`inner[0].share` should be a number"),
        (whole(inner=[{"size": 1, "share": False}]), "`inner[0].share` should be a number"),
        (whole(other=[]), "`other` should be an object or null"),
        (whole(on=1), "`on` should be true or false"),
    ],
)
def test_misfits_are_named(value: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        conform(value, Outer)
    assert str(caught.value) == message


def test_true_is_not_the_literal_one() -> None:
    with pytest.raises(ValueError, match="should be 1"):
        conform(True, Literal[1])
