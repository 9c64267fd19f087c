import pytest

import nacre
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


@pytest.mark.parametrize(
    "made",
    [
        lambda: nacre.Privacy(epsilon=0, delta=1e-4),
        lambda: nacre.Privacy(epsilon=1, delta=2),
        lambda: nacre.Privacy(epsilon=1, delta=1e-4, rows_per_unit=2),
        lambda: nacre.Flat(norm=0),
        lambda: nacre.SGD(lr=-1),
        lambda: nacre.Training(steps=0, batch=1),
        lambda: nacre.Grant(epsilon=-1, delta=1e-4),
        lambda: nacre.Budget(epsilon=1, delta=0),
        lambda: nacre.LoRA(rank=0),
        lambda: nacre.Ball(kind="linf", radius=-1),
        lambda: nacre.Uniform(names=[]),
        lambda: nacre.MLP(hidden=[0]),
    ],
)
def test_an_option_refuses_a_value_as_both_kinds_of_error(made):
    """docs/python.md: every refusal lies below NacreError; for Python it is a ValueError."""
    with pytest.raises(errors.NacreError) as refused:
        made()
    assert isinstance(refused.value, ValueError)
