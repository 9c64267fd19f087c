"""Pretrained transformers, as their own library has them, behind one tensor of inputs."""

# Parts of transformers and torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nacre.core import hub, require
from nacre.core.errors import BadArgument, Refusal
from nacre.core.theirs import cause
from nacre.core.types import Tensors

PretrainedTask = Literal["classification", "regression", "causal_lm", "token_classification"]

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
              "vocab.json", "merges.txt", "added_tokens.json",
              "chat_template.jinja", "preprocessor_config.json")  # fmt: skip


_POSITIONS = ("position_embeddings", "wpe")
"""How the tables of learnt positions are named."""


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

    def sentence(self, folder: Path) -> str:
        """Kind and name, and whether it starts from random weights."""
        if not starts_random(self, folder):
            return f"{self.kind} {self.name}"
        why = "" if self.from_scratch else ", since its folder holds none"
        return f"{self.kind} {self.name} from random weights{why}"

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

    def __post_init__(self) -> None:
        # A model.json from elsewhere names them, and `nacre export` writes them into a folder.
        for name, text in self.files.items():
            if name not in _TOKENIZER:
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
        self.tokens: int | None = settings.vocab_size if _reads_tokens(network) else None
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
        return Stock(config=configuration(self), task=self.task, files=self.files)


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
    return described | {"architectures": [type(model.network).__name__]}


def pretrained(option: Pretrained, outputs: int, folder: Path) -> Transformer:
    """The model of a folder or of the hub; what is new in it comes from torch's generator.

    Raises `Refusal` for a model that cannot be had, has no safetensors or brings its own code.
    """
    library = _library()
    place = folder / option.name
    local = place.is_dir()
    source, offline = hub.hub_source(option.name, folder)
    scratch = starts_random(option, folder)
    try:
        kind, config = _architecture(library, option, outputs, source, offline)
        if scratch:
            network, missing = kind.from_config(config, trust_remote_code=False), ()
        else:
            network, missing = _loaded(library, kind, source, config, offline)
    except Exception as error:  # whatever a file or the network makes transformers raise
        where = f"folder {place}" if local else f"{option.name!r} of the hub"
        raise Refusal(
            f"model {where} cannot be loaded as {option.task} ({cause(error)}); correct `name` or "
            "`task`, or put config.json and model.safetensors into a folder"
        ) from error
    model = Transformer(network.train(), option.task, _tokenizer(place) if local else {})
    heads = tuple(f"{name.removeprefix('network.')}." for name in model.new_head())
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
    try:
        kind, config = _architecture(library, option, outputs, source, offline)
        with torch.device("meta"):
            network = kind.from_config(config, trust_remote_code=False)
    except Exception as error:  # as above; a size that torch cannot even multiply is too large
        return 2**63 if "overflow" in str(error).lower() else 0
    return sum(weights.numel() for weights in network.parameters())


def _architecture(
    library: ModuleType, option: Pretrained, outputs: int, source: str, offline: bool
) -> tuple[Any, Any]:
    """The class of transformers that builds the model, and its configuration as asked for."""
    config = library.AutoConfig.from_pretrained(
        source, trust_remote_code=False, local_files_only=offline
    )
    _no_kernels(config)
    _set(config, option.task, outputs, option.dropout)
    return _kind(library, option.task, config), config


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


def stock(option: Stock) -> Transformer:
    """The architecture with random weights. Raises `Refusal` where transformers cannot build it."""
    library = _library()
    fields = dict(option.config)
    try:
        config = library.AutoConfig.for_model(fields.pop("model_type"), **fields)
        _no_kernels(config)
        network = _kind(library, option.task, config).from_config(config, trust_remote_code=False)
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


def _kind(library: ModuleType, task: PretrainedTask, config: Any) -> Any:
    """The class of transformers that builds this task."""
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


def _reads_tokens(network: nn.Module) -> bool:
    return getattr(network, "main_input_name", "") == "input_ids"


def _tokenizer(place: Path) -> dict[str, str]:
    """The text of the tokenizer's files that there are; a binary one (tokenizer.model) is left: the
    tokenizer.json beside it says the same. Raises `Refusal` for one that is no text."""
    files: dict[str, str] = {}
    for name in _TOKENIZER:
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
