"""Tiny random models of every architecture of transformers, torchvision and timm, with inputs.

A configuration is made small by what its names say (`num_*_layers` is 2, `*hidden_size` 32 …), and
a few ways to do so are tried until one builds and gives finite numbers.
"""

# Parts of transformers are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ROWS, LENGTH, WORDS, LABELS = 4, 12, 100, 3

Batch = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model to try: `build` raises where it cannot be had."""

    part: str  # "transformers", "vision" or "layers"
    name: str
    build: Callable[[], tuple[nn.Module, Batch, Callable[[nn.Module, Batch], Tensor]]]


_SIZES: list[tuple[str, int]] = [
    (r"vocab_size(_per_layer_input)?$|_vocab_size$", WORDS),
    (
        r"(max_position|n_positions|n_ctx|max_seq|seq_length|max_\w*positions|relative_attention)",
        64,
    ),
    (r"(num|n)_(hidden_|encoder_|decoder_)?layers?$|(encoder|decoder)_layers$|^depth$", 2),
    (r"num_hidden_groups|n_shared_experts|n_group|topk_group|first_k_dense|num_mem_blocks", 1),
    (r"(sparse_step|_interval|num_dense_layers|num_sparse_\w+_layers|n_groups|ngroups)$", 1),
    (r"experts_per_tok|experts_per_token|top_?k|num_selected|moe_k$", 2),
    (r"num_(local_)?experts$|n_routed_experts$|num_experts", 4),
    (r"expert_capacity", 64),
    (r"key_value_heads|kv_heads|kv_n_heads|multi_query_group|linear_num_key_heads", 2),
    (r"(attention_heads|n_heads?|num_heads|linear_num_value_heads)$", 4),
    (r"(lora_rank|bottleneck_size|true_hidden_size|intra_bottleneck)", 16),
    (r"(head_dim|d_kv|kv_channels|head_size|d_head|dim_head|v_head_dim|rope_head_dim)$", 8),
    (r"(moe_intermediate|expert_ffn|expert_inter|expert_dim|shared_inter|moe_ffn)\w*", 24),
    (r"(intermediate|ffn|d_ff|d_inner|n_inner|dim_ff|mlp_dim)\w*", 48),
    (r"^(hidden_size|d_model|n_embd|dim|embed_dim|embedding_size|emb_dim|lru_width)$", 32),
    (r"(hidden_size|embed_dim|embedding_dim|d_embed|d_latents|projection_dim|pooler_\w+)$", 32),
    (r"(state_size|d_state|dt_rank|time_step_rank|ssm_\w*size)$", 8),
    (r"(^|mamba_)chunk_size$|block_size|sliding_window|attention_window|local_attention", 4),
    (r"window_size$", 4),
    (r"image_size|crop_size", 32),
    (r"patch_size", 8),
    (r"num_frames|num_next_tokens", 4),
    (r"num_mel_bins|input_feat_per_channel", 16),
    (r"num_conv_pos_embeddings$", 4),
    (r"num_conv_pos_embedding_groups|tubelet_size|num_codebooks|num_register_tokens", 2),
]

_LISTS: list[tuple[str, list[int]]] = [
    (r"^depths$|num_blocks|^depth$", [1, 1, 1, 1, 1]),
    (r"hidden_sizes|embed_dims|embed_dim|neck_hidden_sizes", [8, 16, 24, 32, 32, 32, 32]),
    (r"num_(attention_)?heads", [1, 2, 2, 4]),
    (r"conv_dim", [16] * 7), (r"conv_stride", [2] * 7), (r"conv_kernel", [3] * 7),
    (r"attention_window|window_size", [4] * 12), (r"image_size", [32, 32]),
]  # fmt: skip

_WAYS: list[dict[str, int]] = [
    {}, {"num_key_value_heads": 4}, {"image_size": 64, "patch_size": 4}, {"head_dim": 16},
    {"num_key_value_heads": 4, "head_dim": 16}, {"hidden_size": 64}, {"window_size": 8},
]  # fmt: skip


def small(config: dict[str, Any], way: dict[str, int]) -> dict[str, Any]:
    """The same keys with small numbers."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and (key.endswith("config") or "model_type" in value):
            found[key] = {**small(value, way)}
            if "model_type" in value:
                found[key]["model_type"] = value["model_type"]
        elif isinstance(value, bool) or key in ("num_labels", "id2label", "label2id"):
            continue
        elif isinstance(value, float) and ("drop" in key or "mask_" in key or "jitter" in key):
            found[key] = 0.0
        elif isinstance(value, int) or (value is None and key == "num_key_value_heads"):
            size = _number(key, way)
            if size is not None:
                found[key] = size
        elif isinstance(value, list | tuple) and value and isinstance(value[0], int):
            sizes = next((s for pattern, s in _LISTS if re.search(pattern, key)), None)
            if sizes is not None:
                found[key] = sizes[: len(value)]
    layers = next((config[k] for k in ("num_hidden_layers", "n_layer") if k in config), None)
    for key, value in config.items():  # one entry a layer
        if isinstance(value, list) and key not in found and len(value) == layers:
            found[key] = [value[0], value[-1]]
    if config.get("apply_spec_augment"):
        found["apply_spec_augment"] = False
    return found


def _number(key: str, way: dict[str, int]) -> int | None:
    if key in way:
        return way[key]
    if key in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
        return {"p": 0, "b": 1, "e": 2, "d": 1}[key[0]]
    if key.endswith(("token_id", "token_index")):
        return 81 + len(key) % 16
    return next((size for pattern, size in _SIZES if re.search(pattern, key)), None)


_TASKS = {
    "words": "SEQUENCE_CLASSIFICATION", "next word": "CAUSAL_LM", "image": "IMAGE_CLASSIFICATION",
    "tokens": "TOKEN_CLASSIFICATION", "masked": "MASKED_LM", "audio": "AUDIO_CLASSIFICATION",
    "pairs": "SEQ_TO_SEQ_CAUSAL_LM", "video": "VIDEO_CLASSIFICATION", "speech": "CTC",
}  # fmt: skip


def transformers_cases() -> Iterator[Case]:
    """Each architecture once, under the first task that it has."""
    from transformers.models.auto import modeling_auto as auto

    seen: set[str] = set()
    for task, mapping in _TASKS.items():
        for name, names in getattr(auto, f"MODEL_FOR_{mapping}_MAPPING_NAMES").items():
            if name not in seen:
                seen.add(name)
                kind = names if isinstance(names, str) else names[0]
                yield Case(part="transformers", name=name, build=_builder(name, kind, task))


def _builder(name: str, kind: str, task: str) -> Callable[[], Any]:
    def build() -> tuple[nn.Module, Batch, Callable[[nn.Module, Batch], Tensor]]:
        import transformers

        first: Exception | None = None
        for way in _WAYS:
            try:
                model, config = _model(getattr(transformers, kind), name, way)
                batch = _inputs(model, config, task)
                if not bool(losses(model, batch).isfinite().all()):
                    raise ValueError("the losses are not finite")
            except Exception as error:
                first = first or error
            else:
                return model, batch, losses
        assert first is not None
        raise first

    return build


def _model(kind: Any, name: str, way: dict[str, int]) -> tuple[nn.Module, Any]:
    from transformers import CONFIG_MAPPING

    cls = CONFIG_MAPPING[name]
    torch.manual_seed(0)
    config = cls(**small(cls().to_dict(), way), num_labels=LABELS)
    for part in (config, *[v for v in vars(config).values() if hasattr(v, "to_dict")]):
        part.use_cache, part.dtype = False, torch.float32
        if getattr(part, "pad_token_id", None) is None:
            part.pad_token_id = 0
    model = kind._from_config(config, dtype=torch.float32)
    if sum(p.numel() for p in model.parameters()) > 40e6:
        raise ValueError("more than 40 million weights: the configuration has not become small")
    return model.train(), config


def _inputs(model: Any, config: Any, task: str) -> Batch:
    generator = torch.Generator().manual_seed(2)
    taken = inspect.signature(model.forward).parameters
    main = getattr(model, "main_input_name", "input_ids")

    def whole(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, (ROWS, *shape), generator=generator)

    def real(*shape: int) -> Tensor:
        return torch.randn(ROWS, *shape, generator=generator)

    side = getattr(config, "image_size", 32)
    side = max(32, side if isinstance(side, int) else 32)
    batch: Batch = {"label": whole(0, 1 << 20, 512)}
    if task == "video":
        batch[main if main in taken else "pixel_values"] = real(4, 3, 32, 32)
    elif main == "pixel_values":
        batch[main] = real(getattr(config, "num_channels", 3) or 3, side, side)
    elif main == "input_values":
        batch[main] = real(32, 16) if "time_stride" in vars(config) else real(400)
    elif main == "input_features":
        batch[main] = (
            real(32, 32) if "feature_projection_input_dim" in vars(config) else real(16, 128)
        )
    else:
        lengths = LENGTH - torch.arange(ROWS)
        mask = (torch.arange(LENGTH)[None] < lengths[:, None]).long()
        ids = whole(3, 80, LENGTH) * mask
        ids[torch.arange(ROWS), lengths - 1] = 2
        batch["input_ids"] = ids
        if "attention_mask" in taken:
            batch["attention_mask"] = mask
        if "bbox" in taken:
            corner = whole(0, 20, LENGTH, 2)
            batch["bbox"] = torch.cat([corner, corner + 3], -1)
    if "decoder_input_ids" in taken and task not in ("words", "tokens"):
        batch["decoder_input_ids"] = whole(3, 80, 6)
    return batch


def losses(model: nn.Module, batch: Batch) -> Tensor:
    """-> (B,): cross-entropy of whatever logits there are."""
    given = {k: v for k, v in batch.items() if k not in ("label", "present", "unit")}
    out = model(**given)
    logits = out.logits if hasattr(out, "logits") else out[0]
    logits = logits[0] if isinstance(logits, tuple) else logits
    flat = logits.reshape(len(logits), -1, logits.shape[-1])
    target = batch["label"].repeat(1, flat.shape[1] // 512 + 1)[:, : flat.shape[1]]
    each = functional.cross_entropy(
        flat.flatten(0, 1), (target % flat.shape[2]).flatten(), reduction="none"
    )
    return each.reshape(len(logits), -1).mean(1)


def vision_cases() -> Iterator[Case]:
    """One model of each family of torchvision and timm, where they are installed."""
    try:
        from torchvision import models
    except ImportError:
        pass
    else:
        for name in ("resnet18", "densenet121", "mobilenet_v3_small", "efficientnet_b0", "vgg11_bn",
                     "shufflenet_v2_x0_5", "squeezenet1_1", "regnet_y_400mf", "convnext_tiny",
                     "swin_t", "swin_v2_t", "mnasnet0_5"):  # fmt: skip
            yield Case(part="vision", name=name, build=_image(getattr(models, name)))
    try:
        import timm
    except ImportError:
        return
    families = {name.split(".")[0].split("_")[0]: name for name in reversed(timm.list_models())}
    for name in families.values():
        yield Case(part="vision", name=name, build=_image(lambda num_classes, name=name:
                   timm.create_model(name, num_classes=num_classes)))  # fmt: skip


def _image(make: Callable[..., nn.Module]) -> Callable[[], Any]:
    def build() -> tuple[nn.Module, Batch, Callable[[nn.Module, Batch], Tensor]]:
        torch.manual_seed(0)
        model = make(num_classes=LABELS).train()
        side = getattr(model, "default_cfg", {}).get("input_size", (3, 64, 64))[-1]
        generator = torch.Generator().manual_seed(1)
        batch = {"x": torch.randn(ROWS, 3, side, side, generator=generator)}
        batch["label"] = torch.randint(0, LABELS, (ROWS,), generator=generator)
        return (
            model,
            batch,
            lambda model, batch: functional.cross_entropy(
                model(batch["x"]), batch["label"], reduction="none"
            ),
        )

    return build
