"""The functions of the language of equations, as PyTorch has them. Columns: (size, batch)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from late_torch import torch

if TYPE_CHECKING:
    from torch import Tensor


def _functional(name: str, **arguments: Any) -> Callable[[Tensor], Tensor]:
    return lambda a: getattr(torch.nn.functional, name)(a, **arguments)


def _function(name: str) -> Callable[[Tensor], Tensor]:
    return lambda a: getattr(torch, name)(a)


class TorchLibrary:
    """What `equations.evaluate` asks of PyTorch."""

    functions: Mapping[str, Callable[[Tensor], Tensor]] = {
        **{
            name: _function(name)
            for name in ("sigmoid", "tanh", "relu", "erf", "exp", "log", "sqrt", "sin", "cos", "abs")
        },
        **{name: _functional(name) for name in ("leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "softsign")},
        # functional.hardsigmoid's own backward multiplies by 1/6 rounded to float32, even for float64 tensors.
        "hard_sigmoid": lambda a: torch.clamp(a / 6 + 0.5, 0, 1),
        "hard_tanh": _functional("hardtanh"),
        "identity": lambda a: a,
        "softmax": _functional("softmax", dim=0),
    }
    #: Functions of a vector that take an eps of their own, if one is given.
    norms: Mapping[str, Callable[..., Tensor]] = {
        "layer_norm": lambda a, eps=1e-5: torch.nn.functional.layer_norm(a.T, (a.shape[0],), eps=float(eps)).T,
        "batch_norm": lambda a, eps=1e-5: (
            torch.nn.functional.batch_norm(a.T, None, None, training=True, eps=float(eps)).T
        ),
    }

    def number(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64)

    def zeros_like(self, value: Tensor) -> Tensor:
        return torch.zeros_like(value)

    def columns(self, vector: Tensor, batch_size: int) -> Tensor:
        """Return a vector with a column for every sequence."""
        return vector.expand(-1, batch_size)

    def concatenated(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts))


TORCH = TorchLibrary()
