import pytest

from nacre.core.errors import DataError
from nacre.data import Bytes, Text
from nacre.data.text import canaries
from nacre.data.text.canaries import Canaries


def test_each_goes_in_by_a_coin_of_its_own():
    found = canaries.made(Canaries(count=400), 0)
    assert 150 < sum(canary.inserted for canary in found) < 250
    assert len({canary.name for canary in found}) == 400
    assert len({canary.secret for canary in found}) > 395
    assert found == canaries.made(Canaries(count=400), 0)
    # More canaries leave the first ones as they were.
    assert found[:8] == canaries.made(Canaries(count=8), 0)
    assert found[:8] != canaries.made(Canaries(count=8), 1)[:8]


def test_others_differ_in_their_secret_alone():
    option = Canaries(template="{name}: {secret}!", digits=4)
    canary = canaries.made(option, 3)[0]
    texts = canaries.others(option, 3, canary, 50)
    assert len(set(texts)) > 45
    for text in texts:
        name, secret = text.removesuffix("!").split(": ")
        assert name == canary.name and len(secret) == 4 and secret.isdigit()
    few = Canaries(template="{secret}", digits=1)
    alone = canaries.made(few, 0)[0]
    assert sorted([alone.secret, *canaries.others(few, 0, alone, 9)]) == list("0123456789")
    with pytest.raises(ValueError, match="no 10 other secrets"):
        canaries.others(few, 0, alone, 10)


def test_repeats_are_rows_of_one_owner():
    texts, owners = canaries.inserted(Canaries(repeats=3), 0)
    assert len(texts) == len(owners)
    assert texts.count(texts[0]) == owners.count(owners[0]) == 3


def test_they_stand_beside_the_private_rows_and_never_in_the_holdout(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"line {i}\n" for i in range(30)))
    option = Text(path="a.txt", task="causal_lm", tokenizer=Bytes(), length=64, size=30,
                  canaries=Canaries(count=8))  # fmt: skip
    cohorts = option.read(tmp_path, 0, bytes(32))
    within = sum(canary.inserted for canary in canaries.made(option.canaries, 0))
    assert (len(cohorts.private), len(cohorts.canaries)) == (30, within)


def test_a_secret_that_would_be_cut_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("line\n")
    option = Text(path="a.txt", task="causal_lm", tokenizer=Bytes(), length=12, size=30,
                  canaries=Canaries())  # fmt: skip
    with pytest.raises(DataError, match="its secret would be cut"):
        option.read(tmp_path, 0, bytes(32))


@pytest.mark.parametrize("fields", [
    {"count": 2}, {"repeats": 0}, {"digits": 0}, {"template": "nothing"},
    {"template": "{secret} {"},
    {"template": "{secret} {0}"}, {"template": "{{secret}}"}, {"template": "{secret.__class__}"},
    {"template": "{secret:5}"}, {"template": "{secret!r}"},
])  # fmt: skip
def test_options_that_make_no_secret_are_refused(fields):
    with pytest.raises(ValueError, match=r"must|may"):
        Canaries(**fields)


def test_canaries_are_for_language_models_in_one_place():
    with pytest.raises(ValueError, match="need task causal_lm"):
        Text(path="a.jsonl", text="t", label="l", classes=("a", "b"), size=3, canaries=Canaries())
