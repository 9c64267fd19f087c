"""What networks of the laws are made of: their batches, losses and layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

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


def units():
    return {"present": torch.ones(B, dtype=torch.bool), "unit": 7 * torch.arange(B) + 3}


def tokens():
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([7, 4, 6, 2])
    return {
        "ids": torch.randint(3, VOCABULARY, (B, T), generator=generator),
        "mask": (torch.arange(T)[None] < lengths[:, None]).long(),
        "label": torch.randint(0, 2, (B,), generator=generator),
    } | units()


def entropy(outputs, label):
    return functional.cross_entropy(outputs, label, reduction="none")


def classified(model):
    def losses(model, batch):
        outputs = model(input_ids=batch["ids"], attention_mask=batch["mask"])
        return entropy(outputs.logits, batch["label"])

    return model, tokens(), losses


def continued(model):
    """Causal language modelling: the mean over each unit's own tokens."""

    def losses(model, batch):
        outputs = model(input_ids=batch["ids"], attention_mask=batch["mask"])
        counted = batch["mask"][:, 1:].to(outputs.logits.dtype)
        each = entropy(outputs.logits[:, :-1].mT, batch["ids"][:, 1:])
        return (each * counted).sum(1) / counted.sum(1)

    return model, tokens(), losses


def of(model, *shape):
    generator = torch.Generator().manual_seed(2)
    batch = {
        "x": torch.randn(B, *shape, generator=generator),
        "label": torch.randint(0, 3, (B,), generator=generator),
    } | units()
    return model, batch, lambda model, batch: entropy(model(batch["x"]), batch["label"])


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
          "intermediate_size": 24}  # fmt: skip
TEXT = SIZES | {"vocab_size": VOCABULARY}


def stock(family, kind, **sizes):
    import transformers

    config = getattr(transformers, f"{family}Config")(**sizes)
    return getattr(transformers, f"{family}{kind}")(config)


def weight(*shape):
    return nn.Parameter(torch.randn(shape))
