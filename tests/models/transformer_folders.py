"""Folders of tiny stock transformers with random weights, a base without a head in each."""

import functools
import tempfile
from pathlib import Path

import torch
import transformers

TOKENS, T = 40, 6

_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
          "intermediate_size": 24}  # fmt: skip
_TEXT = _SIZES | {"vocab_size": TOKENS, "max_position_embeddings": 32}
_GROUPED = _TEXT | {"num_key_value_heads": 2, "tie_word_embeddings": True}
_CONFIGURATIONS = {
    "Bert": _TEXT,
    "Roberta": _TEXT,
    "DistilBert": {"vocab_size": TOKENS, "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24},
    "GPT2": {"vocab_size": TOKENS, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 20,
             "bos_token_id": 0, "eos_token_id": 0},
    "Llama": _GROUPED,
    "Qwen3": _GROUPED | {"head_dim": 4},
    "Mistral": _GROUPED,
    "ViT": _SIZES | {"image_size": 8, "patch_size": 4, "num_channels": 1},
}  # fmt: skip

FAMILIES = tuple(name for name in _CONFIGURATIONS if name != "ViT")


def folder_of(family, into):
    """A folder with config.json and model.safetensors of the base alone, in double-sized random
    weights: what transformers starts with is so small that padding would hardly show."""
    folder = into / family.lower()
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _files(family).items():
        (folder / name).unlink(missing_ok=True)  # a model may still read its weights from there
        (folder / name).write_bytes(content)
    return folder


@functools.cache
def _files(family):
    """Name -> content of what transformers writes; a test run asks for some a hundred times."""
    config = getattr(transformers, f"{family}Config")(**_CONFIGURATIONS[family])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        base = getattr(transformers, f"{family}Model")(config)
    with torch.no_grad():
        for weights in base.parameters():
            weights.mul_(2)
    with tempfile.TemporaryDirectory() as folder:
        base.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
