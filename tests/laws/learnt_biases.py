"""Networks whose weights are computed from others and then meet the rows of all units: relative
positions added to the scores of attention, learnt slopes, repeated and masked biases."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.laws.network_parts import SIZES, TEXT, Computed, classified, entropy, of, stock, weight

_PAIRED = {"vocab_size": TEXT["vocab_size"], "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2,
           "num_heads": 4, "relative_attention_num_buckets": 8, "classifier_dropout": 0.0,
           "decoder_start_token_id": 0}  # fmt: skip


def _paired(family, *, whole, **sizes):
    """An encoder and a decoder that read a text at its end; without padding where it is whole."""
    model = stock(family, "ForSequenceClassification", **_PAIRED, **sizes)
    model, batch, losses = classified(model)
    batch["ids"][:, -1] = model.config.eos_token_id
    for parameter in (model.classification_head.dense, model.classification_head.out_proj):
        parameter.reset_parameters()  # theirs start so small that nothing is left of a gradient
    if whole:
        batch["mask"] = torch.ones_like(batch["mask"])
    return model, batch, losses


def _pictures(family, **sizes):
    model, batch, _ = of(stock(family, "ForImageClassification", **sizes), 3, 8, 8)
    batch["label"] = batch["label"] % 2
    return model, batch, lambda m, b: entropy(m(pixel_values=b["x"]).logits, b["label"])


def _heads(x):
    """(B, 5, 8) -> (B, 2, 5, 4)"""
    return x.unflatten(2, (2, 4)).transpose(1, 2)


def _away(buckets=4):
    """(5, 5) how far positions lie apart, the last ones alike."""
    line = torch.arange(5)
    return (line[:, None] - line[None]).abs().clamp(max=buckets - 1)


def _attended(bias, **parts):
    """Attention whose scores get a bias of their own, given by a function of the network and the
    input; a head over what comes out."""

    def function(s, x):
        rows = _heads(x)
        mixed = functional.scaled_dot_product_attention(rows, rows, rows, bias(s, x))
        return s.head(mixed.transpose(1, 2).flatten(2).tanh().mean(1))

    return of(Computed(function, head=nn.Linear(8, 3), **parts), 5, 8)


def _added(bias, **parts):
    """The same, added to the scores by hand."""

    def function(s, x):
        rows = _heads(x)
        scores = bias(s, x, rows @ rows.mT / 2)
        return s.head((scores.softmax(-1) @ rows).transpose(1, 2).flatten(2).tanh().mean(1))

    return of(Computed(function, head=nn.Linear(8, 3), **parts), 5, 8)


def _table(s):
    return s.table(_away()).permute(2, 0, 1)[None]


def _causal(s, x):
    seen = torch.ones(5, 5, dtype=torch.bool).tril()
    return torch.where(seen, _table(s), torch.finfo(x.dtype).min).contiguous()


def _rewritten(s, x):
    """What was copied before a write keeps the gradient of before."""
    doubled = s.scale * 2
    copy = doubled.clone()
    doubled.mul_(doubled.detach() + 3)
    return s.head((x * copy + doubled).tanh())


def _both_ways(s, x):
    """A table is looked up by position, scaled, and read as a matrix besides."""
    places = s.table(torch.tensor([0, 1, 1, 2, 0])) * 2
    return s.head((x @ s.table.weight.T @ s.table.weight + places).tanh().mean(1))


def _learnt_mask(s, x):
    return s.head(s.mix(x, x, x, attn_mask=s.mask, need_weights=False)[0].mean(1))


def _sees_nothing(s, x):
    """The first position of each unit sees none, so it gets zeros."""
    seen = torch.ones(5, 5, dtype=torch.bool).tril(-1)
    return torch.where(seen, _table(s), -torch.inf)


def _swin():
    return _pictures("Swin", image_size=8, patch_size=1, embed_dim=4, depths=[2, 1],
                     num_heads=[2, 2], window_size=4, drop_path_rate=0.0)  # fmt: skip


def _beit(**shared):
    return _pictures("Beit", image_size=8, patch_size=4, drop_path_rate=0.0, **shared, **SIZES)


def _apart():
    return nn.Embedding(4, 2)


BIASED = {
    "t5": lambda: _paired("T5", whole=False),
    "t5, without padding": lambda: _paired("T5", whole=True, dropout_rate=0.0),
    "mt5": lambda: _paired("MT5", whole=True, dropout_rate=0.0, feed_forward_proj="gated-gelu"),
    "mpnet": lambda: classified(stock("MPNet", "ForSequenceClassification", **TEXT)),
    "swin": _swin,
    "beit": lambda: _beit(use_relative_position_bias=True),
    "beit, one table": lambda: _beit(use_shared_relative_position_bias=True),
    "bias by distance": lambda: _attended(lambda s, x: _table(s), table=_apart()),
    "bias by distance, causal": lambda: _attended(_causal, table=_apart()),
    "bias by distance, padded": lambda: _attended(
        lambda s, x: _table(s), table=nn.Embedding(4, 2, padding_idx=0)
    ),
    "bias that hides everything": lambda: _attended(_sees_nothing, table=_apart()),
    "bias by distance, used twice": lambda: _added(
        lambda s, x, scores: (scores + _table(s).contiguous()) * _table(s).exp(), table=_apart()
    ),
    "bias that rows hide": lambda: _added(
        lambda s, x, scores: torch.where((x[:, None, :, :1] > 0), _table(s), scores),
        table=_apart(),
    ),
    "bias filled by rows": lambda: _added(
        lambda s, x, scores: scores + _table(s).masked_fill(x[:, None, :, :1] > 0.5, -1.0),
        table=_apart(),
    ),
    "bias repeated": lambda: _added(
        lambda s, x, scores: scores + _table(s).repeat(len(x), 1, 1, 1), table=_apart()
    ),
    "bias expanded": lambda: _added(
        lambda s, x, scores: scores + _table(s).expand(len(x), -1, 5, 5).contiguous(),
        table=_apart(),
    ),
    "bias expanded over heads": lambda: _added(
        lambda s, x, scores: scores + s.each.expand(2, 5, 5), each=weight(1, 5, 1)
    ),
    "bias by index": lambda: _added(
        lambda s, x, scores: scores
        + s.table[(_away() - 1).flatten()].unflatten(0, (5, 5)).permute(2, 0, 1),
        table=weight(4, 2),
    ),
    "learnt slopes": lambda: _attended(
        lambda s, x: -s.slopes.exp()[:, None, None] * _away().to(x), slopes=weight(2)
    ),
    "quotients and powers": lambda: _added(
        lambda s, x, scores: torch.lerp(
            (scores / (1 + s.one.square())[:, None, None]).abs().add(1).pow(s.two[:, None, None]),
            scores, s.three,
        ),
        one=weight(2), two=weight(2), three=weight(5),
    ),
    "sum with a factor": lambda: _added(
        lambda s, x, scores: scores.add(s.one[:, None, None], alpha=2), one=weight(2)
    ),
    "copy before a write": lambda: of(
        Computed(_rewritten, scale=weight(6), head=nn.Linear(6, 3)), 6
    ),
    "table both ways": lambda: of(
        Computed(_both_ways, table=nn.Embedding(3, 8), head=nn.Linear(8, 3)), 5, 8
    ),
    "learnt mask": lambda: of(
        Computed(_learnt_mask, mask=weight(5, 5), head=nn.Linear(8, 3),
                 mix=nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)), 5, 8,
    ),
    "learnt mask, no dropout": lambda: of(
        Computed(_learnt_mask, mask=weight(5, 5), head=nn.Linear(8, 3),
                 mix=nn.MultiheadAttention(8, 2, batch_first=True)), 5, 8,
    ),
}  # fmt: skip
"""Name -> (model, batch, losses)."""
