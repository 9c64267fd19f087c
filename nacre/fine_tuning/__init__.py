"""Fine-tuning: which weights move, and from which public base. `export` is a module."""

from nacre.fine_tuning.choices import (
    CHOICES,
    FineTuningOption,
    Full,
    Head,
    LoRA,
    Pretrain,
    prepare,
)

__all__ = ["CHOICES", "FineTuningOption", "Full", "Head", "LoRA", "Pretrain", "prepare"]
