"""Pretrained transformers, as their own library has them, behind one tensor of inputs."""

# Parts of transformers and torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import nn

from nacre.core import hub, require
from nacre.core.errors import BadArgument, Refusal
from nacre.core.theirs import cause
from nacre.models.stock.pooling import WORDS, Pooled, Pooling, pooling_of
from nacre.models.stock.transformer import (
    TOKENIZER_FILES,
    PretrainedTask,
    Stock,
    Transformer,
    reads_tokens,
)

_POOLED = ("classification", "regression")
"""The tasks that have one answer for a whole text."""


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A stock transformer: BERT, RoBERTa, DistilBERT, GPT-2, Llama, Qwen, Mistral, ViT, and others
    that transformers knows by itself. Code that comes with a model is never run."""

    kind: Literal["pretrained"] = "pretrained"
    name: str
    """A folder with config.json and safetensors, relative to the recipe; where there is no such
    folder, the name of a model on the Hugging Face hub. A folder without weights starts from
    random ones."""
    task: PretrainedTask = "classification"
    """What the model answers; it has to be the task of the data."""
    from_scratch: bool = False
    """Take the architecture alone and start from random weights, by the recipe's seed."""
    dropout: float | None = None
    """Every dropout rate of the model, in [0, 1); None keeps the model's own."""
    pooling: Pooling | None = None
    """What a classifier or a regression reads of a text: the `mean` of its tokens' states, `cls`
    (the first token's), `pooler`, each with a linear head that starts at zero, or `stock`: the head
    that transformers gives the model. None takes what the base was trained for, by its
    1_Pooling/config.json, and `stock` where it has none."""

    def sentence(self, folder: Path) -> str:
        """Kind and name, what its head reads where that is not stock, and whether it starts from
        random weights."""
        # Of a model of the hub nobody is asked for the sake of a sentence.
        asked = self.pooling is None and not (folder / self.name).is_dir()
        pooling: Pooling = "stock" if asked else pooled_as(self, folder)
        read = "" if pooling == "stock" else f", read by {WORDS[pooling]}"
        if not starts_random(self, folder):
            return f"{self.kind} {self.name}{read}"
        why = "" if self.from_scratch else ", since its folder holds none"
        return f"{self.kind} {self.name} from random weights{why}{read}"

    def assumptions(self, folder: Path) -> list[str]:
        """What the weights were learnt from is outside epsilon."""
        if starts_random(self, folder):
            return []
        return [
            f"What the weights of {self.name} were learnt from is public, or at least "
            "holds none of these rows: epsilon does not cover what the base knew before."
        ]

    def __post_init__(self) -> None:
        if not self.name:
            raise BadArgument("name='' must name a folder or a model of the hub")
        require.below_one(dropout=self.dropout)
        if self.pooling not in (None, "stock") and self.task not in _POOLED:
            raise BadArgument(
                f"pooling={self.pooling!r} is for `task: classification` and `regression`; leave "
                f"it out for {self.task}, which answers at each token"
            )


def pretrained(option: Pretrained, outputs: int, folder: Path) -> Transformer:
    """The model of a folder or of the hub; what is new in it comes from torch's generator.

    Raises `Refusal` for a model that cannot be had, has no safetensors or brings its own code.
    """
    library = _library()
    place = folder / option.name
    local = place.is_dir()
    source, offline = hub.hub_source(option.name, folder)
    scratch = starts_random(option, folder)
    pooling = pooled_as(option, folder)
    try:
        kind, config = _architecture(library, option, pooling, outputs, source, offline)
        if scratch:
            network, missing = kind.from_config(config, trust_remote_code=False), ()
        else:
            network, missing = _loaded(library, kind, source, config, offline)
        network = _headed(network, pooling, outputs)
    except Exception as error:  # whatever a file or the network makes transformers raise
        where = f"folder {place}" if local else f"{option.name!r} of the hub"
        raise Refusal(
            f"model {where} cannot be loaded as {option.task} ({cause(error)}); correct `name` or "
            "`task`, or put config.json and model.safetensors into a folder"
        ) from error
    model = Transformer(network.train(), option.task, _tokenizer(place) if local else {})
    heads = tuple(f"{name.removeprefix('network.')}." for name in model.new_head())
    if pooling in ("mean", "cls"):
        heads = (*heads, "pooler.")
    if absent := sorted(name for name in missing if not name.startswith(heads)):
        raise Refusal(
            f"model {option.name!r} lacks the weights {absent[0]!r} ({len(absent)} in all), so it "
            "would start from random ones; give it all of its weights, or use `from_scratch: true`"
        )
    return model


def parameters(option: Pretrained, outputs: int, folder: Path) -> int:
    """How many numbers the model has, told by its configuration without making any of them; 0 where
    it cannot be told: building the model says why. Raises as `hub.hub_source` does."""
    library = _library()
    source, offline = hub.hub_source(option.name, folder)
    pooling = pooled_as(option, folder)
    try:
        kind, config = _architecture(library, option, pooling, outputs, source, offline)
        with torch.device("meta"):
            network = kind.from_config(config, trust_remote_code=False)
            network = _headed(network, pooling, outputs)
    except Exception as error:  # as above; a size that torch cannot even multiply is too large
        return 2**63 if "overflow" in str(error).lower() else 0
    return sum(weights.numel() for weights in network.parameters())


def pooled_as(option: Pretrained, folder: Path) -> Pooling:
    """What the head of an answer for a whole text reads: as asked for, or as the base was trained.
    Raises as `hub.hub_source` and `pooling_of` do."""
    if option.pooling is not None or option.task not in _POOLED:
        return option.pooling or "stock"
    source, _ = hub.hub_source(option.name, folder)
    return pooling_of(source)


def _headed(network: nn.Module, pooling: Pooling, outputs: int) -> nn.Module:
    """A stock classifier as it is; an encoder with a head of ours. Raises `ValueError` for one that
    reads no tokens or has no such answer."""
    if pooling == "stock":
        return network
    if not reads_tokens(network):
        raise ValueError(f"`pooling: {pooling}` is for models of text, and this one reads none")
    return Pooled(network, pooling, outputs)


def _architecture(
    library: ModuleType,
    option: Pretrained,
    pooling: Pooling,
    outputs: int,
    source: str,
    offline: bool,
) -> tuple[Any, Any]:
    """The class of transformers that builds the model, and its configuration as asked for."""
    config = library.AutoConfig.from_pretrained(
        source, trust_remote_code=False, local_files_only=offline
    )
    _no_kernels(config)
    _set(config, option.task, outputs, option.dropout)
    return _kind(library, option.task, config, pooling), config


def _loaded(
    library: ModuleType, kind: Any, source: str, config: Any, offline: bool
) -> tuple[nn.Module, Collection[str]]:
    """The model with its weights, and the names of those that the files do not hold."""
    log = library.utils.logging
    level, shown = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()  # what it would tell of missing weights is checked by the caller
    log.disable_progress_bar()
    try:
        network, facts = kind.from_pretrained(
            source,
            config=config,
            trust_remote_code=False,
            local_files_only=offline,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    finally:
        log.set_verbosity(level)
        if shown:
            log.enable_progress_bar()
    return network, facts["missing_keys"]


def stock(option: Stock, outputs: int) -> Transformer:
    """The architecture with random weights. Raises `Refusal` where transformers cannot build it."""
    library = _library()
    fields = dict(option.config)
    try:
        config = library.AutoConfig.for_model(fields.pop("model_type"), **fields)
        _no_kernels(config)
        kind = _kind(library, option.task, config, option.pooling)
        network = kind.from_config(config, trust_remote_code=False)
        network = _headed(network, option.pooling, outputs)
    except Exception as error:
        raise Refusal(
            f"the run's transformer cannot be built ({cause(error)}); install the version of "
            "transformers that trained it"
        ) from error
    return Transformer(network.train(), option.task, option.files)


def starts_random(option: Pretrained, folder: Path) -> bool:
    """Whether training starts from random weights: as asked for, or as the folder has none. Raises
    `Refusal` for weights as pickles."""
    place = folder / option.name
    return option.from_scratch or (place.is_dir() and _without_weights(place))


def _without_weights(place: Path) -> bool:
    """Whether a folder holds an architecture alone. Raises `Refusal` for weights as pickles."""
    if any(place.glob("*.safetensors")):
        return False
    if pickles := sorted(path.name for path in place.glob("*.bin")):
        raise Refusal(
            f"model folder {place} holds its weights as {pickles[0]}, a pickle, which runs code "
            "when it is read; convert it to model.safetensors by `save_pretrained`"
        )
    return True


def _set(config: Any, task: PretrainedTask, outputs: int, dropout: float | None) -> None:
    """Writes into the configuration what the recipe says."""
    if task != "causal_lm" and config.num_labels != outputs:
        config.num_labels = outputs
    if dropout is not None:
        for name, value in config.to_dict().items():
            if "drop" in name and isinstance(value, int | float) and not isinstance(value, bool):
                setattr(config, name, dropout)


def _no_kernels(config: Any) -> None:
    """Raises `ValueError` for a configuration that names code of the hub, which transformers
    would fetch and run as a kernel."""
    inner = [getattr(config, name, None) for name in getattr(config, "sub_configs", None) or ()]
    for each in (config, *inner):
        for name in ("_attn_implementation", "_experts_implementation"):
            chosen = str(getattr(each, name, None) or "")
            if "/" in chosen:
                raise ValueError(
                    f"config.json asks for the kernel {chosen!r} of the hub, and code that comes "
                    "with a model is never run"
                )


def _kind(library: ModuleType, task: PretrainedTask, config: Any, pooling: Pooling) -> Any:
    """The class of transformers that builds this task."""
    if pooling != "stock":
        return library.AutoModel
    if task == "causal_lm":
        if getattr(config, "is_encoder_decoder", False):
            raise ValueError("an encoder with a decoder is no causal language model")
        if type(config) not in library.AutoModelForCausalLM._model_mapping:
            raise ValueError(f"{type(config).__name__} has no causal language model")
        return library.AutoModelForCausalLM
    if task == "token_classification":
        return library.AutoModelForTokenClassification
    if type(config) in library.AutoModelForImageClassification._model_mapping:
        return library.AutoModelForImageClassification
    return library.AutoModelForSequenceClassification


def _tokenizer(place: Path) -> dict[str, str]:
    """The text of the tokenizer's files that there are; a binary one (tokenizer.model) is left: the
    tokenizer.json beside it says the same. Raises `Refusal` for one that is no text."""
    files: dict[str, str] = {}
    for name in TOKENIZER_FILES:
        path = place / name
        if path.is_file():
            try:
                files[name] = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
                raise Refusal(
                    f"{path} cannot be read ({reason}), and a run keeps the tokenizer beside its "
                    "model; write the file anew"
                ) from error
    return files


def croppable(cache: Any) -> bool:
    """Whether the last tokens of a model's cache of keys and values can be taken back. They cannot
    where a layer keeps a window of them: what the window has lost does not return."""
    plain = _library().cache_utils.DynamicLayer
    return all(type(layer) is plain for layer in cache.layers)


def _library() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise Refusal(
            f"pretrained models need transformers, which is not installed ({error}); run "
            "`pip install 'nacre[text]'` (from a checkout: `pip install -c constraints.txt -e "
            "'.[text]'`)"
        ) from error
    return transformers
