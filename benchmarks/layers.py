"""Layers of torch.nn and functions of free weights, each behind a trainable scale."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from architectures import ROWS, Batch, Case
from torch import Tensor, nn
from torch.nn import functional


class Behind(nn.Module):
    """A layer, or a function of free weights, behind a scale, so that its input has a gradient."""

    def __init__(self, layer: nn.Module | None, call: Callable[..., Tensor], **free: Tensor):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.1))
        self.layer, self.call = layer, call
        self.free = nn.ParameterDict(free)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale if x.is_floating_point() else x
        return self.call(self.layer if self.layer is not None else self.free, x)


def _losses(model: nn.Module, batch: Batch) -> Tensor:
    out = model(batch["x"])
    out = torch.view_as_real(out) if out.is_complex() else out
    flat = out.reshape(len(out), -1)
    return (flat + 0.3).sin().sum(1) + 0.1 * flat.square().sum(1)


def _case(
    name: str, layer: Callable[[], nn.Module] | None, shape: tuple[int, ...],
    call: Callable[..., Any] = lambda layer, x: layer(x), words: int = 0, **free: tuple[int, ...],
) -> Case:  # fmt: skip
    def build() -> tuple[nn.Module, Batch, Callable[[nn.Module, Batch], Tensor]]:
        torch.manual_seed(3)
        weights = {n: torch.randn(size) * 0.4 for n, size in free.items()}
        model = Behind(layer() if layer is not None else None, call, **weights).train()
        x = torch.randint(0, words, (ROWS, *shape)) if words else torch.randn(ROWS, *shape)
        _losses(model, {"x": x})
        return model, {"x": x}, _losses

    return Case(part="layers", name=name, build=build)


def _over_time(layer: Any, x: Tensor, *, weights: bool = False) -> Tensor:
    """A recurrent layer or attention over (B, T, D), with time first where it wants that."""
    x = x if layer.batch_first else x.transpose(0, 1)
    if isinstance(layer, nn.MultiheadAttention):
        out = layer(x, x, x, need_weights=weights)[0]
    else:
        out = layer(x)[0]
    return out if layer.batch_first else out.transpose(0, 1)


def _modules() -> Iterator[Case]:
    size = {1: (11,), 2: (9, 8), 3: (5, 6, 5)}
    plain = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    turned = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
    for axes, kernel, stride, groups, spread in itertools.product(
        (1, 2, 3), (1, 3), (1, 2), (1, 2, 4), (1, 2)
    ):
        more: dict[str, Any] = {
            "stride": stride,
            "groups": groups,
            "dilation": spread,
            "padding": kernel // 2,
        }
        for kind in (plain[axes], turned[axes]):
            yield _case(f"{kind.__name__} {kernel} {more}", lambda kind=kind, kernel=kernel,
                        more=more: kind(4, 8, kernel, **more), (4, *size[axes]))  # fmt: skip
    for shape in ((5,), (3, 5), (3, 2, 5)):
        yield _case(f"Linear {shape}", lambda: nn.Linear(5, 7), shape)
        yield _case(f"Bilinear {shape}", lambda: nn.Bilinear(5, 5, 3), shape, lambda m, x: m(x, x))
        yield _case(f"RMSNorm {shape}", lambda: nn.RMSNorm(5), shape)
        yield _case(f"LayerNorm {shape}", lambda: nn.LayerNorm(5), shape)
    for groups, after in itertools.product((1, 2, 6), ((7,), (5, 4))):
        yield _case(f"GroupNorm {groups} {after}", lambda groups=groups: nn.GroupNorm(groups, 6),
                    (6, *after))  # fmt: skip
    yield _case("InstanceNorm2d", lambda: nn.InstanceNorm2d(6, affine=True), (6, 5, 4))
    for kind, layers, both, first in itertools.product(
        (nn.LSTM, nn.GRU, nn.RNN), (1, 2), (False, True), (False, True)
    ):
        yield _case(f"{kind.__name__} {layers} {both} {first}", lambda kind=kind, layers=layers,
                    both=both, first=first: kind(4, 6, layers, batch_first=first,
                                                 bidirectional=both), (5, 4),
                    _over_time)  # fmt: skip
    for first, weights in itertools.product((False, True), repeat=2):
        yield _case(f"MultiheadAttention {first} {weights}",
                    lambda first=first: nn.MultiheadAttention(8, 2, batch_first=first), (5, 8),
                    lambda m, x, w=weights: _over_time(m, x, weights=w))  # fmt: skip
    yield _case("TransformerEncoderLayer", lambda: nn.TransformerEncoderLayer(
                8, 2, 12, 0.0, batch_first=True), (5, 8))  # fmt: skip
    yield _case("PReLU", lambda: nn.PReLU(6), (6, 4))
    options: list[dict[str, Any]] = [{}, {"padding_idx": 0}, {"sparse": True}]
    for more in options:
        yield _case(
            f"Embedding {more}", lambda more=more: nn.Embedding(9, 6, **more), (5,), words=9
        )
    for mode in ("sum", "mean", "max"):
        yield _case(f"EmbeddingBag {mode}", lambda mode=mode: nn.EmbeddingBag(9, 6, mode=mode),
                    (5,),
                    words=9)  # fmt: skip


def _in_place(name: str) -> Callable[[Any, Tensor], Tensor]:
    def call(w: Any, x: Tensor) -> Tensor:
        x = x * 1.0
        getattr(x, name)(w["w"])
        return x.tanh()

    return call


def _functions() -> Iterator[Case]:
    f = functional
    table: list[tuple[str, tuple[int, ...], Callable[..., Any], dict[str, tuple[int, ...]]]] = [
        ("x @ w", (3, 5), lambda w, x: x @ w["w"], {"w": (5, 4)}),
        ("w @ x.T", (5,), lambda w, x: (w["w"] @ x.T).T, {"w": (4, 5)}),
        ("einsum", (3, 5), lambda w, x: torch.einsum("btd,de->bte", x, w["w"]), {"w": (5, 4)}),
        ("einsum of heads", (3, 5), lambda w, x: torch.einsum("btd,hde->bhte", x, w["w"]),
         {"w": (2, 5, 4)}),
        ("prelu", (5,), lambda w, x: f.prelu(x, w["w"]), {"w": (5,)}),
        ("power", (5,), lambda w, x: (x.abs() + 0.5) ** w["w"], {"w": (5,)}),
        ("cdist", (3, 5), lambda w, x: torch.cdist(x, w["w"]), {"w": (4, 5)}),
        ("hypot", (5,), lambda w, x: torch.hypot(x, w["w"]), {"w": (5,)}),
        ("where", (5,), lambda w, x: torch.where(x > 0, x * w["w"], w["v"]),
         {"w": (5,), "v": (5,)}),
        ("masked_fill", (5,), lambda w, x: x.masked_fill(x < 0, 0) + w["w"], {"w": (5,)}),
        ("class token", (3, 5), lambda w, x: torch.cat([w["w"].expand(len(x), 1, 5), x], 1),
         {"w": (1, 1, 5)}),
        ("learnt bias", (3, 4), lambda w, x: f.scaled_dot_product_attention(x, x, x, w["w"]),
         {"w": (3, 3)}),
        ("outer", (5,), lambda w, x: x[:, :, None] * w["w"], {"w": (4,)}),
        ("orthogonal", (4,), lambda w, x: x @ torch.matrix_exp(w["w"] - w["w"].T), {"w": (4, 4)}),
        ("weight norm", (4,), lambda w, x: x @ (w["w"] / w["w"].norm()), {"w": (4, 4)}),
        ("complex product", (4,), lambda w, x: x.to(torch.cfloat) * torch.view_as_complex(w["w"]),
         {"w": (4, 2)}),
        ("complex matrix", (4,), lambda w, x: x.to(torch.cfloat) @ torch.complex(w["w"], w["v"]),
         {"w": (4, 3), "v": (4, 3)}),
        ("Fourier filter", (3, 8), lambda w, x: torch.fft.irfft(
            torch.fft.rfft(x) * torch.view_as_complex(w["w"]), n=8), {"w": (3, 5, 2)}),
        ("Fourier convolution", (3, 8), lambda w, x: torch.fft.irfft(
            torch.fft.rfft(x, n=16) * torch.fft.rfft(w["w"], n=16), n=16)[..., :8], {"w": (3, 8)}),
        ("state-space kernel", (3, 8), _state_space, {"a": (3, 4), "c": (3, 4, 2), "dt": (3,)}),
        ("gathered rows", (5,), lambda w, x: w["w"].index_select(0, x.argmax(1)) * x,
         {"w": (5, 5)}),
        ("gathered entries", (5,), lambda w, x: x * w["w"].gather(0, x.argsort(1)[:, :1]).sum(1,
         keepdim=True), {"w": (5, 5)}),
        ("write of a row", (3, 5), _row_written, {"w": (5,)}),
    ]  # fmt: skip
    for name, shape, call, free in table:
        yield _case(name, None, shape, call, 0, **free)
    for name in (
        "add_",
        "sub_",
        "mul_",
        "div_",
        "__iadd__",
        "__isub__",
        "__imul__",
        "__itruediv__",
    ):
        yield _case(f"{name} in place", None, (3, 5), _in_place(name), w=(5,))


def _row_written(w: Any, x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 0] = w["w"]
    return x.tanh()


def _state_space(w: Any, x: Tensor) -> Tensor:
    """A diagonal state-space layer: a kernel of complex exponentials, convolved by Fourier."""
    length = x.shape[-1]
    poles = torch.complex(-w["a"].exp(), torch.arange(4.0).expand(3, 4)) * w["dt"].exp()[:, None]
    steps = (poles[..., None] * torch.arange(length)).exp()
    kernel = 2 * torch.einsum("hn,hnl->hl", torch.view_as_complex(w["c"]), steps).real
    spectrum = torch.fft.rfft(x, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
    return torch.fft.irfft(spectrum, n=2 * length)[..., :length]


def layer_cases() -> Iterator[Case]:
    """Every layer and function of the zoo."""
    yield from _modules()
    yield from _functions()
