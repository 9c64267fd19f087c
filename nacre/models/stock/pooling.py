"""One answer for a text from the states of its tokens, pooled as the base was trained."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

from torch import Tensor, nn

from nacre.core import hub
from nacre.core.errors import FileDamaged, Refusal
from nacre.core.files import read_json, save_tensors, write_json

Pooling = Literal["mean", "cls", "pooler", "stock"]

SAID_IN = "1_Pooling/config.json"
"""Where a folder of sentence-transformers says how its base was trained to be read."""

_OFFERED: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "stock",
}  # fmt: skip

WORDS: dict[Pooling, str] = {
    "mean": "the mean of its tokens' states",
    "cls": "the state of its first token",
    "pooler": "its pooler's answer",
    "stock": "the head of its own library",
}


class Pooled(nn.Module):
    """A stock encoder without a head, what it says of a text pooled, and a linear head from zero.

    *Guarantee:* the head starts at zero, so the first answers favour no class whatever the encoder
    says, and a row's logits depend on that row's real tokens alone.
    """

    main_input_name = "input_ids"

    def __init__(
        self,
        base: nn.Module,  # a transformers.PreTrainedModel that gives states
        pooling: Literal["mean", "cls", "pooler"],
        outputs: int,
    ) -> None:
        super().__init__()
        settings: Any = base.config
        if pooling == "pooler" and getattr(base, "pooler", None) is None:
            raise ValueError(f"{type(base).__name__} has no pooler; use `pooling: mean` or `cls`")
        if pooling != "pooler" and getattr(base, "pooler", None) is not None:
            # Weights that no answer depends on would be noised for nothing.
            cast(Any, base).pooler = None
        self.config = settings
        self.pooling: Literal["mean", "cls", "pooler"] = pooling
        # transformers finds a base in a larger model's file by this name.
        self.base_model_prefix: str = getattr(base, "base_model_prefix", "") or "base"
        self.add_module(self.base_model_prefix, base)
        width = int(getattr(settings, "hidden_size", None) or settings.dim)
        self.head = nn.Linear(width, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def base_model(self) -> nn.Module:
        """The encoder, as transformers calls it in its own classes."""
        return self.get_submodule(self.base_model_prefix)

    def forward(
        self,
        input_ids: Tensor,  # (R, T) int64
        attention_mask: Tensor,  # (R, T), 1 at real tokens; at least one a row
    ) -> SimpleNamespace:
        """-> `logits` of shape (R, K), under the name that stock models give them."""
        said: Any = self.base_model(input_ids=input_ids, attention_mask=attention_mask)
        if self.pooling == "pooler":
            return SimpleNamespace(logits=self.head(said.pooler_output))
        states: Tensor = said.last_hidden_state
        if self.pooling == "cls":
            return SimpleNamespace(logits=self.head(states[:, 0]))
        real = attention_mask.unsqueeze(-1).to(states.dtype)
        return SimpleNamespace(logits=self.head((states * real).sum(1) / real.sum(1)))


def pooling_of(source: str) -> Pooling:
    """How the base was trained to be read: what the folder or the hub says in 1_Pooling, and
    `stock` where it says nothing.

    Raises `Refusal` for a way that is not offered, since another head would be a worse model
    without a word.
    """
    place = hub.file_beside(source, SAID_IN)
    if place is None:
        return "stock"
    try:
        said = read_json(place)
        asked = [key for key, value in said.items() if key.startswith("pooling_mode_") and value]
    except (FileDamaged, AttributeError) as error:
        raise Refusal(
            f"{place} is not what sentence-transformers writes; restore it, or name one of "
            "`pooling: mean`, `cls`, `pooler` and `stock`"
        ) from error
    if len(asked) == 1 and asked[0] in _OFFERED:
        return _OFFERED[asked[0]]
    named = ", ".join(key.removeprefix("pooling_mode_") for key in asked) or "none"
    raise Refusal(
        f"{place} pools by {named}, which nacre does not offer; name one of `pooling: mean`, "
        "`cls`, `pooler` and `stock`"
    )


def export_pooling(network: Pooled, weights: dict[str, Tensor], folder: Path) -> None:
    """Writes beside a base what sentence-transformers reads of its pooling and head: modules.json,
    1_Pooling and 2_Dense. `SentenceTransformer(folder).encode` then gives the logits."""
    width, outputs = network.head.in_features, network.head.out_features
    modes = {
        "pooling_mode_cls_token": network.pooling == "cls",
        "pooling_mode_mean_tokens": network.pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    (folder / "1_Pooling").mkdir()
    (folder / "2_Dense").mkdir()
    write_json(folder / SAID_IN, {"word_embedding_dimension": width, **modes})
    head = {f"linear.{name}": weights[f"head.{name}"] for name in ("weight", "bias")}
    save_tensors(folder / "2_Dense" / "model.safetensors", head, {"format": "pt"})
    write_json(
        folder / "2_Dense" / "config.json",
        {
            "in_features": width,
            "out_features": outputs,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense")
    write_json(
        folder / "modules.json",
        [
            {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for n, (kind, path) in enumerate(kinds)
        ],
    )
