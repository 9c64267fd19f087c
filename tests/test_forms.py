"""The forms for issues are what GitHub accepts, and send vulnerabilities the private way."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

FORMS = Path(__file__).parents[1] / ".github" / "ISSUE_TEMPLATE"
BODIES = sorted(path for path in FORMS.glob("*.yml") if path.name != "config.yml")
TYPES = {"markdown", "input", "textarea", "dropdown", "checkboxes"}


def test_the_four_kinds_of_issues_have_a_form() -> None:
    assert [form.stem for form in BODIES] == [
        "bug",
        "false-guarantee",
        "refusal",
        "unsupported-layer",
    ]


@pytest.mark.parametrize("form", BODIES, ids=lambda form: form.stem)
def test_a_form_is_complete(form: Path) -> None:
    """GitHub ignores a form in which a name is missing, twice there, or of an unknown type."""
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert content["name"] and content["description"]
    parts = content["body"]
    assert {part["type"] for part in parts} <= TYPES
    asked = [part["attributes"]["label"] for part in parts if part["type"] != "markdown"]
    assert asked and len(asked) == len(set(asked))
    for part in parts:
        assert part["type"] != "markdown" or part["attributes"]["value"].strip()
        assert part["type"] not in ("dropdown", "checkboxes") or part["attributes"]["options"]


def test_what_would_be_a_vulnerability_is_sent_away() -> None:
    """A reporter of a false guarantee, or of wrong gradients, meets the private way first."""
    for stem in ("false-guarantee", "unsupported-layer"):
        body = yaml.safe_load((FORMS / f"{stem}.yml").read_text(encoding="utf-8"))["body"]
        assert body[0]["type"] == "markdown" and "in private" in body[0]["attributes"]["value"]
