"""Tensors that belong together: those under one prefix of their names, as the tensors of a layer are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from gradcli.frozen import frozen
from gradcli.weights.checkpoint import FLOATS, Checkpoint, Tensor
from gradcli.weights.layers import Unsupported


class Misfit(Exception):
    """Tensors that look like those of a recurrent layer and cannot be: the text says which, and what was expected."""

    def unsupported(self, group: Group) -> Unsupported:
        """Return what is told of the layer that the group would have been."""
        name = group.prefix or "the recurrent layer"
        return Unsupported(name, str(self), group.names)


@frozen
class Group:
    """The tensors under a prefix, by the rest of their names, in which parts are joined by "/".

    prefix: as the file writes it, without the joint behind it; "" for names that have none.
    """

    prefix: str
    tensors: Mapping[str, Tensor]

    def tensor(self, rest: str) -> Tensor:
        """Return a tensor; Misfit where it is missing, or holds no floating-point numbers."""
        if rest not in self.tensors:
            raise Misfit(f"its tensor {rest} is missing; check that the file is complete")
        found = self.tensors[rest]
        if found.dtype not in FLOATS:
            raise Misfit(f"its tensor {found.name} is of {found.dtype}; expected one of {', '.join(FLOATS)}")
        return found

    def matrix(self, rest: str) -> Tensor:
        """Return a tensor with two dimensions, none of them 0; Misfit for any other."""
        found = self.tensor(rest)
        if len(found.shape) != 2 or 0 in found.shape:
            raise Misfit(f"its tensor {found.name} has the shape {_shown(found.shape)}; expected a matrix")
        return found

    def shaped(self, rest: str, shape: tuple[int, ...]) -> Tensor:
        """Return a tensor of this shape; Misfit for any other."""
        found = self.tensor(rest)
        if found.shape != shape:
            raise Misfit(f"its tensor {found.name} has the shape {_shown(found.shape)}; expected {_shown(shape)}")
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """What the file calls the tensors."""
        return tuple(tensor.name for tensor in self.tensors.values())


def groups(checkpoint: Checkpoint, taken: set[str], rest: str) -> list[Group]:
    """Return the tensors whose names end in what the pattern `rest` matches, by what stands before it.

    Parts of names are joined by "." or "/"; in the pattern, "/" stands for either.
    """
    pattern = re.compile(rf"(?:(.*)[./])?({rest.replace('/', '[./]')})", re.DOTALL)
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.tensors.items():
        if name not in taken and (match := pattern.fullmatch(name)):
            found.setdefault(match[1] or "", {})[match[2].replace(".", "/")] = tensor
    return [Group(prefix, tensors) for prefix, tensors in found.items()]


def dtype_of(tensors: Iterable[Tensor]) -> str:
    """Return the dtype of the tensors; of several the first of `FLOATS`."""
    return min((tensor.dtype for tensor in tensors), key=FLOATS.index)


def _shown(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
