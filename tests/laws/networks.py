"""Networks that a tape of operations has to follow: stock classes, and models that break naive
tapes. Each comes with a batch whose units differ in length, and its losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from nacre.core.random import seed_torch
from nacre.core.types import Batch
from tests.laws.learnt_biases import BIASED
from tests.laws.network_parts import (
    SIZES,
    TEXT,
    VOCABULARY,
    Computed,
    Objective,
    classified,
    continued,
    entropy,
    of,
    stock,
    tokens,
    weight,
)


def _looked_up(model, padded):
    batch = tokens()
    batch["x"] = batch["ids"] * batch["mask"] if padded else batch["ids"]

    def losses(model, batch):
        outputs = model(batch["x"])
        return entropy(outputs.mean(1) if outputs.dim() == 3 else outputs, batch["label"])

    return model, batch, losses


def _padding_alone():
    """Every token is one that the table has no gradient for."""
    table = nn.Embedding(VOCABULARY, 6, padding_idx=0)
    model, batch, losses = _looked_up(nn.Sequential(table, nn.Tanh(), nn.Linear(6, 3)), padded=True)
    return model, batch | {"x": torch.zeros_like(batch["x"])}, losses


_DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
_GPT = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 20,
        "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip
_DISTIL = {"vocab_size": VOCABULARY, "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24}


def _adapted(model, targets, **options):
    import peft

    config = peft.LoraConfig(r=2, target_modules=targets, **options)
    return peft.get_peft_model(model, config)


def _vit():
    model = stock("ViT", "ForImageClassification", image_size=8, patch_size=4, **SIZES)
    model, batch, _ = of(model, 3, 8, 8)
    batch["label"] = batch["label"] % 2
    return model, batch, lambda m, b: entropy(m(pixel_values=b["x"]).logits, b["label"])


def _llama():
    return stock("Llama", "ForCausalLM", num_key_value_heads=2, **TEXT)


def _weight_norm():
    from torch.nn.utils.parametrizations import weight_norm

    return nn.Sequential(weight_norm(nn.Linear(6, 5)), nn.Tanh(), nn.Linear(5, 3))


def _attention(s, x):
    return s.head(s.mix(x, x, x)[0].mean(1))


def _position_major(s, x):
    turned = x.transpose(0, 1)
    return s.head(s.mix(turned, turned, turned)[0][0])


def _image():
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding="same"),
        nn.InstanceNorm2d(6, affine=True),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.3),
        nn.Conv2d(6, 4, (3, 2), stride=(2, 1)),
        nn.Flatten(),
        nn.Linear(40, 3),
    )


def _series():
    return nn.Sequential(
        nn.Conv1d(2, 6, 3, padding=1),
        nn.GroupNorm(2, 6),
        nn.ReLU(inplace=True),
        nn.Conv1d(6, 4, 3, groups=2, dilation=2),
        nn.Flatten(),
        nn.Linear(12, 3),
    )


def _class_token(s, x):
    first = s.token.expand(x.shape[0], -1, -1)
    return s.head(s.mix(torch.cat([first, x], 1) + s.places)[:, 0])


def _fused(s, x):
    query, key, value = (functional.linear(x, w) for w in s.weight.chunk(3))
    return s.head(functional.scaled_dot_product_attention(query, key, value)[:, 0])


def _cancelling(s, x):
    """Positions whose contributions nearly cancel: the norm of their sum is 1e-3 of its terms."""
    pair = torch.stack([x, x + 1e-3 * x.roll(1, -1)], 1)
    hidden = s.inner(pair.repeat_interleave(20, 1))
    return s.head(hidden[:, ::20].sum(1) * 0 + hidden[:, 0] - hidden[:, 39])


def _encoder(dropout):
    return nn.TransformerEncoderLayer(8, 2, 16, dropout, batch_first=True)


def _lora_bert():
    model = stock("Bert", "ForSequenceClassification", **TEXT, **_DROPOUT)
    return _adapted(model, ["query", "value"], lora_dropout=0.1)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Batch, Callable[..., torch.Tensor]]]] = {
    "bert": lambda: classified(stock("Bert", "ForSequenceClassification", **TEXT, **_DROPOUT)),
    "roberta": lambda: classified(
        stock("Roberta", "ForSequenceClassification", max_position_embeddings=20, **TEXT)
    ),
    "distilbert": lambda: classified(
        stock("DistilBert", "ForSequenceClassification", **_DISTIL)
    ),
    "vit": _vit,
    "gpt2, tied": lambda: continued(stock("GPT2", "LMHeadModel", **_GPT)),
    "gpt2, untied": lambda: continued(
        stock("GPT2", "LMHeadModel", tie_word_embeddings=False, **_GPT)
    ),
    "llama": lambda: continued(_llama()),
    "qwen2": lambda: continued(stock("Qwen2", "ForCausalLM", num_key_value_heads=2, **TEXT)),
    "qwen3": lambda: continued(
        stock("Qwen3", "ForCausalLM", num_key_value_heads=2, head_dim=4, **TEXT)
    ),
    "mistral": lambda: continued(
        stock("Mistral", "ForCausalLM", num_key_value_heads=2, sliding_window=3, **TEXT)
    ),
    "bert, lora": lambda: classified(_lora_bert()),
    "gpt2, lora": lambda: continued(
        _adapted(stock("GPT2", "LMHeadModel", **_GPT), ["c_attn"], fan_in_fan_out=True)
    ),
    "llama, lora": lambda: continued(_adapted(_llama(), ["q_proj", "v_proj"])),
    "llama, dora": lambda: continued(_adapted(_llama(), ["q_proj", "v_proj"], use_dora=True)),
    "attention": lambda: of(
        Computed(
            _attention,
            mix=nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True),
            head=nn.Linear(8, 3),
        ), 5, 8,
    ),
    "attention, position-major": lambda: of(
        Computed(_position_major, mix=nn.MultiheadAttention(8, 2), head=nn.Linear(8, 3)), 5, 8
    ),
    "encoder layer": lambda: of(
        Computed(lambda s, x: s.head(s.mix(x)[:, 0]), mix=_encoder(0.1), head=nn.Linear(8, 3)),
        5, 8,
    ),
    "lstm": lambda: of(
        Computed(
            lambda s, x: s.head(s.cells(x)[0].mean(1)),
            cells=nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True, dropout=0.2),
            head=nn.Linear(10, 3),
        ), 6, 4,
    ),
    "lstm with projection": lambda: of(
        Computed(
            lambda s, x: s.head(s.cells(x)[0][:, -1]),
            cells=nn.LSTM(4, 5, batch_first=True, proj_size=3),
            head=nn.Linear(3, 3),
        ), 6, 4,
    ),
    "gru": lambda: of(
        Computed(
            lambda s, x: s.head(s.cells(x)[1][0]),
            cells=nn.GRU(4, 5, batch_first=True),
            head=nn.Linear(5, 3),
        ), 6, 4,
    ),
    "rnn": lambda: of(
        Computed(
            lambda s, x: s.head(s.cells(x.transpose(0, 1))[1][0]),
            cells=nn.RNN(4, 5),
            head=nn.Linear(5, 3),
        ), 6, 4,
    ),
    "rnn, relu": lambda: of(
        Computed(
            lambda s, x: s.head(s.cells(x)[1][0]),
            cells=nn.RNN(4, 5, nonlinearity="relu", bias=False, batch_first=True),
            head=nn.Linear(5, 3),
        ), 6, 4,
    ),
    "convolutions of series": lambda: of(_series(), 2, 7),
    "convolutions of images": lambda: of(_image(), 2, 6, 6),
    "convolution in space": lambda: of(
        nn.Sequential(nn.Conv3d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3)), 1, 3, 3, 3
    ),
    "transposed convolutions": lambda: of(
        nn.Sequential(
            nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1),
            nn.Tanh(),
            nn.ConvTranspose2d(4, 4, 2, groups=2),
            nn.Flatten(),
            nn.Linear(324, 3),
        ), 2, 4, 4,
    ),
    "rms norm": lambda: of(
        nn.Sequential(nn.Linear(6, 6), nn.RMSNorm(6), nn.Linear(6, 3)), 6
    ),
    "weight norm": lambda: of(_weight_norm(), 6),
    "bilinear": lambda: of(Computed(lambda s, x: s.form(x, x), form=nn.Bilinear(6, 6, 3)), 6),
    "einsum": lambda: of(
        Computed(lambda s, x: torch.einsum("bi,ijk,bj->bk", x, s.form, x), form=weight(6, 6, 3)),
        6,
    ),
    "prelu": lambda: of(nn.Sequential(nn.Linear(6, 6), nn.PReLU(6), nn.Linear(6, 3)), 6),
    "experts": lambda: of(
        Computed(
            lambda s, x: (torch.bmm(x.expand(2, *x.shape), s.each) + s.shift[:, None]).sum(0),
            each=weight(2, 6, 3),
            shift=weight(2, 3),
        ), 6,
    ),
    "class token": lambda: of(
        Computed(
            _class_token, token=weight(1, 1, 8), places=weight(1, 6, 8), mix=_encoder(0.0),
            head=nn.Linear(8, 3),
        ), 5, 8,
    ),
    "transposed weight": lambda: of(
        Computed(
            lambda s, x: (x @ s.enter.T).tanh() @ s.leave / 2 - s.shift,
            enter=weight(5, 6),
            leave=weight(5, 3),
            shift=weight(3),
        ), 6,
    ),
    "one weight both ways": lambda: of(
        Computed(
            lambda s, x: s.head((functional.linear(x, s.both).tanh() @ s.both).tanh()),
            both=weight(5, 6),
            head=nn.Linear(6, 3),
        ), 6,
    ),
    "fused projections": lambda: of(
        Computed(_fused, weight=weight(12, 4), head=nn.Linear(4, 3)), 5, 4
    ),
    "learnt query": lambda: of(
        Computed(
            lambda s, x: s.head(functional.scaled_dot_product_attention(s.query, x, x)[:, 0]),
            query=weight(1, 2, 8),
            head=nn.Linear(8, 3),
        ), 5, 8,
    ),
    "shared output gradients": lambda: of(
        Computed(
            lambda s, x: s.head(s.a(x) + s.b(x) + s.scale * x),
            a=nn.Linear(6, 6),
            b=nn.Linear(6, 6),
            scale=weight(),
            head=nn.Linear(6, 3),
        ), 6,
    ),
    "dropout first": lambda: of(nn.Sequential(nn.Dropout(0.4), nn.Linear(6, 3)), 6),
    "bag of words": lambda: _looked_up(nn.EmbeddingBag(VOCABULARY, 3), padded=False),
    "rows one by one": lambda: of(
        Computed(lambda s, x: torch.stack([s.row(r) for r in x]), row=nn.Linear(6, 3)), 6
    ),
    "convolution of a derived weight": lambda: of(
        # so many channels for so few places that norms are taken by Gram matrices
        Computed(
            lambda s, x: functional.conv2d(x, s.kernel.clone()).mean((2, 3)),
            kernel=weight(3, 64, 3, 3),
        ), 64, 4, 4,
    ),
    "convolution of a viewed weight": lambda: of(
        Computed(
            lambda s, x: functional.conv2d(x, s.flat.view(3, 2, 3, 3)).mean((2, 3)),
            flat=weight(3, 18),
        ), 2, 6, 6,
    ),
    "transposed with itself": lambda: of(
        Computed(lambda s, x: s.head(x @ s.both.transpose(0, 0)), both=weight(6, 6),
                 head=nn.Linear(6, 3)), 6
    ),
    "padding alone": _padding_alone,
    "padding index": lambda: _looked_up(
        nn.Sequential(nn.Embedding(VOCABULARY, 6, padding_idx=0), nn.Tanh(), nn.Linear(6, 3)),
        padded=True,
    ),
    "cancelling positions": lambda: of(
        Computed(_cancelling, inner=nn.Linear(6, 6), head=nn.Linear(6, 3)), 6
    ),
} | BIASED  # fmt: skip
"""Name -> (model, batch, losses)."""


def network(name: str, kind: torch.dtype = torch.float32):
    """The network in training mode, its batch and its objective; the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(3)
        model, batch, losses = NETWORKS[name]()
    batch = {k: v.to(kind) if v.is_floating_point() else v for k, v in batch.items()}
    return model.to(kind).train(), batch, Objective(losses)
