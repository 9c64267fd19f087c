"""The adversarial batch of texts: its figures, budget and candidates follow from the files."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch

from nacre.audit.model_security.batch import reproduced
from nacre.audit.model_security.batch_file import load_batch, save_batch
from nacre.audit.model_security.evasion import evasion
from nacre.core.errors import BadArgument, FileDamaged, RunError
from nacre.core.files import load_tensors, save_tensors, write_json
from nacre.recipe.audits import Evasion, WhenNarrow
from tests.adversarial_training.test_word_substitution import TOKENS, VOCABULARY
from tests.audit.test_evasion_words import THREAT, _target


def kept(target, **changes):
    batches = []
    option = Evasion(**{"ball": THREAT, "effort": "quick", **changes})
    finding = evasion(replace(target, keep=batches.append), option)
    (batch,) = batches
    return finding, batch


@pytest.fixture
def files(tmp_path):
    """A target, its finding, its batch, and the folder with it as `batch`."""
    target = _target()
    finding, batch = kept(target)
    save_batch(batch, tmp_path, "batch")
    return target, finding, batch, tmp_path


def rewritten(folder, tensors=None, **facts):
    """The files with other contents that belong together."""
    data = folder / "batch.safetensors"
    if tensors is not None:
        save_tensors(data, tensors)
    held = json.loads((folder / "batch.json").read_text())
    held["tensors"]["sha256"] = hashlib.sha256(data.read_bytes()).hexdigest()
    write_json(folder / "batch.json", {**held, **facts})


@pytest.mark.parametrize(
    ("count", "changes"),
    [
        (60, {}),
        (60, {"effort": "standard"}),
        (60, {"towards": "yes"}),
        (400, {"stop": WhenNarrow(interval=0.35)}),
    ],
    ids=["quick", "standard", "towards", "stop"],
)
def test_the_reported_accuracy_follows_from_the_files(tmp_path, count, changes):
    target = _target(count=count)
    finding, batch = kept(target, **changes)
    save_batch(batch, tmp_path, "batch")
    again = load_batch(tmp_path, "batch")
    found = reproduced(again, target.model)
    assert found.holds and found.same_weights and not found.changed and not found.outside
    assert found.value == found.reported == finding.value
    assert found.rows == finding.details["rows_tested"]
    assert 0 < finding.value < 1
    for name in ("place", "clean", "attacked", "answer", "margin", "share", "stage", "step"):
        assert torch.equal(getattr(again, name), getattr(batch, name)), name
    assert again.threat == THREAT and again.texts == batch.texts


def test_anyone_can_read_the_files_without_us(files):
    target, finding, _, folder = files
    tensors, _ = load_tensors(folder / "batch.safetensors")
    facts = json.loads((folder / "batch.json").read_text())
    assert tensors["clean"].dtype == tensors["attacked"].dtype == torch.int64
    assert not any(name.startswith("space.") for name in tensors)
    answers = target.model(tensors["attacked"]).argmax(1)
    assert float((answers == tensors["label"]).double().mean()) == finding.value
    clean, place = tensors["clean"], tensors["place"]
    assert torch.equal(clean, target.test["features"][place])
    held = set(tensors["words.token"].tolist())
    assert held == {t for t in clean[clean >= 0].tolist() if VOCABULARY.whole[t]}
    kind = tensors["words.kind"]
    assert torch.equal(kind == 1, VOCABULARY.whole) and torch.equal(kind == 2, VOCABULARY.continues)
    near = dict(zip(tensors["words.token"].tolist(), tensors["words.near"].tolist(), strict=True))
    each = {entry["row"]: entry for entry in finding.details["each"]}
    assert [row["row"] for row in facts["broken"]] == sorted(each)
    for row in facts["broken"]:
        told, i = each[row["row"]], place.tolist().index(row["row"])
        assert (row["step"], row["share"]) == (told["steps"], told["share"])
        assert row["stage"] == "word substitution" and row["label"] != row["answer"]
        assert row["answer"] == target.classes[int(answers[i])]
        before, after = clean[i].tolist(), tensors["attacked"][i].tolist()
        swapped = [
            (TOKENS[one], TOKENS[other])
            for one, other in zip(before, after, strict=True) if one != other
        ]  # fmt: skip
        said = [(part["text"], part["now"]) for part in row["words"] if part["now"] is not None]
        assert said == swapped and swapped
        assert all(TOKENS.index(b) in near[TOKENS.index(a)] for a, b in said)
        whole = " ".join(part["text"] for part in row["words"])
        assert whole == target.text.decode([token for token in before if token >= 0])
    for file in ("batch.safetensors", "batch.json"):
        assert (folder / file).stat().st_mode & 0o777 == 0o600


def test_a_point_outside_the_budget_or_the_candidates_is_named(files):
    target, _, batch, folder = files
    broken = int((batch.stage >= 0).nonzero()[0])
    clean = batch.clean[broken]
    words = VOCABULARY.words(clean[None])[0]
    near = batch.words.choices(clean[None])[0]
    forged = {
        "one word too many": torch.where(words, near[:, 0], clean),
        "a word that is no candidate": clean.clone(),
        "a stop": torch.where(clean == 2, near[words][0, 0], batch.attacked[broken]),
        "a word left out": torch.where(words, -1, batch.attacked[broken]),
    }
    spot = int(words.nonzero()[0])
    forged["a word that is no candidate"][spot] = next(
        t for t in range(5, len(TOKENS)) if t != clean[spot] and t not in near[spot].tolist()
    )
    for what, point in forged.items():
        attacked = batch.attacked.clone()
        attacked[broken] = point
        save_batch(replace(batch, attacked=attacked), folder, "batch")
        found = reproduced(load_batch(folder, "batch"), target.model)
        assert found.outside == (int(batch.place[broken]),), what
        assert not found.holds and "does not allow the points of row" in found.sentence()


@pytest.mark.parametrize("how", ["another word", "one fewer", "a stop", "itself"])
def test_candidates_that_are_not_the_models_own_are_named(files, how):
    target, _, batch, folder = files
    token = int(batch.clean[batch.clean >= 5][0])
    near = batch.words.near.clone()
    left = [t for t in range(5, len(TOKENS)) if t != token and t not in near[token].tolist()]
    near[token, -1] = {"another word": left[0], "one fewer": -1, "a stop": 2, "itself": token}[how]
    save_batch(replace(batch, words=replace(batch.words, near=near)), folder, "batch")
    found = reproduced(load_batch(folder, "batch"), target.model)
    assert found.other_candidates == (token,) and not found.holds
    assert f"the words that may replace token {token} are not" in found.sentence()
    assert found.to_json()["other_candidates"] == [token]
    private = found.sentence(numbers=False)  # a token of private texts is a word of theirs
    assert "the words that may replace 1 token are not" in private and str(token) not in private
    assert found.to_json(numbers=False)["other_candidates"] == []


def test_words_that_lie_equally_near_may_stand_for_each_other():
    """Which of them comes first, or within the floor, is rounding."""
    target = _target()
    with torch.no_grad():
        target.model.table.weight[9:] = torch.tensor([2.0, 0.0, 0.0])  # exactly one direction
    _, batch = kept(target, ball=replace(THREAT, similarity=1.0, candidates=3))
    table, threat = target.model.table.weight, batch.threat
    near, words = batch.words.near, batch.words
    assert not len(threat.unlike(words, table, batch.clean))
    turned = torch.where(near >= 9, 9 + (near - 9 + 1) % 11, near)
    same = turned == torch.arange(len(TOKENS))[:, None]
    turned = torch.where(same, 9 + (turned - 9 + 1) % 11, turned)
    assert not torch.equal(turned, near)
    assert not len(threat.unlike(replace(words, near=turned), table, batch.clean))
    emptied = replace(words, near=torch.full_like(near, -1))
    assert not len(threat.unlike(emptied, table, batch.clean))  # they lie on the floor
    assert len(threat.unlike(replace(words, near=torch.where(near >= 0, 5, near)), table,
                             batch.clean))  # fmt: skip


def test_under_other_weights_figures_and_candidates_may_differ(files):
    target, _, batch, folder = files
    with torch.no_grad():
        target.model.table.weight.copy_(target.model.table.weight.flip(0))
    found = reproduced(load_batch(folder, "batch"), target.model)
    assert not found.same_weights and found.changed
    assert not found.refuted and found.other_candidates == () and found.outside == ()
    assert len(batch.threat.unlike(batch.words, target.model.table.weight, batch.clean))


def test_files_that_do_not_belong_together_or_are_cut_short(files):
    _, _, _, folder = files
    data, facts = folder / "batch.safetensors", folder / "batch.json"
    whole, told = data.read_bytes(), facts.read_text()
    for other in (whole[:-8] + bytes(8), whole[: len(whole) // 2], b""):
        data.write_bytes(other)
        with pytest.raises(FileDamaged, match="is not the one that it was written with"):
            load_batch(folder, "batch")
    data.write_bytes(whole[: len(whole) // 2])
    rewritten(folder)
    with pytest.raises(FileDamaged, match="not a readable safetensors file"):
        load_batch(folder, "batch")
    data.unlink()
    with pytest.raises(FileDamaged, match="cannot be read"):
        load_batch(folder, "batch")
    data.write_bytes(whole)
    facts.write_text(told[: len(told) // 2])
    with pytest.raises(FileDamaged, match="it is not JSON"):
        load_batch(folder, "batch")
    facts.unlink()
    with pytest.raises(RunError, match="holds no adversarial batch"):
        load_batch(folder, "batch")


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": 3},
        {"threat": {"kind": "words", "candidates": 4}},
        {"threat": {"kind": "words", "candidates": 3, "share": 7}},
        {"threat": {"kind": "linf", "radius": 0.1}},
        {"broken": [{"row": 1}]},
        {"broken": [{"row": 1, "words": [{"text": "a"}]}]},
        {"shape": [8]},
    ],
    ids=lambda wrong: json.dumps(wrong)[:40],
)
def test_facts_that_cannot_be_are_refused(files, wrong):
    folder = files[-1]
    rewritten(folder, **wrong)
    with pytest.raises(FileDamaged, match="is not what nacre writes"):
        load_batch(folder, "batch")


@pytest.mark.parametrize(
    "wrong",
    [
        {"words.near": torch.tensor([[99, 1, 2]])},
        {"words.near": torch.tensor([[-2, 1, 2]])},
        {"words.token": torch.tensor([-1])},
        {"words.kind": torch.ones(20, dtype=torch.int64)},
        {"words.kind": torch.ones(4, 5, dtype=torch.uint8)},
        {"clean": torch.zeros(60, 9)},
    ],
    ids=lambda wrong: " ".join(f"{name} {t.dtype} {t.flatten()[0]}" for name, t in wrong.items()),
)
def test_tensors_that_cannot_be_are_refused(files, wrong):
    folder = files[-1]
    tensors, _ = load_tensors(folder / "batch.safetensors")
    few = {"words.token": tensors["words.token"][:1], "words.near": tensors["words.near"][:1]}
    rewritten(folder, {**tensors, **few})
    load_batch(folder, "batch")
    rewritten(folder, {**tensors, **few, **wrong})
    with pytest.raises(FileDamaged, match="is not what nacre writes"):
        load_batch(folder, "batch")


def test_a_batch_of_texts_without_its_candidates_is_refused(files):
    target, _, batch, _ = files
    with pytest.raises(BadArgument, match="needs `words`"):
        reproduced(replace(batch, words=None), target.model)
