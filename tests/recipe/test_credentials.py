"""What is handed on shows no password, wherever in an address it was written."""

from __future__ import annotations

import pickle

import pytest

from nacre.core.errors import BadArgument
from nacre.integrations.sklearn import PrivateClassifier
from nacre.recipe.credentials import recipe_without_credentials, without_credentials
from nacre.recipe.document import parse
from nacre.recipe.sections import LedgerChoice

WRITTEN = [
    "postgresql://bob:s3cret@h/db",
    "postgresql://bob:s3%40cret@h:5432/db?sslmode=require",
    "postgresql://bob:s3@cret@h/db",
    "postgresql://bob:s3/cret@h/db",
    "postgresql://bob:s3?cret@h/db",
    "postgresql://bob:s3#cret@h/db",
    "postgresql://bob:s3:cret@h/db",
    "postgresql://:s3cret@h/db",
    "postgresql://bob:a&password=cret@h/db",
    "postgresql://bob:@h/db?password=s3cret",
    "postgresql://h/db?user=bob&password=s3cret",
    "postgresql://h/db?password=s3cret&user=bob",
    "postgresql://h/db?password=s3@cret&user=bob",
    "postgresql://h/db?password=s3?cret#cret;cret",
    "postgresql://h/db?password=s3=cret",
    "postgresql://h/db?password=s3'cret",
    "postgresql://h/db?sslpassword=s3cret",
    "postgresql://h/db?PASSWORD=s3cret",
    "postgresql://h/db?pass%77ord=s3cret",
    "postgres://bob:s3cret@h1,h2/db",
    "POSTGRESQL://bob:s3cret@h/db",
    "host=h user=bob password=s3cret",
    "host=h password = 's3 cret' user=bob",
]


@pytest.mark.parametrize("path", WRITTEN)
def test_no_form_of_a_password_is_handed_on(path: str) -> None:
    choice = LedgerChoice(path=path, dataset="rows")
    model = PrivateClassifier(ledger=choice)
    quoted = path.replace("'", "''")
    recipe = f"ledger: {{path: '{quoted}', dataset: rows}}  # of bob\n"
    masked = recipe_without_credentials(recipe)
    shown = [repr(choice), repr(model), without_credentials(path), masked]
    shown.append(recipe_without_credentials(f"ledger:\n  path: {path}\n"))
    shown.append(pickle.dumps(model).decode("latin-1"))
    shown.append(pickle.dumps(PrivateClassifier(ledger=path)).decode("latin-1"))  # type: ignore[arg-type]
    assert not any("cret" in text or "s3" in text for text in shown)
    assert parse(masked.encode(), "r.yaml").values["ledger"]["dataset"] == "rows"
    assert without_credentials(without_credentials(path)) == without_credentials(path)
    assert choice.path == path


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://db:5432/book?sslmode=require",
        "https://host/page?x=1",
        "a:b@c.db",
        "ask bob@host, whose rows are at https://host/x",
        "password: in ~/.pgpass",
    ],
)
def test_what_holds_no_credentials_stays_as_it_is(text: str) -> None:
    assert without_credentials(text) == text


def test_a_password_over_two_lines_or_in_escapes_is_found() -> None:
    lines = '"postgresql://bob:s3\\\n    cret@h/db"'
    escapes = r'"postgresql:\x2f/bob:s3cret@h/db"'
    for path in (lines, escapes):
        masked = recipe_without_credentials(f"ledger:\n  path: {path}\n")
        assert parse(masked.encode(), "r.yaml").values["ledger"]["path"] == "postgresql://…@h/db"
        assert "cret" not in masked and "s3" not in masked


def test_a_url_with_a_space_is_refused_without_being_shown() -> None:
    with pytest.raises(BadArgument, match="%20") as refused:
        LedgerChoice(path="postgresql://bob:s3 cret@h/db", dataset="rows")
    assert "cret" not in str(refused.value)
