"""Whole runs on text, on tiny models: every form of it, resumed, federated, continued, refused."""

import json
import random

import pytest
import torch

from nacre.adversarial_training.collapse import CollapseWatch
from nacre.audit.run import audit_run
from nacre.core.errors import BudgetExceeded, DataError, Incompatible, NacreError, Refusal, RunError
from nacre.core.files import load_tensors, read_json
from nacre.data.text.token_cache import TokenCache
from nacre.models import load
from nacre.models.stock import pretrained
from nacre.planning import words
from nacre.planning.plan import plan
from nacre.planning.refusals import size
from nacre.runs import checkpoint, loop
from nacre.runs.run import finish, open_run, train
from tests.data.tokenizer_folders import decoder, encoder
from tests.models.transformer_folders import folder_of
from tests.training.tiny import CENTRAL, StopAfter, Stopped, recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

LABELLED = CENTRAL | {
    "data": {
        "kind": "text", "path": "reviews.jsonl", "text": "text", "label": "label",
        "classes": ["bad", "good"], "length": 12, "size": 40, "holdout": {"share": 0.2},
    },
    "model": {"kind": "pretrained", "name": "bert"},
    "fine_tuning": {"kind": "lora", "rank": 2},
    "differential_privacy": {"epsilon": 8, "delta": 1.0e-3},
    "training": {"steps": 6, "batch": 8, "checkpoint": 2, "optimizer": {"kind": "adam"}},
    "ledger": {
        "path": "privacy.db", "dataset": "reviews",
        "grant": {"epsilon": 8.1, "delta": 1.0e-3, "rule": "pld"},
    },
}  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """Reviews beside a tiny BERT and a tiny GPT-2, each with its tokenizer."""
    encoder(folder_of("Bert", tmp_path))
    draws = random.Random(0)
    with (tmp_path / "reviews.jsonl").open("w") as file:
        for number in range(50):
            label = draws.choice(["good", "bad"])
            own = draws.choices("abc", k=draws.randrange(4, 8))
            text = " ".join([label, "film", *own])
            row = {"text": text, "label": label, "who": f"p{number // 2}", "score": len(text),
                   "site": "a" if number % 4 < 2 else "b"}  # fmt: skip
            file.write(json.dumps(row) + "\n")
    return tmp_path


def weights(run):
    return load_tensors(run.path / "model.safetensors")[0]


def trained(place, into="run", **changes):
    return train(plan(recipe(place, LABELLED, **changes)), place / into)


def test_a_run_that_was_stopped_ends_with_the_same_weights(place):
    asked = recipe(place, LABELLED)
    with pytest.raises(Stopped):
        train(plan(asked), place / "run", observe=StopAfter(5))
    before = {path.name for path in (place / "run/local").glob("tokens-*")}
    assert len(before) == 1
    run = train(plan(asked, resume=place / "run"), place / "run", resume=True)
    assert {path.name for path in run.folder.local.glob("tokens-*")} == before
    audit_run(open_run(run.path))
    assert not list(run.path.glob("tokens-*"))  # private text stays in local/


def test_kept_tokens_that_were_changed_are_noticed(place):
    """What is read from local/ is checked against the digest of the rows, as files are."""
    asked = recipe(place, LABELLED)
    with pytest.raises(Stopped):
        train(plan(asked), place / "run", observe=StopAfter(5))
    local = place / "run/local"
    (file,) = local.glob("tokens-*")
    tensors, facts = load_tensors(file)
    tensors["features"][0, 1] += 1
    TokenCache(local).put(facts["name"], tensors)
    with pytest.raises(RunError, match="data differ"):
        train(plan(asked, resume=place / "run"), place / "run", resume=True)


def test_finish_reads_text_again(place):
    with pytest.raises(Stopped):
        train(plan(recipe(place, LABELLED)), place / "run", observe=StopAfter(5))
    assert weights(finish(place / "run"))


def test_a_language_model_learns_answers(place):
    decoder(folder_of("GPT2", place))
    # Its vocabulary is 40, so the model starts from its architecture with more tokens.
    config = json.loads((place / "gpt2/config.json").read_text()) | {"vocab_size": 258}
    (place / "gpt2/config.json").write_text(json.dumps(config))
    run = trained(
        place, data__label=None, data__classes=None, data__text=None, data__prompt="text",
        data__completion="label", data__task="causal_lm", data__length=20,
        data__cut="start", fine_tuning__kind="full",
        fine_tuning__rank=None,
        model={"kind": "pretrained", "name": "gpt2", "task": "causal_lm", "from_scratch": True},
        data__public_demonstration=True,
    )  # fmt: skip
    audit_run(run)
    (protected,) = read_json(run.path / "comparison.json")["variants"]
    assert protected["accuracy"] is None
    assert protected["loss"]["low"] < protected["loss"]["value"] < protected["loss"]["high"]


def test_numbers_are_predicted_from_text(place):
    run = trained(place, data__label="score", data__classes=None, data__task="regression",
                  model__task="regression")  # fmt: skip
    assert load(run.path)(torch.tensor([[2, 4, 3, -1]])).shape == (1, 1)


def test_words_are_classified(place):
    said = [["good", "bad"][number % 2] for number in range(50)]
    rows = [{"words": [word, "film"], "tags": ["O", "THING"]} for word in said]
    (place / "words.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = trained(
        place, data__path="words.jsonl", data__text="words", data__label="tags",
        data__classes=["O", "THING"], data__task="token_classification", data__holdout=None,
        model__task="token_classification",
    )  # fmt: skip
    assert load(run.path)(torch.tensor([[2, 4, 3, -1]])).shape == (1, 4, 2)


def test_people_are_units(place):
    run = trained(
        place, data__unit="who", data__size=20,
        differential_privacy={"unit": "group", "rows_per_unit": 2, "epsilon": 8, "delta": 1e-3},
    )  # fmt: skip
    packages = read_json(run.folder.outcome)["provenance"]["packages"]
    assert {"torch", "transformers", "tokenizers", "peft"} <= packages.keys()


def test_texts_of_two_holders(place):
    run = trained(
        place, data__party="site", data__holdout=None,
        federated_learning={
            "parties": {"kind": "column", "column": "site", "sizes": {"a": 24, "b": 24}},
            "rounds": 2, "local": {"steps": 2},
        },
        training={"batch": 12, "optimizer": {"kind": "sgd", "lr": 0.1}},
    )  # fmt: skip
    assert run.folder.outcome.exists()


def test_a_former_run_brings_its_tokenizer(place):
    first = trained(place)
    assert read_json(first.path / "model.json")["tokenizer"]["file"] is None  # kept once, by name
    again = recipe(
        place, LABELLED, model={"kind": "run", "path": "run"}, fine_tuning={"kind": "head"},
        ledger={"path": "other.db", "dataset": "reviews", "grant": LABELLED["ledger"]["grant"]},
    )  # fmt: skip
    (place / "bert").rename(place / "gone")
    second = train(plan(again), place / "second")
    assert weights(second).keys() == weights(first).keys()


def test_pieces_learnt_from_public_text_travel_with_the_model(place):
    (place / "public.jsonl").write_text((place / "reviews.jsonl").read_text())
    bpe = {"kind": "bpe", "vocabulary": 300}
    with pytest.raises(Incompatible, match="300 tokens and the model knows 40"):
        plan(recipe(place, LABELLED, data__tokenizer=bpe, data__public={"path": "public.jsonl"},
                    model__from_scratch=True))  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": {"kind": "mlp"}, "data__tokenizer": {"kind": "bytes"}, "fine_tuning": None},
         "it reads numbers and the data are tokens"),
        ({"data__tokenizer": {"kind": "bytes"}, "model__from_scratch": True},
         "257 tokens and the model knows 40"),
        ({"data__tokenizer": {"kind": "bytes"}}, "would read those of 'bytes' as other words"),
        ({"model__task": "regression"}, "`model.task`: .*regression and .*make both the same"),
        ({"model__task": "causal_lm"}, "`model.task`: .*causal_lm and .*make both the same"),
        ({"data__length": 1}, "`data.length`"),
        ({"data__task": "causal_lm", "data__classes": None}, "`data.label`: .*leave it out"),
        ({"ledger__path": "bert"}, "`ledger.path`: .*bert is a folder, and a ledger is a file"),
        ({"data__path": "reviews.json"}, "`data.path`: .*one JSON object a line"),
        ({"fine_tuning__rank": 25}, "more than the 24 entries of the widest linear layer"),
        ({"fine_tuning__targets": ["q_proj"]}, "'q_proj'; its linear layers end in query, key"),
        ({"model__name": "brt"}, "gives no model 'brt' .*did you mean 'bert'"),
        ({"adversarial_training": {"kind": "madry", "attack": {
            "kind": "pgd", "ball": {"kind": "linf", "radius": 0.1}}}},
         "tokens have no distance; use `kind: freelb`"),
        ({"audit": [{"kind": "evasion", "ball": {"kind": "linf", "radius": 0.1}}]},
         "tokens have no distance"),
        ({"training__augment": {"kind": "copies", "count": 2, "flip": True}}, "augment"),
        ({"model__name": "absent"}, "there is no folder .*absent"),
    ],
)  # fmt: skip
def test_what_does_not_fit_text_is_refused_with_its_line(place, changes, sentence):
    with pytest.raises(NacreError, match=rf"(?s)tiny\.yaml:\d+ .*{sentence}") as told:
        plan(recipe(place, LABELLED, **changes))
    assert told.value.exit_code == 2


@pytest.mark.parametrize("kind", ["freelb", "embedding_pgd"])
def test_embeddings_are_moved_under_privacy_and_without(place, kind):
    """Each row clipped by itself, stopped and resumed; then one backward pass for all of them."""
    option = {"kind": kind, "threat": {"kind": "embedding", "radius": 0.5}, "steps": 2}
    asked = recipe(place, LABELLED, adversarial_training=option)
    assert "inside an L2 ball" in plan(asked).to_json()["techniques"]["adversarial_training"]
    with pytest.raises(Stopped):
        train(plan(asked), place / "run", observe=StopAfter(3))
    run = train(plan(asked, resume=place / "run"), place / "run", resume=True)
    plain = trained(
        place, "plain", adversarial_training=option, differential_privacy=None, ledger=None,
        gradient_clipping=None, data__public_demonstration=True,
    )  # fmt: skip
    for found in (weights(run), weights(plain)):
        assert all(bool(value.isfinite().all()) for value in found.values())


def test_embeddings_of_numbers_are_refused(place):
    option = {"kind": "freelb", "threat": {"kind": "embedding", "radius": 0.5}}
    with pytest.raises(NacreError, match="these rows are numbers; use `kind: madry`"):
        plan(recipe(place, CENTRAL, adversarial_training=option))


@pytest.mark.parametrize("kind", ["full", "head", "bias", "norms", "lora"])
def test_every_choice_of_weights_is_planned_in_words(place, kind):
    told = plan(recipe(place, LABELLED, fine_tuning={"kind": kind})).to_json()
    assert "private rows" in told["techniques"]["fine_tuning"]
    assert any("weights of bert" in said for said in told["assumptions"])


def test_a_folder_without_weights_is_told_of(place):
    (place / "bert/model.safetensors").unlink()
    told = plan(recipe(place, LABELLED, fine_tuning={"kind": "full"})).to_json()
    assert "from random weights, since its folder holds none" in told["model"]["words"]
    assert not any("weights of bert" in said for said in told["assumptions"])


def test_a_column_of_texts_is_refused_with_its_line(place):
    with pytest.raises(DataError, match=r"tiny\.yaml:\d+ `data.text`: .*no column 'body'"):
        trained(place, data__text="body")
    with pytest.raises(DataError, match=r"tiny\.yaml:\d+ `data.label`: .*one of the classes"):
        trained(place, data__classes=["bad", "fine"])
    (place / "public.jsonl").write_text('{"a": 1}')
    with pytest.raises(DataError, match=r"tiny\.yaml:\d+ `data.text`: .*public.jsonl"):
        trained(place, data__public={"path": "public.jsonl"})
    (place / "public.jsonl").write_text("")
    with pytest.raises(DataError, match=r"tiny\.yaml:\d+ `data.public.path`: .*holds no rows"):
        trained(place, data__public={"path": "public.jsonl"})
    assert not (place / "run").exists()
    assert not (place / "privacy.db").exists()


def test_a_row_longer_than_the_model_is_refused(place):
    with pytest.raises(Refusal, match=r"tiny\.yaml:\d+ .* knows 32 positions and a row has 64"):
        plan(recipe(place, LABELLED, data__length=64))


@pytest.mark.parametrize(
    ("family", "known"),
    [("Bert", 32), ("Roberta", 30), ("GPT2", 20), ("DistilBert", 512), ("Llama", None)],
)
def test_the_longest_row_is_the_one_that_still_has_a_position(tmp_path, family, known):
    option = pretrained.Pretrained(name=folder_of(family, tmp_path).name)
    model = pretrained.pretrained(option, 2, tmp_path).eval()
    assert model.positions() == known
    model(torch.full((2, known or 100), 5))
    if known is not None:
        with pytest.raises((RuntimeError, IndexError)):
            model(torch.full((2, known + 1), 5))


def test_a_model_of_text_cannot_read_a_table(place):
    changes = {"model": {"kind": "pretrained", "name": "bert"}}
    with pytest.raises(Refusal, match=r"does not take inputs|it reads tokens"):
        plan(recipe(place, CENTRAL, **changes))


def test_a_model_without_a_tokenizer_needs_one_declared(place):
    with pytest.raises(Refusal, match=r"declare .*tokenizer: \{kind: bytes\}"):
        recipe(place, LABELLED, model={"kind": "mlp"}, fine_tuning=None)


LANGUAGE = LABELLED | {
    "data": {
        "kind": "text", "path": "private.txt", "task": "causal_lm",
        "public": {"path": "public.txt"},
        "tokenizer": {"kind": "bpe", "vocabulary": 280}, "length": 24, "size": 40,
        "canaries": {"count": 8, "template": "{secret}", "digits": 3},
    },
    "model": {"kind": "gpt", "layers": 1, "width": 8, "heads": 2},
    "fine_tuning": {"kind": "full", "pretrain": {"steps": 5, "batch": 8}},
    "gradient_clipping": {"kind": "automatic"},
    "audit": [{"kind": "canaries", "candidates": 15}],
}  # fmt: skip


def test_a_small_model_from_public_text_with_canaries(place):
    (place / "public.txt").write_text("the cat sat on the mat\n" * 30)
    (place / "private.txt").write_text("".join(f"note {i} of mine\n" for i in range(40)))
    run = train(plan(recipe(place, LANGUAGE)), place / "run")
    (finding,) = audit_run(run)
    assert finding.public and finding.audit == "canaries"
    assert finding.details["inserted"] + finding.details["left_out"] == 8
    assert read_json(run.path / "findings.json")["findings"]
    assert read_json(run.path / "model.json")["tokenizer"]["file"]
    again = LANGUAGE["data"] | {"tokenizer": None, "public": None, "canaries": None}
    second = recipe(
        place, LANGUAGE, data=again, model={"kind": "run", "path": "run"}, audit=[],
        fine_tuning={"kind": "full"},
        ledger={"path": "other.db", "dataset": "notes", "grant": LABELLED["ledger"]["grant"]},
    )  # fmt: skip
    assert plan(second).schema.tokens == 280


def test_the_canary_audit_needs_canaries(place):
    with pytest.raises(Incompatible, match=r"the data hold none; add `canaries: \{count: 32\}`"):
        plan(recipe(place, LABELLED, audit=["canaries"]))


def test_a_grant_that_is_too_small_is_told_with_the_line_of_epsilon(place):
    grant = {"epsilon": 1, "delta": 1.0e-3, "rule": "pld"}
    with pytest.raises(BudgetExceeded, match=r"tiny\.yaml:\d+ `diff.*epsilon`: this run asks for"):
        plan(recipe(place, LABELLED, ledger__grant=grant))


def test_the_plan_says_what_its_cost_leaves_out(place):
    (place / "public.jsonl").write_text((place / "reviews.jsonl").read_text())
    changes = {
        "audit": ["membership"], "compare": ["unprotected"], "data__public_demonstration": True,
        "data__public": {"path": "public.jsonl"}, "fine_tuning__pretrain": {"steps": 3},
    }  # fmt: skip
    told = words.not_in_the_cost(recipe(place, LABELLED, **changes))
    assert told == (
        "; on top of it come 3 steps on public rows, an unprotected twin of as many steps, the "
        "audits (membership)"
    )
    assert words.not_in_the_cost(recipe(place, LABELLED)) == ""


@pytest.mark.parametrize(
    ("layers", "kind", "sentence"),
    [
        (10**5, "lora", "use a smaller model$"),
        (10**4, "full", "use a smaller model, or `fine_tuning: {kind: lora}`$"),
    ],
)
def test_a_base_beyond_all_memory_is_refused_before_it_is_built(
    place, monkeypatch, layers, kind, sentence
):
    """Its configuration says how large it is; the folder holds no such weights."""
    config = json.loads((place / "bert/config.json").read_text())
    wide = config | {"hidden_size": 64 * 512, "num_attention_heads": 64,
                     "intermediate_size": layers, "vocab_size": 100_000}  # fmt: skip
    (place / "bert/config.json").write_text(json.dumps(wide))
    monkeypatch.setattr(size, "physical_memory", lambda: 50 * 2**30)
    with pytest.raises(Incompatible, match=rf"tiny\.yaml:\d+ `model`: training .*{sentence}"):
        plan(recipe(place, LABELLED, fine_tuning={"kind": kind}))


def test_the_size_of_a_base_is_told_by_its_configuration(place):
    option = recipe(place, LABELLED).model
    network = pretrained.pretrained(option, 2, place).network
    assert pretrained.parameters(option, 2, place) == sum(p.numel() for p in network.parameters())
    (place / "bert/config.json").write_text("{}")
    assert pretrained.parameters(option, 2, place) == 0


def _collapsing(place):
    """Weight decay that leaves nothing of the weights, so that all texts are answered alike."""
    option = {"kind": "freelb", "threat": {"kind": "embedding", "radius": 0.5}, "steps": 2}
    return recipe(
        place, LABELLED, adversarial_training=option, differential_privacy=None, ledger=None,
        gradient_clipping=None, data__public_demonstration=True, fine_tuning=None,
        training__steps=40, training__checkpoint=1,
        training__optimizer={"kind": "sgd", "lr": 0.5, "weight_decay": 1.0},
    )  # fmt: skip


def test_a_run_that_collapses_ends_and_says_so(place):
    run = train(plan(_collapsing(place)), place / "run")
    facts = read_json(run.path / "outcome.json")
    assert facts["stopped"].startswith("collapsed: the model answers all inputs alike")
    assert facts["done"] < 40


def test_a_run_that_goes_on_knows_what_was_seen_of_its_answers(place, monkeypatch):
    """A watch that began anew would notice a collapse later than a run that was never stopped."""
    begun = []

    class Noted(CollapseWatch):
        def __init__(self, *given):
            super().__init__(*given)
            begun.append(self.seen)

    monkeypatch.setattr(loop, "CollapseWatch", Noted)
    with pytest.raises(Stopped):
        train(plan(_collapsing(place)), place / "run", observe=StopAfter(2))
    kept = checkpoint.read(checkpoint.checkpoints(place / "run" / "state")[-1])[2]["answers"]
    train(plan(_collapsing(place), resume=place / "run"), place / "run", resume=True)
    assert begun == [(False, 0), tuple(kept)]
    assert kept[0]
