"""The functions of the language of equations, as PyTorch has them. The batch is the last axis."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from late_torch import torch

if TYPE_CHECKING:
    from torch import Tensor


def _functional(name: str, **arguments: Any) -> Callable[[Tensor], Tensor]:
    return lambda a: getattr(torch.nn.functional, name)(a, **arguments)


def _function(name: str) -> Callable[[Tensor], Tensor]:
    return lambda a: getattr(torch, name)(a)


def _of_sigmoid(a: Tensor, k: float) -> Tensor:
    s = torch.sigmoid(k * a)
    return k * s * (1 - s)


#: The slopes that stand for that of a step, by the argument and the sharpness k.
SURROGATES: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "atan": lambda a, k: (k / 2) / (1 + (math.pi / 2 * k * a) ** 2),
    "fast_sigmoid": lambda a, k: 1 / (1 + k * abs(a)) ** 2,
    "sigmoid": _of_sigmoid,
    "triangle": lambda a, k: (k - k**2 * abs(a)) * (abs(a) <= 1 / k),
    "rectangle": lambda a, k: k * (abs(a) < 1 / (2 * k)).to(a.dtype),
}


@functools.cache
def _spikes() -> Any:
    """Return the function of a step forward and a surrogate backward, made once PyTorch is there."""

    class Spike(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
        @staticmethod
        def forward(context: Any, a: Tensor, surrogate: str, sharpness: float) -> Tensor:
            context.save_for_backward(a)
            context.slope = lambda at: SURROGATES[surrogate](at, sharpness)
            return (a > 0).to(a.dtype)

        @staticmethod
        def backward(context: Any, *gradients: Tensor) -> Any:
            (a,) = context.saved_tensors
            return gradients[0] * context.slope(a), None, None

    return Spike


class TorchLibrary:
    """What `equations.evaluate` asks of PyTorch."""

    #: Entry by entry.
    functions: Mapping[str, Callable[[Tensor], Tensor]] = {
        **{
            name: _function(name)
            for name in ("sigmoid", "tanh", "relu", "erf", "exp", "log", "sqrt", "sin", "cos", "abs")
        },
        **{name: _functional(name) for name in ("leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "softsign")},
        "log_sigmoid": _functional("logsigmoid"),
        # functional.hardsigmoid's own backward multiplies by 1/6 rounded to float32, even for float64 tensors.
        "hard_sigmoid": lambda a: torch.clamp(a / 6 + 0.5, 0, 1),
        "hard_tanh": _functional("hardtanh"),
        "identity": lambda a: a,
    }
    #: Of a whole vector, (size, batch), and of its size.
    across: Mapping[str, Callable[..., Tensor]] = {
        "softmax": _functional("softmax", dim=0),
        "cumsum": lambda a: torch.cumsum(a, dim=0),
        "layer_norm": lambda a, eps=1e-5: torch.nn.functional.layer_norm(a.T, (a.shape[0],), eps=eps).T,
        "batch_norm": lambda a, eps=1e-5: torch.nn.functional.batch_norm(a.T, None, None, training=True, eps=eps).T,
    }
    #: Those of them that take an eps of their own, if one is given.
    with_eps: Sequence[str] = ("layer_norm", "batch_norm")
    #: Of all entries together, (entries, batch): one number.
    reductions: Mapping[str, Callable[[Tensor], Tensor]] = {
        "sum": lambda a: torch.sum(a, dim=0),
        "mean": lambda a: torch.mean(a, dim=0),
        "norm": lambda a: torch.linalg.vector_norm(a, dim=0),
        "max": lambda a: torch.amax(a, dim=0),
        "min": lambda a: torch.amin(a, dim=0),
    }
    #: Of two values, entry by entry.
    pairs: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
        "max": lambda a, b: torch.maximum(a, b),
        "min": lambda a, b: torch.minimum(a, b),
    }

    def number(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64)

    def zeros_like(self, value: Tensor) -> Tensor:
        return torch.zeros_like(value)

    def identity(self, size: int) -> Tensor:
        return torch.eye(size, dtype=torch.float64)[:, :, None]

    def einsum(self, axes: str, a: Tensor, b: Tensor) -> Tensor:
        return torch.einsum(axes, a, b)

    def transposed(self, matrix: Tensor) -> Tensor:
        return matrix.transpose(0, 1)

    def where(self, condition: Tensor, chosen: Tensor, other: Tensor) -> Tensor:
        return torch.where(condition, chosen, other)

    def stop(self, value: Tensor) -> Tensor:
        """Return a value without its gradient."""
        return value.detach()

    def spike(self, value: Tensor, surrogate: str, sharpness: float) -> Tensor:
        """Return 1 where a value is above 0, else 0; the slope is the surrogate's."""
        return _spikes().apply(value, surrogate, sharpness)

    def columns(self, value: Tensor, batch_size: int) -> Tensor:
        """Return a vector, or a number as a vector of one entry, with a column for every sequence."""
        return (value if value.ndim == 2 else value.reshape(1, -1)).expand(-1, batch_size)

    def concatenated(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts))


TORCH = TorchLibrary()
