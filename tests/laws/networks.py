"""Networks that a tape of operations has to follow: stock classes, and models that break naive
tapes. Each comes with a batch whose units differ in length, and its losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from nacre.core.random import seed_torch
from nacre.core.types import Batch

B, T, VOCABULARY = 4, 7, 50


@dataclass(frozen=True)
class Objective:
    """The losses of a network as an objective without attack."""

    function: Callable[[nn.Module, Batch], torch.Tensor]

    def perturb(self, model, batch, source):
        return batch

    def losses(self, model, batch):
        return self.function(model, batch)


class Computed(nn.Module):
    """A network from its parts and a function of them and the input."""

    def __init__(self, function, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def _units():
    return {"present": torch.ones(B, dtype=torch.bool), "unit": 7 * torch.arange(B) + 3}


def _tokens():
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([7, 4, 6, 2])
    return {
        "ids": torch.randint(3, VOCABULARY, (B, T), generator=generator),
        "mask": (torch.arange(T)[None] < lengths[:, None]).long(),
        "label": torch.randint(0, 2, (B,), generator=generator),
    } | _units()


def _entropy(outputs, label):
    return functional.cross_entropy(outputs, label, reduction="none")


def _classified(model):
    def losses(model, batch):
        outputs = model(input_ids=batch["ids"], attention_mask=batch["mask"])
        return _entropy(outputs.logits, batch["label"])

    return model, _tokens(), losses


def _continued(model):
    """Causal language modelling: the mean over each unit's own tokens."""

    def losses(model, batch):
        outputs = model(input_ids=batch["ids"], attention_mask=batch["mask"])
        counted = batch["mask"][:, 1:].to(outputs.logits.dtype)
        each = _entropy(outputs.logits[:, :-1].mT, batch["ids"][:, 1:])
        return (each * counted).sum(1) / counted.sum(1)

    return model, _tokens(), losses


def _of(model, *shape):
    generator = torch.Generator().manual_seed(2)
    batch = {
        "x": torch.randn(B, *shape, generator=generator),
        "label": torch.randint(0, 3, (B,), generator=generator),
    } | _units()
    return model, batch, lambda model, batch: _entropy(model(batch["x"]), batch["label"])


def _looked_up(model, padded):
    batch = _tokens()
    batch["x"] = batch["ids"] * batch["mask"] if padded else batch["ids"]

    def losses(model, batch):
        outputs = model(batch["x"])
        return _entropy(outputs.mean(1) if outputs.dim() == 3 else outputs, batch["label"])

    return model, batch, losses


def _padding_alone():
    """Every token is one that the table has no gradient for."""
    table = nn.Embedding(VOCABULARY, 6, padding_idx=0)
    model, batch, losses = _looked_up(nn.Sequential(table, nn.Tanh(), nn.Linear(6, 3)), padded=True)
    return model, batch | {"x": torch.zeros_like(batch["x"])}, losses


_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
          "intermediate_size": 24}  # fmt: skip
_TEXT = _SIZES | {"vocab_size": VOCABULARY}
_DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
_GPT = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 20,
        "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip
_DISTIL = {"vocab_size": VOCABULARY, "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24}


def _stock(family, kind, **sizes):
    import transformers

    config = getattr(transformers, f"{family}Config")(**sizes)
    return getattr(transformers, f"{family}{kind}")(config)


def _adapted(model, targets, **options):
    import peft

    config = peft.LoraConfig(r=2, target_modules=targets, **options)
    return peft.get_peft_model(model, config)


def _vit():
    model = _stock("ViT", "ForImageClassification", image_size=8, patch_size=4, **_SIZES)
    model, batch, _ = _of(model, 3, 8, 8)
    batch["label"] = batch["label"] % 2
    return model, batch, lambda m, b: _entropy(m(pixel_values=b["x"]).logits, b["label"])


def _llama():
    return _stock("Llama", "ForCausalLM", num_key_value_heads=2, **_TEXT)


def _weight_norm():
    from torch.nn.utils.parametrizations import weight_norm

    return nn.Sequential(weight_norm(nn.Linear(6, 5)), nn.Tanh(), nn.Linear(5, 3))


def _weight(*shape):
    return nn.Parameter(torch.randn(shape))


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
    model = _stock("Bert", "ForSequenceClassification", **_TEXT, **_DROPOUT)
    return _adapted(model, ["query", "value"], lora_dropout=0.1)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Batch, Callable[..., torch.Tensor]]]] = {
    "bert": lambda: _classified(_stock("Bert", "ForSequenceClassification", **_TEXT, **_DROPOUT)),
    "roberta": lambda: _classified(
        _stock("Roberta", "ForSequenceClassification", max_position_embeddings=20, **_TEXT)
    ),
    "distilbert": lambda: _classified(
        _stock("DistilBert", "ForSequenceClassification", **_DISTIL)
    ),
    "vit": _vit,
    "gpt2, tied": lambda: _continued(_stock("GPT2", "LMHeadModel", **_GPT)),
    "gpt2, untied": lambda: _continued(
        _stock("GPT2", "LMHeadModel", tie_word_embeddings=False, **_GPT)
    ),
    "llama": lambda: _continued(_llama()),
    "qwen2": lambda: _continued(_stock("Qwen2", "ForCausalLM", num_key_value_heads=2, **_TEXT)),
    "qwen3": lambda: _continued(
        _stock("Qwen3", "ForCausalLM", num_key_value_heads=2, head_dim=4, **_TEXT)
    ),
    "mistral": lambda: _continued(
        _stock("Mistral", "ForCausalLM", num_key_value_heads=2, sliding_window=3, **_TEXT)
    ),
    "bert, lora": lambda: _classified(_lora_bert()),
    "gpt2, lora": lambda: _continued(
        _adapted(_stock("GPT2", "LMHeadModel", **_GPT), ["c_attn"], fan_in_fan_out=True)
    ),
    "llama, lora": lambda: _continued(_adapted(_llama(), ["q_proj", "v_proj"])),
    "llama, dora": lambda: _continued(_adapted(_llama(), ["q_proj", "v_proj"], use_dora=True)),
    "attention": lambda: _of(
        Computed(
            _attention,
            mix=nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True),
            head=nn.Linear(8, 3),
        ), 5, 8,
    ),
    "attention, position-major": lambda: _of(
        Computed(_position_major, mix=nn.MultiheadAttention(8, 2), head=nn.Linear(8, 3)), 5, 8
    ),
    "encoder layer": lambda: _of(
        Computed(lambda s, x: s.head(s.mix(x)[:, 0]), mix=_encoder(0.1), head=nn.Linear(8, 3)),
        5, 8,
    ),
    "lstm": lambda: _of(
        Computed(
            lambda s, x: s.head(s.cells(x)[0].mean(1)),
            cells=nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True, dropout=0.2),
            head=nn.Linear(10, 3),
        ), 6, 4,
    ),
    "lstm with projection": lambda: _of(
        Computed(
            lambda s, x: s.head(s.cells(x)[0][:, -1]),
            cells=nn.LSTM(4, 5, batch_first=True, proj_size=3),
            head=nn.Linear(3, 3),
        ), 6, 4,
    ),
    "gru": lambda: _of(
        Computed(
            lambda s, x: s.head(s.cells(x)[1][0]),
            cells=nn.GRU(4, 5, batch_first=True),
            head=nn.Linear(5, 3),
        ), 6, 4,
    ),
    "rnn": lambda: _of(
        Computed(
            lambda s, x: s.head(s.cells(x.transpose(0, 1))[1][0]),
            cells=nn.RNN(4, 5),
            head=nn.Linear(5, 3),
        ), 6, 4,
    ),
    "rnn, relu": lambda: _of(
        Computed(
            lambda s, x: s.head(s.cells(x)[1][0]),
            cells=nn.RNN(4, 5, nonlinearity="relu", bias=False, batch_first=True),
            head=nn.Linear(5, 3),
        ), 6, 4,
    ),
    "convolutions of series": lambda: _of(_series(), 2, 7),
    "convolutions of images": lambda: _of(_image(), 2, 6, 6),
    "convolution in space": lambda: _of(
        nn.Sequential(nn.Conv3d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3)), 1, 3, 3, 3
    ),
    "transposed convolutions": lambda: _of(
        nn.Sequential(
            nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1),
            nn.Tanh(),
            nn.ConvTranspose2d(4, 4, 2, groups=2),
            nn.Flatten(),
            nn.Linear(324, 3),
        ), 2, 4, 4,
    ),
    "rms norm": lambda: _of(
        nn.Sequential(nn.Linear(6, 6), nn.RMSNorm(6), nn.Linear(6, 3)), 6
    ),
    "weight norm": lambda: _of(_weight_norm(), 6),
    "bilinear": lambda: _of(Computed(lambda s, x: s.form(x, x), form=nn.Bilinear(6, 6, 3)), 6),
    "einsum": lambda: _of(
        Computed(lambda s, x: torch.einsum("bi,ijk,bj->bk", x, s.form, x), form=_weight(6, 6, 3)),
        6,
    ),
    "prelu": lambda: _of(nn.Sequential(nn.Linear(6, 6), nn.PReLU(6), nn.Linear(6, 3)), 6),
    "experts": lambda: _of(
        Computed(
            lambda s, x: (torch.bmm(x.expand(2, *x.shape), s.each) + s.shift[:, None]).sum(0),
            each=_weight(2, 6, 3),
            shift=_weight(2, 3),
        ), 6,
    ),
    "class token": lambda: _of(
        Computed(
            _class_token, token=_weight(1, 1, 8), places=_weight(1, 6, 8), mix=_encoder(0.0),
            head=nn.Linear(8, 3),
        ), 5, 8,
    ),
    "transposed weight": lambda: _of(
        Computed(
            lambda s, x: (x @ s.enter.T).tanh() @ s.leave / 2 - s.shift,
            enter=_weight(5, 6),
            leave=_weight(5, 3),
            shift=_weight(3),
        ), 6,
    ),
    "one weight both ways": lambda: _of(
        Computed(
            lambda s, x: s.head((functional.linear(x, s.both).tanh() @ s.both).tanh()),
            both=_weight(5, 6),
            head=nn.Linear(6, 3),
        ), 6,
    ),
    "fused projections": lambda: _of(
        Computed(_fused, weight=_weight(12, 4), head=nn.Linear(4, 3)), 5, 4
    ),
    "learnt query": lambda: _of(
        Computed(
            lambda s, x: s.head(functional.scaled_dot_product_attention(s.query, x, x)[:, 0]),
            query=_weight(1, 2, 8),
            head=nn.Linear(8, 3),
        ), 5, 8,
    ),
    "shared output gradients": lambda: _of(
        Computed(
            lambda s, x: s.head(s.a(x) + s.b(x) + s.scale * x),
            a=nn.Linear(6, 6),
            b=nn.Linear(6, 6),
            scale=_weight(),
            head=nn.Linear(6, 3),
        ), 6,
    ),
    "dropout first": lambda: _of(nn.Sequential(nn.Dropout(0.4), nn.Linear(6, 3)), 6),
    "bag of words": lambda: _looked_up(nn.EmbeddingBag(VOCABULARY, 3), padded=False),
    "rows one by one": lambda: _of(
        Computed(lambda s, x: torch.stack([s.row(r) for r in x]), row=nn.Linear(6, 3)), 6
    ),
    "convolution of a derived weight": lambda: _of(
        # so many channels for so few places that norms are taken by Gram matrices
        Computed(
            lambda s, x: functional.conv2d(x, s.kernel.clone()).mean((2, 3)),
            kernel=_weight(3, 64, 3, 3),
        ), 64, 4, 4,
    ),
    "convolution of a viewed weight": lambda: _of(
        Computed(
            lambda s, x: functional.conv2d(x, s.flat.view(3, 2, 3, 3)).mean((2, 3)),
            flat=_weight(3, 18),
        ), 2, 6, 6,
    ),
    "transposed with itself": lambda: _of(
        Computed(lambda s, x: s.head(x @ s.both.transpose(0, 0)), both=_weight(6, 6),
                 head=nn.Linear(6, 3)), 6
    ),
    "padding alone": _padding_alone,
    "padding index": lambda: _looked_up(
        nn.Sequential(nn.Embedding(VOCABULARY, 6, padding_idx=0), nn.Tanh(), nn.Linear(6, 3)),
        padded=True,
    ),
    "cancelling positions": lambda: _of(
        Computed(_cancelling, inner=nn.Linear(6, 6), head=nn.Linear(6, 3)), 6
    ),
}  # fmt: skip
"""Name -> (model, batch, losses)."""


def network(name: str, kind: torch.dtype = torch.float32):
    """The network in training mode, its batch and its objective; the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(3)
        model, batch, losses = NETWORKS[name]()
    batch = {k: v.to(kind) if v.is_floating_point() else v for k, v in batch.items()}
    return model.to(kind).train(), batch, Objective(losses)
