"""Nacre: five techniques of private and robust training in one run, with the evidence.

Names load on first use (PEP 562), so `import nacre` costs nothing that is not asked for.

>>> import nacre
>>> nacre.Flat(norm=1.0).norm
1.0
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nacre.adversarial_training import (
        FGSM,
        PGD,
        Ball,
        ColumnMove,
        Embedding,
        EmbeddingPGD,
        Fast,
        FreeLB,
        Guard,
        LinearRelation,
        Madry,
        Mart,
        Ramp,
        RatioRelation,
        TableThreat,
        Trades,
        Words,
    )
    from nacre.adversarial_training.certificates import CROWN, IBP, Smoothing
    from nacre.audit.attack import attack
    from nacre.audit.run import audit_run
    from nacre.core.optimizers import SGD, Adagrad, Adam, AdamW, Average, Schedule, Yogi
    from nacre.data import Arrays, Builtin, ByColumn, Copies, Images, Table, Text, Uniform
    from nacre.differential_privacy.mechanism import Budget, Mechanism
    from nacre.differential_privacy.options import Privacy
    from nacre.federated_learning import FederatedLearning
    from nacre.fine_tuning import Bias, Full, Head, LoRA, Norms, Pretrain
    from nacre.gradient_clipping import Adaptive, Automatic, ByNorm, ByValue, Flat, PerLayer
    from nacre.ledger.ledger import Ledger
    from nacre.models import CNN, GPT, MLP, Code, FormerRun, Pretrained, PythonModel, Scattering
    from nacre.planning.plan import plan
    from nacre.prediction.predictor import load_model
    from nacre.recipe.audits import CertificateAudit, Evasion, Membership
    from nacre.recipe.load import dumps
    from nacre.recipe.load import load_recipe as load
    from nacre.recipe.schema import Recipe
    from nacre.recipe.sections import Evaluate, Execution, LedgerChoice, Training, WithinParties
    from nacre.recipe.sections import GrantOption as Grant
    from nacre.recipe.tune import PrivateScore, PublicScore, Tune
    from nacre.report.evidence import write_report
    from nacre.runs.run import abandon, finish, open_run, train
    from nacre.runs.tune import tune
    from nacre.statistics.across.in_process import release_together
    from nacre.statistics.release import release

__version__ = "0.1.0"

_HOMES = {
    "nacre.adversarial_training": (
        "FGSM",
        "PGD",
        "Ball",
        "ColumnMove",
        "Embedding",
        "EmbeddingPGD",
        "Fast",
        "FreeLB",
        "Guard",
        "LinearRelation",
        "Madry",
        "Mart",
        "Ramp",
        "RatioRelation",
        "TableThreat",
        "Trades",
        "Words",
    ),
    "nacre.adversarial_training.certificates": ("CROWN", "IBP", "Smoothing"),
    "nacre.audit.attack": ("attack",),
    "nacre.audit.run": ("audit_run",),
    "nacre.core.optimizers": ("SGD", "Adagrad", "Adam", "AdamW", "Average", "Schedule", "Yogi"),
    "nacre.data": ("Arrays", "Builtin", "ByColumn", "Copies", "Images", "Table", "Text", "Uniform"),
    "nacre.differential_privacy.mechanism": ("Budget", "Mechanism"),
    "nacre.differential_privacy.options": ("Privacy",),
    "nacre.federated_learning": ("FederatedLearning",),
    "nacre.fine_tuning": ("Bias", "Full", "Head", "LoRA", "Norms", "Pretrain"),
    "nacre.gradient_clipping": (
        "Adaptive",
        "Automatic",
        "ByNorm",
        "ByValue",
        "Flat",
        "PerLayer",
    ),
    "nacre.ledger.ledger": ("Ledger",),
    "nacre.models": (
        "CNN",
        "GPT",
        "MLP",
        "Code",
        "FormerRun",
        "Pretrained",
        "PythonModel",
        "Scattering",
    ),
    "nacre.recipe.audits": ("CertificateAudit", "Evasion", "Membership"),
    "nacre.recipe.load": ("dumps", "load"),
    "nacre.recipe.schema": ("Recipe",),
    "nacre.recipe.sections": (
        "Evaluate",
        "Execution",
        "Grant",
        "LedgerChoice",
        "Training",
        "WithinParties",
    ),
    "nacre.recipe.tune": ("PrivateScore", "PublicScore", "Tune"),
    "nacre.report.evidence": ("write_report",),
    "nacre.planning.plan": ("plan",),
    "nacre.prediction.predictor": ("load_model",),
    "nacre.statistics.release": ("release",),
    "nacre.statistics.across.in_process": ("release_together",),
    "nacre.runs.run": ("abandon", "finish", "open_run", "train"),
    "nacre.runs.tune": ("tune",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
_NAMED = {"Grant": "GrantOption", "load": "load_recipe"}
"""What is called otherwise where it lies, since its module is not read along with it there."""

__all__ = [
    "CNN",
    "CROWN",
    "FGSM",
    "GPT",
    "IBP",
    "MLP",
    "PGD",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adaptive",
    "Arrays",
    "Automatic",
    "Average",
    "Ball",
    "Bias",
    "Budget",
    "Builtin",
    "ByColumn",
    "ByNorm",
    "ByValue",
    "CertificateAudit",
    "Code",
    "ColumnMove",
    "Copies",
    "Embedding",
    "EmbeddingPGD",
    "Evaluate",
    "Evasion",
    "Execution",
    "Fast",
    "FederatedLearning",
    "Flat",
    "FormerRun",
    "FreeLB",
    "Full",
    "Grant",
    "Guard",
    "Head",
    "Images",
    "Ledger",
    "LedgerChoice",
    "LinearRelation",
    "LoRA",
    "Madry",
    "Mart",
    "Mechanism",
    "Membership",
    "Norms",
    "PerLayer",
    "Pretrain",
    "Pretrained",
    "Privacy",
    "PrivateScore",
    "PublicScore",
    "PythonModel",
    "Ramp",
    "RatioRelation",
    "Recipe",
    "Scattering",
    "Schedule",
    "Smoothing",
    "Table",
    "TableThreat",
    "Text",
    "Trades",
    "Training",
    "Tune",
    "Uniform",
    "WithinParties",
    "Words",
    "Yogi",
    "abandon",
    "attack",
    "audit_run",
    "dumps",
    "finish",
    "load",
    "load_model",
    "open_run",
    "plan",
    "release",
    "release_together",
    "train",
    "tune",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nacre' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), _NAMED.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
