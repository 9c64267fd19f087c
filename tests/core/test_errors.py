import pytest

from nacre.core import errors


def test_a_recipe_error_points():
    error = errors.RecipeError("must be > 0", file="r.yaml", line=3, key="a.b")
    assert str(error) == "r.yaml:3 `a.b`: must be > 0"
    assert str(errors.RecipeError("empty", file="r.yaml")) == "r.yaml: empty"
    assert str(errors.RecipeError("wrong")) == "wrong"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.NacreError, 1),
        (errors.Refusal, 2),
        (errors.DataError, 2),
        (errors.LedgerError, 2),
        (errors.BudgetExceeded, 3),
        (errors.PartyError, 1),
        (errors.FileDamaged, 1),
    ],
)
def test_exit_codes(kind, code):
    assert issubclass(kind, errors.NacreError)
    assert kind.exit_code == code


def test_a_message_is_one_printable_line():
    error = errors.DataError("column 'a\n\x1b[31m\tb' is \u202e odd")
    assert str(error) == "column 'a \\x1b[31m b' is \\u202e odd"
