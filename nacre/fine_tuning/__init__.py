"""Fine-tuning: which weights move, and from which public base. `export` is a module."""

from nacre.fine_tuning.choices import (
    CHOICES,
    Bias,
    FineTuningOption,
    Full,
    Head,
    LoRA,
    Norms,
    Pretrain,
    prepare,
)

__all__ = [
    "CHOICES",
    "Bias",
    "FineTuningOption",
    "Full",
    "Head",
    "LoRA",
    "Norms",
    "Pretrain",
    "prepare",
]
