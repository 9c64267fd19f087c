"""Weights and optimizer state in parts (FSDP2): for models whose state fills one process' memory.

A process holds all of the weights only from before a sum until after it, and never more than its
part of the optimizer's state. The sum itself, and what is released of it, is whole everywhere.
"""

# torch.distributed is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from nacre.core.errors import Incompatible
from nacre.core.tensors import trainable
from nacre.core.types import Tensors
from nacre.training.devices.group import Group, connected
from nacre.training.devices.portions import Devices, refuse_statistics


class Sharded(Devices):
    """Each process keeps its part of the weights and of the optimizer's state (FSDP2).

    The model that is trained stays a plain module: `gather` puts whole weights into it, and
    `scatter` takes their memory away, so every gradient sum works as on one process.
    """

    def __init__(self, group: Group, portions: int) -> None:
        super().__init__(group, portions)
        self._holders: list[FSDPModule] = []
        self._shards: dict[str, DTensor] = {}  # of all parameters, frozen ones too
        self._whole: dict[str, nn.Parameter] = {}
        self._gathered = True

    def place(self, model: nn.Module) -> Tensors:
        """See `Devices.place`; a parameter that is a single number is refused too."""
        refuse_statistics(model)
        parameters = dict(model.named_parameters())
        for name, parameter in parameters.items():
            if not parameter.shape:
                raise Incompatible(
                    f"the parameter {name!r} is a single number, which has no parts to deal; give "
                    "it a dimension, or use `execution: {devices: replicated}`"
                )
        for dtype in {parameter.dtype for parameter in parameters.values()}:
            self._hold({name: p for name, p in parameters.items() if p.dtype == dtype})
        _replace(model, {parameters[name]: whole for name, whole in self._whole.items()})
        return self.moved(model)

    def _hold(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Deals these parameters, which have one dtype."""
        holder = nn.ParameterList(parameters.values())
        fully_shard(holder, mesh=init_device_mesh("cpu", (self.group.size,)))
        shards = cast(list[DTensor], list(holder.parameters()))
        self._shards |= dict(zip(parameters, shards, strict=True))
        sharded = cast(FSDPModule, holder)
        sharded.unshard()
        self._whole |= dict(zip(parameters, holder.parameters(), strict=True))
        self._holders.append(sharded)

    def moved(self, model: nn.Module) -> Tensors:
        return {name: self._shards[name] for name in trainable(model)}

    def part(self, whole: Tensor, like: Tensor) -> Tensor:
        assert isinstance(like, DTensor)
        return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)

    def whole(self, part: Tensor) -> Tensor:
        with connected():
            return part.full_tensor() if isinstance(part, DTensor) else part

    def gather(self) -> None:
        if not self._gathered:
            with connected():
                for holder in self._holders:
                    holder.unshard()
            self._gathered = True

    def scatter(self) -> None:
        if self._gathered:
            for holder in self._holders:
                holder.reshard()
            self._gathered = False

    def adopt(self) -> None:
        with torch.no_grad():
            for name, shard in self._shards.items():
                part = self.part(self._whole[name].detach(), shard)
                shard.to_local().copy_(cast(DTensor, part).to_local())


def _replace(model: nn.Module, by: Mapping[nn.Parameter, nn.Parameter]) -> None:
    """Puts other parameters in the places of these, also where one has several places."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, by[parameter])
