"""Which weights training moves, and the public base that it starts from."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from nacre.core import require
from nacre.core.errors import Incompatible
from nacre.core.optimizers import Adam, OptimizerOption
from nacre.fine_tuning import adapters
from nacre.fine_tuning.layers import (
    attention_projections,
    heads,
    is_norm,
    linear_layers,
    named,
    submodule,
)
from nacre.models.gpt import Decoder
from nacre.models.stock.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Ordinary training of the whole model on public rows, before any private row is read."""

    steps: int = 200
    """Updates."""
    batch: int = 64
    """Public rows a step; at most as many as there are."""
    optimizer: OptimizerOption = field(default_factory=Adam)
    """What turns a gradient into an update."""
    adversarial: bool = True
    """Use the recipe's adversarial objective here too; without one it makes no difference."""

    def __post_init__(self) -> None:
        require.at_least(1, steps=self.steps, batch=self.batch)


def _trained(what: str, base: Pretrain | None) -> str:
    if base is None:
        return f"{what} the private rows."
    return f"{what} the private rows, from a base trained for {base.steps} steps on public rows."


@dataclass(frozen=True, kw_only=True)
class Full:
    """Every weight moves."""

    kind: Literal["full"] = "full"
    pretrain: Pretrain | None = None
    """The public base; None starts from the model as it is."""

    def sentence(self) -> str:
        """What moves, and from which base."""
        return _trained("All weights are trained on", self.pretrain)

    def prepare(self, model: nn.Module, seed: int) -> nn.Module:
        """The model itself, all of its parameters trainable."""
        return model.requires_grad_(True)


@dataclass(frozen=True, kw_only=True)
class Head:
    """Only the last layer moves: fewest numbers, so least noise under privacy."""

    kind: Literal["head"] = "head"
    module: str = ""
    """The name of the module that moves; empty for the last `nn.Linear`."""
    pretrain: Pretrain | None = None
    """The public base; None starts from the model as it is."""

    def sentence(self) -> str:
        """What moves, and from which base."""
        return _trained("Only the last layer is trained on", self.pretrain)

    def prepare(self, model: nn.Module, seed: int) -> nn.Module:
        """The model itself, with everything fixed but the head.

        Raises `Incompatible` where the model has no such module, or it holds no parameter.
        """
        if not self.module and isinstance(model, Decoder) and model.head is None:
            raise Incompatible(
                "the model answers with the weights that read its tokens, so it has no head of its "
                "own; use `tied: false` under `model`, or `fine_tuning: {kind: lora}`"
            )
        name = self.module or linear_layers(model)[-1]
        head = submodule(model, name)
        if not any(True for _ in head.parameters()):
            raise Incompatible(f"module {name!r} holds no weights to train; name another")
        model.requires_grad_(False)
        head.requires_grad_(True)
        return model


@dataclass(frozen=True, kw_only=True)
class Bias:
    """Only the biases move, and the last layer: as few numbers as adapters have, and no new ones.

    Of a pretrained model the last layer is the classifier that is new; a language model has none.

    Source: Ben Zaken et al. 2022 (BitFit), https://arxiv.org/abs/2106.10199; under privacy, Bu et
    al. 2022, https://arxiv.org/abs/2210.00036.
    """

    kind: Literal["bias"] = "bias"
    pretrain: Pretrain | None = None
    """The public base; None starts from the model as it is."""

    def sentence(self) -> str:
        """What moves, and from which base."""
        return _trained("Only the biases and the last layer are trained on", self.pretrain)

    def prepare(self, model: nn.Module, seed: int) -> nn.Module:
        """The model itself, with everything fixed but its biases and the last layer.

        Raises `Incompatible` where the model has no bias: Llama, Mistral and Qwen 3 have none.
        """
        biases = {name for name, _ in model.named_parameters() if name.rpartition(".")[2] == "bias"}
        if not biases:
            raise Incompatible(
                "`fine_tuning: {kind: bias}` moves the biases of a model and this one has none; "
                "use `kind: norms` or `kind: lora`"
            )
        return _moving(model, biases)


@dataclass(frozen=True, kw_only=True)
class Norms:
    """Only scale and shift of the layers that normalise move, and the last layer.

    Of a pretrained model the last layer is the classifier that is new; a language model has none.

    Source: Zhao et al. 2024, https://arxiv.org/abs/2312.11420.
    """

    kind: Literal["norms"] = "norms"
    pretrain: Pretrain | None = None
    """The public base; None starts from the model as it is."""

    def sentence(self) -> str:
        """What moves, and from which base."""
        return _trained(
            "Only the layers that normalise and the last layer are trained on", self.pretrain
        )

    def prepare(self, model: nn.Module, seed: int) -> nn.Module:
        """The model itself, with everything fixed but its norm layers and the last layer.

        Raises `Incompatible` where no layer normalises by weights of its own.
        """
        scales = {
            f"{place}.{name}" if place else name
            for place, module in model.named_modules()
            if is_norm(module)
            for name, _ in module.named_parameters(recurse=False)
        }
        if not scales:
            raise Incompatible(
                "`fine_tuning: {kind: norms}` moves the weights of layers that normalise and this "
                "model has none; use `kind: lora` or `kind: full`"
            )
        return _moving(model, scales)


def _moving(model: nn.Module, names: set[str]) -> nn.Module:
    """The model with these parameters and its last layer trainable, all others fixed."""
    model.requires_grad_(False)
    for name in heads(model):
        submodule(model, name).requires_grad_(True)
    for name, weights in model.named_parameters():
        if name in names:
            weights.requires_grad_(True)
    return model


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Low-rank adapters beside fixed linear layers: W x becomes W x + (alpha / rank) B A x.

    B starts at zero, so the function is unchanged at first. The new classifier of a pretrained
    model moves as well.

    Source: Hu et al. 2022, https://arxiv.org/abs/2106.09685, equation 3; rsLoRA:
    Kalajdzievski 2023, https://arxiv.org/abs/2312.03732; through PEFT.
    """

    kind: Literal["lora"] = "lora"
    rank: int = 8
    """Rows of A and columns of B."""
    alpha: float = 16.0
    """Strength; the product is scaled by alpha / rank."""
    dropout: float = 0.0
    """Share of the adapter's inputs set to zero while training, in [0, 1)."""
    targets: tuple[str, ...] = ()
    """Linear layers that get an adapter, by their names or by how their names end (`q_proj` for
    that of every layer); empty for the query and the value of a pretrained model's attention, and
    for all but the last linear layer of any other model."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), which keeps the step's size at high ranks."""
    dora: bool = False
    """Learn the length of each adapted layer's rows beside their direction (DoRA, Liu et al. 2024,
    https://arxiv.org/abs/2402.09353)."""
    head: bool = True
    """Train the new classifier of a pretrained model too; without it, it stays random."""
    pretrain: Pretrain | None = None
    """The public base; None starts from the model as it is."""

    def __post_init__(self) -> None:
        require.at_least(1, rank=self.rank)
        require.positive(alpha=self.alpha)
        require.below_one(dropout=self.dropout)

    def sentence(self) -> str:
        """What moves, and from which base."""
        return _trained("Low-rank adapters are trained on; the base stays fixed on", self.pretrain)

    def prepare(self, model: nn.Module, seed: int) -> nn.Module:
        """The model itself with adapters inside, which alone are trainable.

        The forward takes and returns what it did. The same seed gives the same adapters, and
        torch's own generator is left as it was. Raises `Incompatible` where a target does not
        exist or no layer is left for an adapter, `Refusal` where PEFT is not installed.
        """
        model = adapters.inject(
            model,
            targets=self._targets(model),
            rank=self.rank,
            alpha=self.alpha,
            dropout=self.dropout,
            rslora=self.rslora,
            dora=self.dora,
            seed=seed,
        )
        if self.head and isinstance(model, Transformer):
            for name in model.new_head():
                submodule(model, name).requires_grad_(True)
        return model

    def _targets(self, model: nn.Module) -> list[str]:
        if self.targets:
            return list(dict.fromkeys(full for name in self.targets for full in named(model, name)))
        if isinstance(model, Transformer) and (found := attention_projections(model)):
            return found
        return [name for name in linear_layers(model) if name not in heads(model)]


FineTuningOption = Full | Head | Bias | Norms | LoRA
"""Every option that a recipe may name under `fine_tuning`."""

CHOICES = (Full, Head, Bias, Norms, LoRA)
"""Every choice; the tests run over them."""


def prepare(choice: FineTuningOption, model: nn.Module, seed: int) -> nn.Module:
    """The model with the chosen weights trainable and all others fixed; changed in place."""
    return choice.prepare(model, seed)
