"""Arguments of a Transformers `Trainer` under which a private step would not be what it says."""

# transformers is partly untyped.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any

from transformers import TrainingArguments

from nacre.core.errors import Incompatible

_REFUSED: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("train_sampling_strategy", ("random",),
     "rows are drawn by independent coins, and an order by length or by place has no price; leave "
     "it out"),
    ("label_smoothing_factor", (0, 0.0),
     "the Trainer averages it over all tokens of a batch, so rows would share a divisor; put it "
     "into `losses`, row by row"),
    ("fp16", (False,),
     "its scaler looks at the private gradients of all rows to choose a factor; train in float32"),
    ("bf16", (False,), "a loop of your own trains in float32 so far; use a recipe for bfloat16"),
    ("neftune_noise_alpha", (None,),
     "it draws noise by a row's place in the batch, and no row owns it; leave it out"),
    ("torch_compile", (False,), "the model is differentiated row by row as it is; leave it out"),
    ("use_liger_kernel", (False,),
     "its fused losses average over the whole batch; leave it out"),
    ("activation_checkpointing", (None, False),
     "layers would be computed again outside of what was tried; a smaller "
     "`per_device_train_batch_size` with more `gradient_accumulation_steps` saves memory instead"),
    ("gradient_checkpointing", (None, False),
     "layers would be computed again outside of what was tried; a smaller "
     "`per_device_train_batch_size` with more `gradient_accumulation_steps` saves memory instead"),
    ("auto_find_batch_size", (False,),
     "the batch is declared, and another one found on the way would change what was priced; set "
     "`per_device_train_batch_size`"),
    ("include_num_input_tokens_seen", ("no", False),
     "how many tokens were drawn is private; leave it out"),
    ("push_to_hub", (False,),
     "the output folder holds the run's key while the run is open; call `push_to_hub()` once "
     "training is complete"),
    ("fsdp", (None, False, "", []), "it needs one process that holds all weights; leave it out"),
    ("deepspeed", (None,), "it needs one process that holds all weights; leave it out"),
)  # fmt: skip
"""(argument, values that are sound, why no other is and what to do)"""


def require_arguments(args: TrainingArguments) -> None:
    """Raises `Incompatible` for an argument that would break the promise."""
    for name, sound, why in _REFUSED:
        value = getattr(args, name, sound[0])
        plain = getattr(value, "value", value)  # of an enumeration
        if plain not in sound:
            raise Incompatible(f"{name}={plain} cannot be used with private steps: {why}")
    if (processes := int(args.world_size)) > 1:
        raise Incompatible(
            f"a PrivateTrainer takes one process, and {processes} were started, which would draw "
            f"rows and update weights apart; {_SEVERAL}"
        )
    if (devices := int(args.n_gpu)) > 1:
        raise Incompatible(
            f"the Trainer would lay a copy of the model on each of {devices} devices, and a "
            f"private step takes one; set CUDA_VISIBLE_DEVICES=0. For several, {_SEVERAL}"
        )


_SEVERAL = (
    "train a recipe by `torchrun --nproc_per_node N -m nacre train RECIPE --into RUN`, or a loop "
    "of your own with `nacre.integrations.torch.Private`, whose processes share each step"
)
