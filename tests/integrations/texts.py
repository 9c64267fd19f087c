"""Tiny stock models, a tokenizer of a few words, and tokenised rows as lists of dicts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    TrainingArguments,
)

from nacre.integrations.transformers import PrivateTrainer
from tests.integrations.declared import SIZE, promised

WORDS = 40


def tokenizer(side: str = "right") -> PreTrainedTokenizerFast:
    words = {"[PAD]": 0} | {f"w{i}": i for i in range(1, WORDS)}
    plain = Tokenizer(models.WordLevel(words, unk_token="w1"))
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", mask_token="w2", padding_side=side
    )


def sentences(count: int = SIZE, kind: str = "label", equal: bool = False) -> list[dict[str, Any]]:
    """Rows of 3 to 9 tokens; with `kind` "label" a class, "tokens" a class each, "lm" nothing."""
    chance = random.Random(0)
    rows: list[dict[str, Any]] = []
    for _ in range(count):
        length = 6 if equal else chance.randint(3, 9)
        ids = [chance.randint(1, WORDS - 1) for _ in range(length)]
        row: dict[str, Any] = {"input_ids": ids, "attention_mask": [1] * length}
        if kind == "label":
            row["label"] = int(sum(ids) > length * WORDS / 2)
        if kind == "tokens":
            row["labels"] = [token % 3 for token in ids]
        rows.append(row)
    return rows


_SMALL = {"vocab_size": WORDS, "max_position_embeddings": 16}


def bert(kind: Any = BertForSequenceClassification, dropout: float = 0.1, **more: Any) -> Any:
    config = BertConfig(
        **_SMALL, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    return kind(config)


def bert_of_tokens() -> Any:
    return bert(BertForTokenClassification, num_labels=3)


def gpt(dropout: float = 0.1) -> Any:
    config = GPT2Config(
        vocab_size=WORDS, n_positions=16, n_embd=16, n_layer=1, n_head=2, resid_pdrop=dropout,
        embd_pdrop=dropout, attn_pdrop=dropout, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    return GPT2LMHeadModel(config)


def arguments(place: Path, **changed: Any) -> TrainingArguments:
    plain = {
        "output_dir": str(place / "out"),
        "max_steps": 4,
        "per_device_train_batch_size": 10,
        "gradient_accumulation_steps": 3,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**{**plain, **changed})


def trainer(place: Path, model: nn.Module | None = None, **changed: Any) -> PrivateTrainer:
    """A small private Trainer; `arguments` in `changed` are those of `TrainingArguments`."""
    given = arguments(place, **changed.pop("arguments", {}))
    plain = {"train_dataset": sentences(), "processing_class": tokenizer(), **promised(place)}
    return PrivateTrainer(model or bert(), given, **{**plain, **changed})
