"""GCG with its shortcuts against full logits without a cache, and what it may and may not do."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from nacre.adversarial_training.text.gcg import CALL, GCG, SuffixReader, shared_beginnings
from nacre.core.errors import BadArgument, Incompatible
from nacre.core.random import Source
from nacre.models import Pretrained
from nacre.models.stock.pretrained import pretrained
from tests.laws.zoo import snapshot
from tests.models.transformer_folders import folder_of

SOURCE = Source(bytes(32))
PROMPT, SUFFIX, TARGET = torch.tensor([5, 9, 3, 7]), torch.tensor([4, 4, 8]), torch.tensor([6, 2])
families = pytest.mark.parametrize("family", ["GPT2", "Llama"])


def _model(family, place, task="causal_lm"):
    folder_of(family, place)
    torch.manual_seed(0)
    option = Pretrained(name=family.lower(), task=task, from_scratch=True, dropout=0.1)
    model = pretrained(option, 3, Path(place))
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(3)  # what transformers starts with answers almost uniformly
    return model


def _slow(model, suffixes, target=TARGET):
    """Mean cross-entropies from the full logits of whole rows."""
    found = []
    for suffix in suffixes:
        row = torch.cat([PROMPT, suffix, target])
        logits = model(row[None])[0, len(PROMPT) + len(suffix) - 1 : -1]
        found.append(functional.cross_entropy(logits, target))
    return torch.stack(found)


@families
def test_losses_are_those_of_full_logits_without_a_cache(family, tmp_path):
    model = _model(family, tmp_path).eval()
    suffixes = torch.randint(1, model.tokens, (7, 3), generator=torch.Generator().manual_seed(1))
    for target in (TARGET, torch.tensor([6]), torch.tensor([6, 2, 2, 9])):
        reader, slow = SuffixReader(model, PROMPT, target), _slow(model, suffixes, target).detach()
        for width in (1, 3, 7):
            values, _ = reader.scored(suffixes, width)
            torch.testing.assert_close(values, slow, rtol=1e-4, atol=1e-5)
        reader.slopes(suffixes[0])
        for beside in (suffixes[0], suffixes[1]):  # the keys that the slopes left, and new ones
            values, _ = reader.scored(suffixes, 3, beside=beside)
            torch.testing.assert_close(values, slow, rtol=1e-4, atol=1e-5)


def test_a_model_with_a_window_reads_whole_rows(tmp_path):
    """Nothing can be taken back from keys of a window, so nothing is shared."""
    folder = folder_of("Mistral", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"sliding_window": 6}))
    torch.manual_seed(0)
    option = Pretrained(name="mistral", task="causal_lm", from_scratch=True)
    model = pretrained(option, 3, Path(tmp_path)).eval()
    now = torch.arange(10, 14)
    suffixes = now.repeat(3, 1)
    suffixes[0, 2], suffixes[1, 3] = 20, 21
    reader = SuffixReader(model, PROMPT, TARGET)
    assert reader._read(now) is None
    values, _ = reader.scored(suffixes, 3, beside=now)
    torch.testing.assert_close(values, _slow(model, suffixes).detach(), rtol=1e-4, atol=1e-5)


@families
def test_what_is_shared_with_the_suffix_at_hand_is_read_once_and_changes_nothing(family, tmp_path):
    model = _model(family, tmp_path).eval()
    now = torch.arange(10, 18)
    suffixes = now.repeat(25, 1)
    for number in range(24):
        suffixes[number, number % 8] = 18 + number % 20
    suffixes[3, 6] = 33  # two tokens apart
    reader = SuffixReader(model, PROMPT, TARGET)
    asked = []
    hook = model.network.base_model.register_forward_pre_hook(
        lambda module, inputs, given: asked.append(given["input_ids"].numel()), with_kwargs=True
    )
    values, said = reader.scored(suffixes, 5, beside=now)
    alone = sum(asked)
    asked.clear()
    reader.slopes(now)
    after = reader.scored(suffixes, 5, beside=now)
    hook.remove()
    torch.testing.assert_close(after[0], values, rtol=1e-4, atol=1e-5)
    # The slopes read the suffix, and the target without its last token; nothing is read again.
    assert sum(asked) == alone + 1
    slow, whole = reader.scored(suffixes, 25)
    torch.testing.assert_close(values, slow, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values, _slow(model, suffixes).detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(said, whole)
    assert alone < 25 * 10


def test_spans_of_shared_beginnings_cost_least():
    """Against every way to cut the places into spans."""
    draws = torch.Generator().manual_seed(3)
    for _ in range(30):
        first = torch.randint(
            7, (int(torch.randint(1, 40, (1,), generator=draws)),), generator=draws
        )
        length = int(torch.randint(8, 60, (1,), generator=draws))
        spans = shared_beginnings(first, length)
        places = first.unique().tolist()
        assert [p for at, until in spans for p in places if at <= p < until] == places

        def cost(cuts, first=first, length=length):
            return sum(
                CALL + int(((first >= at) & (first < until)).sum()) * (length - at)
                for at, until in cuts
            )

        ways = []
        for chosen in range(2 ** (len(places) - 1)):
            begins = [places[0], *(p for i, p in enumerate(places[1:]) if chosen >> i & 1)]
            ways.append(cost(list(zip(begins, [*begins[1:], places[-1] + 1], strict=True))))
        assert cost(spans) == min(ways)


@families
def test_slopes_are_those_of_one_hot_rows(family, tmp_path):
    model = _model(family, tmp_path).eval()
    table = model.network.get_input_embeddings().weight
    row = torch.cat([PROMPT, SUFFIX, TARGET])
    hot = functional.one_hot(row, len(table)).float().requires_grad_()
    logits = model.network(inputs_embeds=(hot @ table)[None]).logits[0]
    loss = functional.cross_entropy(logits[len(PROMPT) + 2 : -1], TARGET)
    (slow,) = torch.autograd.grad(loss, hot)
    seen = SuffixReader(model, PROMPT, TARGET).slopes(SUFFIX)
    torch.testing.assert_close(seen, slow[len(PROMPT) : len(PROMPT) + 3], rtol=1e-3, atol=1e-5)


@families
def test_a_search_finds_what_it_says_and_leaves_the_model(family, tmp_path):
    model = _model(family, tmp_path).train()
    before, allowed = snapshot(model), torch.ones(model.tokens, dtype=torch.bool)
    allowed[10:20] = False
    search = GCG(steps=6, top=8, trials=12, width=5)
    found = search(model, PROMPT, SUFFIX, TARGET, allowed, SOURCE)
    assert snapshot(model) == before
    again = search(model, PROMPT, SUFFIX, TARGET, allowed, SOURCE)
    assert torch.equal(found.suffix, again.suffix)
    assert found.losses == again.losses
    model.eval()
    start, end = _slow(model, [SUFFIX, found.suffix]).tolist()
    assert end == pytest.approx(found.loss, rel=1e-4)
    assert end < start
    assert found.loss == min(found.losses)
    assert bool(allowed[found.suffix].all())
    assert found.forwards <= 1 + 6 * 12


def test_replacements_are_single_favoured_and_drawn_once(tmp_path):
    model = _model("GPT2", tmp_path).eval()
    allowed = torch.ones(model.tokens, dtype=torch.bool)
    allowed[:30] = False
    reader = SuffixReader(model, PROMPT, TARGET)
    tried = GCG(top=2, trials=200).drawn(reader, SUFFIX, allowed, SOURCE)
    assert len(tried) == 3 * 2  # of 200 draws
    assert ((tried != SUFFIX).sum(1) == 1).all()
    slopes = reader.slopes(SUFFIX)
    for row in tried:
        place = int((row != SUFFIX).nonzero())
        rank = (slopes[place, 30:] < slopes[place, row[place]]).sum()
        assert int(row[place]) >= 30
        assert int(rank) < 2


def test_nothing_to_replace_ends_the_search(tmp_path):
    model = _model("GPT2", tmp_path)
    allowed = torch.zeros(model.tokens, dtype=torch.bool)
    allowed[4] = True
    suffix = torch.tensor([4, 4])
    found = GCG(steps=3)(model, PROMPT, suffix, TARGET, allowed, SOURCE)
    assert torch.equal(found.suffix, suffix)
    assert found.losses == ()


def test_what_is_missing_or_no_writer_is_refused(tmp_path):
    model = _model("GPT2", tmp_path)
    allowed, none = torch.ones(model.tokens, dtype=torch.bool), torch.zeros(0, dtype=torch.int64)
    for parts in ((none, SUFFIX, TARGET), (PROMPT, none, TARGET), (PROMPT, SUFFIX, none)):
        with pytest.raises(Incompatible, match="at least one token of each"):
            GCG()(model, *parts, allowed, SOURCE)
    with pytest.raises(Incompatible, match="at least one token of each"):
        GCG()(model, PROMPT, SUFFIX, TARGET, ~allowed, SOURCE)
    with pytest.raises(BadArgument, match="trials=0"):
        GCG(trials=0)
    reader = _model("GPT2", tmp_path, task="classification")
    with pytest.raises(Incompatible, match="answers classification"):
        GCG()(reader, PROMPT, SUFFIX, TARGET, allowed, SOURCE)
