"""The transformers that are used most, small, as classifiers of texts, to time steps on."""

# Parts of transformers are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any

import torch
from workloads import Work, classified

WIDTH, LAYERS, HEADS, WORDS, PLACES, UNITS = 256, 4, 4, 8192, 64, 16

_MASKED = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
           "intermediate_size": 4 * WIDTH, "hidden_dropout_prob": 0.0,
           "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 2 * PLACES}  # fmt: skip
_GATED = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
          "num_key_value_heads": HEADS, "intermediate_size": 4 * WIDTH, "head_dim": WIDTH // HEADS,
          "max_position_embeddings": 2 * PLACES, "attention_dropout": 0.0,
          "sliding_window": None}  # fmt: skip
_BLOCKS = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 2 * PLACES,
           "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}  # fmt: skip
_PAIRED = {"d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": LAYERS,
           "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS,
           "encoder_ffn_dim": 4 * WIDTH, "decoder_ffn_dim": 4 * WIDTH, "dropout": 0.0,
           "attention_dropout": 0.0, "activation_dropout": 0.0,
           "max_position_embeddings": 2 * PLACES}  # fmt: skip

COMMONEST: dict[str, dict[str, Any]] = {
    "bert": _MASKED,
    "roberta": _MASKED,
    "xlm-roberta": _MASKED,
    "electra": _MASKED | {"embedding_size": WIDTH},
    "mpnet": _MASKED,
    "albert": _MASKED | {"embedding_size": WIDTH, "classifier_dropout_prob": 0.0},
    "deberta-v2": _MASKED | {"pooler_hidden_size": WIDTH, "pooler_dropout": 0.0},
    "distilbert": {"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 4 * WIDTH,
                   "dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0},
    "gpt2": _BLOCKS,
    "gpt_neo": {"hidden_size": WIDTH, "num_layers": LAYERS, "num_heads": HEADS,
                "attention_types": [[["global", "local"], LAYERS // 2]], "resid_dropout": 0.0,
                "embed_dropout": 0.0, "attention_dropout": 0.0,
                "max_position_embeddings": 2 * PLACES},
    "gpt_neox": _GATED | {"hidden_dropout": 0.0},
    "opt": {"hidden_size": WIDTH, "word_embed_proj_dim": WIDTH, "ffn_dim": 4 * WIDTH,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "dropout": 0.0,
            "attention_dropout": 0.0, "max_position_embeddings": 2 * PLACES},
    "bloom": {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "hidden_dropout": 0.0,
              "attention_dropout": 0.0},
    "llama": _GATED,
    "mistral": _GATED,
    "qwen2": _GATED,
    "gemma": _GATED,
    "phi": _GATED | {"resid_pdrop": 0.0, "embd_pdrop": 0.0},
    "t5": {"d_model": WIDTH, "num_layers": LAYERS, "num_heads": HEADS, "d_kv": WIDTH // HEADS,
           "d_ff": 4 * WIDTH, "dropout_rate": 0.0, "classifier_dropout": 0.0},
    "bart": _PAIRED | {"classifier_dropout": 0.0},
}  # fmt: skip
"""Model types of transformers, and the sizes that each is built with."""


def commonest(name: str) -> Work:
    """One of `COMMONEST` with its batch, from the same weights each time."""
    import transformers
    from transformers import CONFIG_MAPPING, logging
    from transformers.models.auto import modeling_auto as auto

    logging.set_verbosity_error()
    torch.manual_seed(0)
    kinds = auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    config = CONFIG_MAPPING[name](
        **COMMONEST[name], vocab_size=WORDS, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        num_labels=2,
    )  # fmt: skip
    config.use_cache = False
    config.decoder_start_token_id = 0
    kind = getattr(transformers, kinds[name])
    model = kind(config).float().train()
    ids = torch.randint(3, WORDS, (UNITS, PLACES))
    ids[:, -1] = 2  # t5 and bart read a text at its end
    label = torch.randint(0, 2, (UNITS,))
    present, unit = torch.ones(UNITS, dtype=torch.bool), torch.arange(UNITS)
    rows = {"ids": ids, "mask": torch.ones_like(ids), "label": label}
    work = Work(model, {**rows, "present": present, "unit": unit}, classified)
    work.losses(model, work.batch).sum().backward()
    for parameter in model.parameters():  # a step refuses what no loss depends on
        parameter.requires_grad_(parameter.grad is not None)
    model.zero_grad()
    return work
