"""Models that never mix rows, and what their outputs mean."""

from nacre.models.callables import PythonModel
from nacre.models.images import CNN
from nacre.models.load import (
    FormerRun,
    ModelOption,
    SavedModel,
    build,
    describe,
    load,
    save,
    saved,
)
from nacre.models.tabular import MLP
from nacre.models.tasks import AnyTask, Classification, Regression, task_for

__all__ = [
    "CNN",
    "MLP",
    "AnyTask",
    "Classification",
    "FormerRun",
    "ModelOption",
    "PythonModel",
    "Regression",
    "SavedModel",
    "build",
    "describe",
    "load",
    "save",
    "saved",
    "task_for",
]
