"""A stock transformer behind one tensor of inputs, and what a finished run keeps of it."""

# Parts of transformers and torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nacre.core.errors import BadArgument
from nacre.core.types import Tensors
from nacre.models.stock.pooling import Pooled, Pooling

PretrainedTask = Literal["classification", "regression", "causal_lm", "token_classification"]

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json",
    "merges.txt", "added_tokens.json", "chat_template.jinja", "preprocessor_config.json",
)  # fmt: skip
"""The files of a tokenizer that go with a model, all of them text."""

_POSITIONS = ("position_embeddings", "wpe")
"""How the tables of learnt positions are named."""


@dataclass(frozen=True, kw_only=True)
class Stock:
    """A transformer by its whole configuration: what a finished run keeps instead of a folder's
    name, so that it loads where the folder is gone."""

    kind: Literal["stock"] = "stock"
    config: Mapping[str, Any]
    """As transformers writes it to config.json."""
    task: PretrainedTask
    """What the model answers."""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """The tokenizer's files: name and text."""
    pooling: Pooling = "stock"
    """What its head reads."""

    def __post_init__(self) -> None:
        # A model.json from elsewhere names them, and `nacre export` writes them into a folder.
        for name, text in self.files.items():
            if name not in TOKENIZER_FILES:
                raise BadArgument(f"files: {name!r} is no file of a tokenizer")
            if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"files: {name!r} must be text")


class Transformer(nn.Module):
    """A stock transformer that reads one tensor, and answers by its logits.

    *Guarantee:* each row's logits are those that `network` gives to that row's real entries alone,
    up to rounding: what pads a row is masked, whatever token stands there.
    """

    def __init__(
        self,
        network: nn.Module,  # a transformers.PreTrainedModel
        task: PretrainedTask,
        files: Mapping[str, str],  # the tokenizer's: name and text
    ) -> None:
        super().__init__()
        self.network = network
        self.task: PretrainedTask = task
        self.files = dict(files)
        settings: Any = network.config
        self.tokens: int | None = settings.vocab_size if reads_tokens(network) else None
        # RoBERTa counts positions over what is not this token, so padding has to be this one.
        # Some configurations say -1 for none, which no embedding can read.
        padding = int(getattr(settings, "pad_token_id", None) or 0)
        self._padding = padding if 0 <= padding < (self.tokens or 0) else 0
        # A decoder's classifier answers at each position, and its own choice of the last one goes
        # by the padding token, which real text may hold; so the choice is made here.
        self._last = task in ("classification", "regression") and hasattr(network, "score")
        # A cache of keys and values serves the writing of text and not training.
        settings.use_cache = False

    def forward(
        self,
        features: Tensor,  # (R, T) int64 tokens, -1 where a row is padded on its right; or images
    ) -> Tensor:
        """-> (R, K) logits, or (R, T, K) for causal_lm and token_classification."""
        network: Any = self.network
        if self.tokens is None:
            return network(pixel_values=features).logits
        real = features >= 0
        length = torch.arange(features.shape[1], device=features.device)
        # A row without any token is read as one of padding: attention to nothing is no number.
        mask = (real | (length == 0)).long()
        ids = torch.where(real, features, self._padding)
        if not self._last:
            return network(input_ids=ids, attention_mask=mask).logits
        states = network.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        last = (mask * length).amax(1)
        chosen = states.gather(1, last[:, None, None].expand(-1, 1, states.shape[-1]))
        return network.score(chosen.squeeze(1))

    def positions(self) -> int | None:
        """The longest row that the model's table of positions reaches; None where it has none, as
        with rotary positions."""
        for name, module in self.network.named_modules():
            if name.endswith(_POSITIONS) and isinstance(module, nn.Embedding):
                # RoBERTa counts from the place after its padding's.
                before = 0 if module.padding_idx is None else module.padding_idx + 1
                return module.num_embeddings - before
        return None

    def new_head(self) -> tuple[str, ...]:
        """The modules that no base brings along: what stands beside it in a classifier. () for a
        language model, whose head was learnt with it."""
        if self.task == "causal_lm":
            return ()
        base = getattr(self.network, "base_model_prefix", "")
        return tuple(
            f"network.{name}"
            for name, module in self.network.named_children()
            if name != base and any(True for _ in module.parameters())
        )

    def described(self) -> Stock:
        """The architecture as an option, its configuration and its tokenizer's files inside."""
        pooling: Pooling = self.network.pooling if isinstance(self.network, Pooled) else "stock"
        config = configuration(self)
        return Stock(config=config, task=self.task, files=self.files, pooling=pooling)


def own_names(model: Transformer, weights: Tensors) -> Tensors:
    """The state of the model from its weights as a run keeps them, or as `nacre export` writes them
    for transformers: without the prefix, and of tied ones one."""
    if any(name.startswith("network.") for name in weights):
        return weights
    state = {f"network.{name}": value for name, value in weights.items()}
    tied: dict[str, str] = getattr(model.network, "all_tied_weights_keys", None) or {}
    for name, source in tied.items():
        if f"network.{source}" in state:
            state.setdefault(f"network.{name}", state[f"network.{source}"])
    return state


def configuration(model: Transformer) -> dict[str, Any]:
    """What transformers reads from config.json to build this architecture again."""
    settings: Any = model.network.config
    described = json.loads(json.dumps(settings.to_dict()))
    described.pop("use_cache", None)
    described.pop("_name_or_path", None)  # a folder of the machine that trained it
    inner = model.network.base_model if isinstance(model.network, Pooled) else model.network
    return described | {"architectures": [type(inner).__name__]}


def reads_tokens(network: nn.Module) -> bool:
    """Whether a stock model takes tokens, and not pixels."""
    return getattr(network, "main_input_name", "") == "input_ids"
