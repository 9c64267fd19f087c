"""What the engines are timed on: a model, its batch, and the loss of each unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nacre.core.random import Source
from nacre.core.types import Batch

NAMES = {
    "a": "a small CNN, batch 256",
    "b": "b MLP, batch 512",
    "c": "c MiniLM-size, full",
    "d": "d MiniLM-size, LoRA",
    "e": "e GPT-2 style, tied",
    "f": "f GPT-2 style, untied",
    "o": "o sizes of c, plain encoder",
}


@dataclass(frozen=True)
class Work:
    """A model, its batch, and the loss of each unit."""

    model: nn.Module
    batch: Batch
    losses: Callable[[nn.Module, Batch], Tensor]

    def perturb(self, model: nn.Module, batch: Batch, source: Source) -> Batch:
        """No attack: this is its own objective."""
        return batch

    @property
    def units(self) -> int:
        """The size of the batch."""
        return len(self.batch["unit"])


def workload(name: str, batch: int | None = None, places: int | None = None) -> Work:
    """One of `NAMES`, from the same weights each time."""
    torch.manual_seed(0)
    own = {"a": _cnn, "b": _mlp, "o": _encoder}
    return own.get(name, lambda *sizes: _text(name, *sizes))(batch, places)


def _rows(units: int, **tensors: Tensor) -> Batch:
    return {
        **tensors,
        "present": torch.ones(units, dtype=torch.bool),
        "unit": torch.arange(units),
    }


def _plain(model: nn.Module, batch: Batch) -> Tensor:
    return functional.cross_entropy(model(batch["features"]), batch["label"], reduction="none")


def _cnn(batch: int | None, places: int | None) -> Work:
    units = batch or 256
    model = nn.Sequential(
        nn.Conv2d(1, 16, 8, 2, 3), nn.ReLU(), nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.MaxPool2d(2, 1),
        nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip
    features, label = torch.randn(units, 1, 28, 28), torch.randint(0, 10, (units,))
    return Work(model, _rows(units, features=features, label=label), _plain)


def _mlp(batch: int | None, places: int | None) -> Work:
    units = batch or 512
    model = nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    features, label = torch.randn(units, 784), torch.randint(0, 10, (units,))
    return Work(model, _rows(units, features=features, label=label), _plain)


def deep() -> Work:
    """Nine linear layers, of width 128 but for the last, and 64 rows."""
    torch.manual_seed(0)
    hidden = [layer for _ in range(8) for layer in (nn.Linear(128, 128), nn.ReLU())]
    model = nn.Sequential(*hidden, nn.Linear(128, 10))
    features, label = torch.randn(64, 128), torch.randint(0, 10, (64,))
    return Work(model, _rows(64, features=features, label=label), _plain)


def encoder() -> Work:
    """Two layers of `o`, and four texts of 32 tokens."""
    torch.manual_seed(0)
    return _encoder(4, 32, layers=2)


def _text(name: str, batch: int | None, places: int | None) -> Work:
    import transformers

    transformers.logging.set_verbosity_error()
    if name in "cd":
        units, length = batch or 32, places or 64
        none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12}
        config = transformers.BertConfig(intermediate_size=1536, **sizes, **none)
        model: Any = transformers.BertForSequenceClassification(config).train()
        if name == "d":
            import peft

            chosen = {"target_modules": ["query", "value"], "modules_to_save": ["classifier"]}
            model = peft.get_peft_model(model, peft.LoraConfig(r=8, **chosen))
        ids = torch.randint(0, 30522, (units, length))
        tokens = {"ids": ids, "mask": torch.ones_like(ids), "label": torch.randint(0, 2, (units,))}
        return Work(model, _rows(units, **tokens), classified)
    units, length = batch or 16, places or 128
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = transformers.GPT2Config(
        vocab_size=8192, n_embd=256, n_layer=4, n_head=4, n_positions=length, bos_token_id=0,
        eos_token_id=0, tie_word_embeddings=name == "e", **none,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).train()
    return Work(model, _rows(units, ids=torch.randint(0, 8192, (units, length))), _continued)


def classified(model: nn.Module, batch: Batch) -> Tensor:
    """(B,) cross-entropy of the logits of a classifier of transformers."""
    outputs = model(input_ids=batch["ids"], attention_mask=batch["mask"])
    return functional.cross_entropy(outputs.logits, batch["label"], reduction="none")


def _continued(model: nn.Module, batch: Batch) -> Tensor:
    logits = model(input_ids=batch["ids"]).logits[:, :-1]
    each = functional.cross_entropy(
        logits.flatten(0, 1), batch["ids"][:, 1:].flatten(), reduction="none"
    )
    return each.reshape(len(batch["ids"]), -1).mean(1)


class _Layer(nn.Module):
    """A layer as BERT has it: attention, then two linear layers, each followed by its norm."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.mixed, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)
        self.last = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        parts = [f(x).unflatten(2, (self.heads, -1)) for f in (self.query, self.key, self.value)]
        seen = functional.scaled_dot_product_attention(*(p.transpose(1, 2) for p in parts))
        x = self.norm(x + self.mixed(seen.transpose(1, 2).flatten(2)))
        return self.last(x + self.narrow(functional.gelu(self.wide(x))))


class _Encoder(nn.Module):
    """Token ids (B, T) -> logits (B, 2); every layer is one that Opacus knows."""

    def __init__(self, places: int, layers: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(30522, 384), nn.Embedding(places, 384)
        self.norm = nn.LayerNorm(384)
        self.layers = nn.Sequential(*(_Layer(384, 12, 1536) for _ in range(layers)))
        self.pooler, self.head = nn.Linear(384, 384), nn.Linear(384, 2)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1]).repeat(len(ids), 1)  # by unit, as Opacus needs
        x = self.layers(self.norm(self.words(ids) + self.places(places)))
        return self.head(torch.tanh(self.pooler(x[:, 0])))


def _encoder(batch: int | None, places: int | None, layers: int = 6) -> Work:
    units, length = batch or 32, places or 64
    ids, label = torch.randint(0, 30522, (units, length)), torch.randint(0, 2, (units,))
    return Work(_Encoder(length, layers), _rows(units, features=ids, label=label), _plain)
