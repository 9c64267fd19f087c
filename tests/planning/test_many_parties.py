"""Plans of very many parties: folded where they are alike, and refused where they need names."""

import json

import pytest

from nacre.core.errors import Incompatible, RecipeError
from nacre.data.partition import Counted
from nacre.planning.plan import plan
from nacre.recipe.explain import explain
from nacre.recipe.load import dumps, loads
from tests.training.tiny import CENTRAL, FEDERATED, TABLE, changed, recipe, text

MANY = 1_000_000
ROWS = {
    "kind": "arrays", "path": "rows.npz", "shape": [4], "classes": 3, "low": 0, "high": 1,
    "size": 3 * MANY + 5, "public_demonstration": True,
}  # fmt: skip
OPEN = changed(
    changed(FEDERATED, {"data": ROWS}),
    {
        "differential_privacy": None, "gradient_clipping": None, "ledger": None,
        "federated_learning.parties.names": {"count": MANY},
        "federated_learning.cohort": {"kind": "poisson", "expected": 1000}, "training.batch": 2,
    },
)  # fmt: skip
CLIENT = changed(
    OPEN,
    {
        "differential_privacy": {
            "unit": "client", "epsilon": 8, "delta": 1e-8, "accountant": "rdp",
        },
        "gradient_clipping": {"kind": "flat", "norm": 1.0},
        "ledger": {"path": "privacy.db", "dataset": "d",
                   "grant": {"epsilon": 8, "delta": 1e-8, "rule": "rdp"}},
    },
)  # fmt: skip


def test_a_million_open_parties_are_an_entry_for_each_size(tmp_path):
    planned = plan(recipe(tmp_path, OPEN))
    facts = planned.to_json()
    assert [(p["name"], p["size"], p["parties"]) for p in facts["parties"]] == [
        ("party-000005", 3, MANY - 5), ("party-000000", 4, 5),
    ]  # fmt: skip
    assert len(json.dumps(facts)) < 20_000
    assert planned.inner("party-000004").sampling.size == 4
    assert planned.inner("party-999999").sampling.size == 3


def test_a_million_protected_parties_are_one_account(tmp_path):
    facts = plan(recipe(tmp_path, CLIENT)).to_json()
    (party,) = facts["parties"]
    assert (party["size"], party["unit"]) == (MANY, "client")
    assert party["sampling"]["rate"] == 1e-3
    assert len(json.dumps(facts)) < 20_000


def test_many_parties_that_are_charged_each_are_not_named_in_every_release(tmp_path):
    base = changed(
        changed(FEDERATED, {"data": ROWS}),
        {
            "data.size": 4000, "federated_learning.parties.names": {"count": 40},
            "differential_privacy.accountant": "rdp", "ledger.grant.rule": "rdp",
        },
    )  # fmt: skip
    planned = plan(recipe(tmp_path, base))
    assert planned.outer is not None
    assert planned.outer.noise.inherited == ("the noised steps of 40 parties",)
    assert len(planned.levels) == 40  # each has an account of its own


def test_workers_without_parties_are_refused(tmp_path):
    with pytest.raises(Incompatible, match="workers train the parties of a federation"):
        plan(recipe(tmp_path, CENTRAL, execution__workers=2))


@pytest.mark.parametrize("law", ["power", "log_normal"])
def test_parties_smaller_than_a_batch_take_all_that_they_have(tmp_path, law):
    parties = {"kind": "quantity", "names": {"count": 20}, "law": law}
    base = changed(
        OPEN,
        {"data.size": 100, "federated_learning.parties": parties,
         "federated_learning.cohort": None, "training.batch": 10},
    )  # fmt: skip
    planned = plan(recipe(tmp_path, base))
    sizes = {level.size: level.mechanism.sampling.expected for level in planned.levels}
    assert all(expected == min(10, size) for size, expected in sizes.items())


def test_parties_that_a_column_names_have_no_accounts_of_their_own(tmp_path):
    parties = {"kind": "column", "column": "hospital", "count": 2, "size": 24}
    base = changed(
        TABLE,
        {"data.drop": [], "data.party": "hospital", "training.steps": None,
         "training.batch": 12, "federated_learning": {"parties": parties, "rounds": 2}},
    )  # fmt: skip
    with pytest.raises(Incompatible, match="known only once rows are read"):
        plan(recipe(tmp_path, base))
    whole = changed(
        base,
        {"differential_privacy": {"unit": "client", "epsilon": 8, "delta": 1e-3},
         "federated_learning.few_clients": True},
    )  # fmt: skip
    (level,) = plan(recipe(tmp_path, whole)).levels
    assert level.size == 2


def test_a_list_of_names_or_a_count_is_read_and_written(tmp_path):
    read = recipe(tmp_path, OPEN)
    assert read.federated_learning is not None
    assert read.federated_learning.parties.names == Counted(count=MANY)
    assert loads(dumps(read)) == read
    (entry,) = explain("federated_learning.parties.names.count")[:1]
    assert entry.type == "a whole number"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"count": 0}, r"names\.count`: count=0 must be at least 1|count=0 must be at least 1"),
        ({"counts": 3}, r"names\.counts` is no key here|did you mean `count`"),
        ({"count": "three"}, "must be a whole number, not the text"),
        ([1, 2], "must be text, not 1"),
        (3, "must be a list, each entry text, or `{count: …}`, not 3"),
        ("east", "must be a list, each entry text, or `{count: …}`"),
    ],
)
def test_other_names_are_refused_with_their_place(names, message):
    base = changed(OPEN, {"federated_learning.parties.names": names})
    with pytest.raises(RecipeError, match=message):
        loads(text(base))


def test_one_column_says_who_the_parties_are(tmp_path):
    """A second name for it would stand in the recipe and be read by nobody."""
    base = changed(
        TABLE, {
            "data.party": "hospital", "data.drop": None,
            "federated_learning": {
                "parties": {"kind": "column", "column": "ward", "sizes": {"a": 24, "b": 24}},
                "rounds": 2,
            },
        },
    )  # fmt: skip
    with pytest.raises(Incompatible, match=r"tiny.yaml:\d+ `federated_learning.parties.column`: .*"
                       r"'ward', and `data: \{party: hospital\}`"):  # fmt: skip
        plan(recipe(tmp_path, base))
