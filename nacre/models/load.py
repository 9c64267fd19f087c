"""Models from options, and models as two files: model.json and model.safetensors."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from nacre.core.errors import FileDamaged, Incompatible, Refusal, RunError
from nacre.core.files import load_tensors, read_json, save_tensors, write_json
from nacre.core.random import seed_torch
from nacre.core.strict import parsed
from nacre.core.swapped import unmoved
from nacre.core.theirs import cause, foreign_cause
from nacre.models.callables import OWN, Code, PythonModel, called
from nacre.models.gpt import GPT, gpt
from nacre.models.images import CNN, cnn
from nacre.models.random_inputs import random_inputs
from nacre.models.scattering import Scattering, scattered
from nacre.models.stock.pretrained import Pretrained, pretrained, stock
from nacre.models.stock.transformer import Stock, Transformer, own_names
from nacre.models.tabular import MLP, mlp
from nacre.models.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class FormerRun:
    """The model of a former run, weights included, as the base of this one."""

    kind: Literal["run"] = "run"
    path: str
    """The run's folder, relative to the recipe."""
    public: bool = False
    """Declares that the rows it was trained on are public: what a private run asks of a base that
    was trained without differential privacy."""

    def sentence(self, folder: Path) -> str:
        """Kind and folder."""
        return f"{self.kind} {self.path}"

    def assumptions(self, folder: Path) -> list[str]:
        """Who is covered twice, or that its rows are public."""
        if self.public:
            return [f"The rows that the base {self.path} was trained on are public, as declared."]
        return [
            f"The base is the model of the run {self.path}. Whoever is in its rows and in these is "
            "covered by both epsilons added up; where both runs are charged to one account, the "
            "ledger adds them."
        ]


Architecture = MLP | CNN | Scattering | GPT | PythonModel | Stock
"""Options that say everything about a model but its weights."""

ModelOption = MLP | CNN | Scattering | GPT | PythonModel | Pretrained | FormerRun
"""Every option that a recipe may name under `model`."""

MODELS: tuple[type[ModelOption], ...] = get_args(ModelOption)
"""The same as a tuple."""


_TASKS = tuple(task.kind for task in TASKS)

FORMAT = 2
"""Of model.json, as docs/formats/model.md has it; format 1 had no signature and is still read."""


@dataclass(frozen=True)
class SavedModel:
    """What model.json holds beside the weights."""

    option: Architecture
    shape: tuple[int, ...]  # of one input
    outputs: int
    task: str  # of the rows: one of `_TASKS`
    scaler: Mapping[str, Any] | None  # as `nacre.data.Scaler.to_json` wrote it
    tokenizer: Mapping[str, Any] | None = None  # as `nacre.data` describes it; None for bytes
    signature: Mapping[str, Any] | None = None  # what rows are; None in format 1
    personal: tuple[str, ...] = ()  # weights that parties kept: here they are as before training


def build(
    option: ModelOption | Stock,
    shape: tuple[int, ...],  # of one input
    outputs: int,
    seed: int,
    folder: Path,  # what the option's paths are relative to
    code: Code = OWN,  # what a Python model may run
) -> nn.Module:
    """The model, (B, *shape) -> (B, outputs), in training mode; (B, T) -> (B, T, outputs) where the
    task of a pretrained model is one for each position.

    The same seed gives the same weights, and torch's own generator is left as it was. Raises
    `Refusal` for a model that cannot be had or does not fit.
    """
    if isinstance(option, FormerRun):
        return _continued(option, shape, outputs, folder, code)
    with torch.random.fork_rng(devices=[]):
        seed_torch(seed)
        if isinstance(option, MLP):
            return mlp(option, shape, outputs)
        if isinstance(option, CNN):
            return cnn(option, shape, outputs)
        if isinstance(option, Scattering):
            return scattered(option, shape, outputs)
        if isinstance(option, GPT):
            return gpt(option, shape, outputs)
        if isinstance(option, Pretrained):
            model, name = pretrained(option, outputs, folder), option.name
        elif isinstance(option, Stock):
            model, name = stock(option, outputs), "stock"
        else:
            model, name = called(option, folder, code), option.call
        _check_outputs(model, shape, outputs, name)
    return model


def _continued(
    option: FormerRun, shape: tuple[int, ...], outputs: int, folder: Path, code: Code
) -> nn.Module:
    former = folder / option.path
    known = saved(former)
    if (known.shape, known.outputs) != (shape, outputs):
        raise Incompatible(
            f"the model of {former} maps {known.shape} to {known.outputs} outputs and the data "
            f"need {shape} to {outputs}; use the columns and classes of that run, or another base"
        )
    return load(former, folder, code=code).train()


def _check_outputs(model: nn.Module, shape: tuple[int, ...], outputs: int, name: str) -> None:
    """Raises `Refusal` unless the model maps (2, *shape) to (2, outputs), or each position so. The
    model is afterwards what it was."""
    tokens = model.tokens if isinstance(model, Transformer) else None
    known = model.positions() if isinstance(model, Transformer) and tokens is not None else None
    if known is not None and shape[-1] > known:
        raise Refusal(
            f"model {name!r} knows {known} positions and a row has {shape[-1]} tokens; lower "
            f"`data.length` to {known} or less, or use another model"
        )
    inputs = torch.zeros(2, *shape) if tokens is None else random_inputs(shape, tokens, 2)
    try:
        with unmoved(model), torch.no_grad():
            result: Any = model.eval()(inputs)
    except Exception as error:
        remedy = "correct the model or the data's shape"
        if tokens is not None:
            remedy = f"lower `data.length`, which is {shape[-1]}, or use another model"
        raise Refusal(
            f"model {name!r} does not take inputs of shape {shape} "
            f"({foreign_cause(error)}); {remedy}"
        ) from error
    given = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
    needed = (2, outputs)
    if isinstance(model, Transformer) and model.task in ("causal_lm", "token_classification"):
        needed = (2, *shape, outputs)
        if model.task == "causal_lm" and result.shape[-1] >= outputs:
            return  # many a vocabulary is padded to a round number
    if given != needed:
        raise Refusal(
            f"model {name!r} gives {given} for 2 rows where {needed} is needed; set the "
            f"width of its last layer to {outputs}"
        )


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Facts for a plan or a report: the layers, and how many numbers training moves."""
    sizes = {name: (p.numel(), p.requires_grad) for name, p in model.named_parameters()}
    return {
        "layers": [
            f"{name}: {module}" if name else str(module)
            for name, module in model.named_modules()
            if not any(True for _ in module.children())
        ],
        "parameters": sum(count for count, _ in sizes.values()),
        "trainable": sum(count for count, moves in sizes.values() if moves),
    }


def architecture(option: ModelOption, folder: Path) -> Architecture | Pretrained:
    """The option itself, or for a former run the option that its model was built from."""
    return saved(folder / option.path).option if isinstance(option, FormerRun) else option


def save(
    model: nn.Module,
    option: ModelOption,
    into: Path,  # an existing folder
    *,
    shape: tuple[int, ...],
    outputs: int,
    task: str,
    scaler: Mapping[str, Any] | None,
    folder: Path,  # what the option's paths are relative to
    tokenizer: Mapping[str, Any] | None = None,  # of the rows' text, as `nacre.data` describes it
    signature: Mapping[str, Any] | None = None,  # what rows are, as `nacre.prediction` writes it
    personal: Sequence[str] = (),  # weights that the parties of a federation kept
) -> None:
    """Writes model.safetensors, then model.json: whoever finds the second has both."""
    save_tensors(into / "model.safetensors", model.state_dict())
    known = model.described() if isinstance(model, Transformer) else architecture(option, folder)
    facts: dict[str, Any] = {
        "format": FORMAT,
        "option": asdict(known),
        "shape": list(shape),
        "outputs": outputs,
        "task": task,
        "scaler": scaler,
        "tokenizer": _without_copy(tokenizer, known),
        "signature": None if signature is None else dict(signature),
    }
    if personal:
        facts["personal"] = list(personal)
    write_json(into / "model.json", facts)


def _without_copy(tokenizer: Mapping[str, Any] | None, known: Any) -> dict[str, Any] | None:
    """What there is to say of a tokenizer beside the files that a pretrained model came with."""
    if tokenizer is None:
        return None
    if not (isinstance(known, Stock) and "tokenizer.json" in known.files):
        return dict(tokenizer)
    # transformers may read another tokenizer than tokenizer.json says, as tokenizer_config.json has
    # a last word on case: then both are kept.
    read, lies = _that_reads(tokenizer["file"]), _that_reads(known.files["tokenizer.json"])
    return {**tokenizer, "file": None} if read == lies else dict(tokenizer)


def _that_reads(file: str) -> list[Any]:
    """What of a tokenizer.json decides the tokens of a plain text."""
    said = parsed(file)
    added = [token for token in said.get("added_tokens") or () if not token.get("special")]
    return [said.get("normalizer"), said.get("pre_tokenizer"), said.get("model"), added]


def saved(run: Path) -> SavedModel:
    """What model.json says. Raises `RunError` where there is none, `FileDamaged` where it lies."""
    file = run / "model.json"
    if not file.is_file():
        raise RunError(f"{run} holds no finished model (no model.json); name a run that has ended")
    facts = read_json(file)
    try:
        if facts["format"] not in (1, FORMAT):
            raise ValueError(f"format {facts['format']} is unknown to this version")
        if facts["task"] not in _TASKS:
            raise ValueError(f"task {facts['task']!r} is unknown")
        return SavedModel(
            _option(facts["option"]),
            tuple(int(n) for n in facts["shape"]),
            int(facts["outputs"]),
            facts["task"],
            facts["scaler"],
            facts.get("tokenizer"),
            facts["signature"] if facts["format"] == FORMAT else None,
            tuple(str(name) for name in facts.get("personal") or ()),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileDamaged(
            f"{file} is not what nacre writes ({cause(error)}); restore it or run again"
        ) from error


def load(
    run: Path,
    folder: Path | None = None,
    *,
    code: Code = OWN,
    own: ModelOption | None = None,  # what the caller's recipe says under `model`
) -> nn.Module:
    """The finished model of a run, weights included, in evaluation mode.

    `folder` is where a Python model's code is looked for; the run's own folder where absent. A
    Python model is called only with `code.runs`, or where `own` names the same call as model.json.
    Raises `RunError` for no run, `FileDamaged` for a file that is not what was written, `Refusal`
    for code that is not trusted.
    """
    known = saved(run)
    if not _same_call(known.option, own):
        code = code.of_run_folder()
    model = build(known.option, known.shape, known.outputs, seed=0, folder=folder or run, code=code)
    file = run / "model.safetensors"
    weights, _ = load_tensors(file)
    try:
        model.load_state_dict(
            own_names(model, weights) if isinstance(model, Transformer) else weights
        )
    except RuntimeError as error:
        raise FileDamaged(
            f"{file} does not fit model.json ({cause(error)}); restore both"
        ) from error
    return model.eval()


def _same_call(saved: Architecture, own: ModelOption | None) -> bool:
    """Whether both name one Python function with the same arguments."""
    if not isinstance(saved, PythonModel) or not isinstance(own, PythonModel):
        return False
    return json.dumps(asdict(saved)) == json.dumps(asdict(own))


def _option(fields: Mapping[str, Any]) -> Architecture:
    """An option from what `asdict` gave, JSON's lists being tuples again."""
    kinds: dict[str, Callable[..., Architecture]] = {
        option.kind: option for option in get_args(Architecture)
    }
    plain: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
    }
    return kinds[plain["kind"]](**plain)
