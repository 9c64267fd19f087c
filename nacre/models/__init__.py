"""Models that never mix rows, and what their outputs mean."""

from nacre.models.callables import OWN, Code, PythonModel
from nacre.models.first_bias import start_at
from nacre.models.gpt import GPT
from nacre.models.images import CNN
from nacre.models.load import (
    MODELS,
    FormerRun,
    ModelOption,
    SavedModel,
    build,
    describe_model,
    load,
    save,
    saved,
)
from nacre.models.random_inputs import random_inputs
from nacre.models.scattering import Scattering
from nacre.models.stock.pretrained import Pretrained
from nacre.models.stock.transformer import Transformer
from nacre.models.tabular import MLP
from nacre.models.tasks import (
    TASKS,
    AnyTask,
    CausalLM,
    Classification,
    Regression,
    TokenClassification,
    task_for,
)

__all__ = [
    "CNN",
    "GPT",
    "MLP",
    "MODELS",
    "OWN",
    "TASKS",
    "AnyTask",
    "CausalLM",
    "Classification",
    "Code",
    "FormerRun",
    "ModelOption",
    "Pretrained",
    "PythonModel",
    "Regression",
    "SavedModel",
    "Scattering",
    "TokenClassification",
    "Transformer",
    "build",
    "describe_model",
    "load",
    "random_inputs",
    "save",
    "saved",
    "start_at",
    "task_for",
]
