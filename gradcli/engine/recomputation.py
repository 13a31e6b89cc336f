"""A segment of the forward pass once more: its stretches side by side, as if they were sequences of one batch.

The first pass leaves the states at the start of each stretch, so that no stretch has to wait for another. Where a step
is so small that most of it is the calls' own time, a step of all stretches takes little longer than a step of one.

Sums are taken in another order than in the first pass. Where that matters, because the cell is chaotic and grows every
difference, the end of a stretch strays from the start of the next: then segments have to be computed step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.engine.layer import Layer
from gradcli.engine.parameters import LayerParameters
from gradcli.engine.starts import Start
from gradcli.engine.step.plan import LayerPlan
from gradcli.language.graph import Dependence

Array = np.ndarray[Any, Any]

#: Stretches may end so many roundings from where the first pass was.
_ROUNDINGS = 2.0**10


def may_be_cut(plan: LayerPlan) -> bool:
    """Tell whether a layer's segments may be computed as stretches side by side.

    They may not where an entry is compared for equality, as the largest one is to find which it was: the state between
    two stretches is that of the first pass for the one that begins there, and differs in its last bits from the end of
    the other.
    """
    return not any(node.op == "equal" and node.dependence is Dependence.STATE for node in plan.order)


class Recomputation:
    """Computes segments again, and leaves their states and tape where the first pass would have left them.

    Args:
        layers: the layers of the first pass.
        stretches: S, into how many of equal length the segment is cut.

    Attributes:
        strays: whether a stretch has ended elsewhere than in the first pass; what it left is of no use then.
    """

    def __init__(self, layers: Sequence[Layer], stretches: int) -> None:
        self._layers, self._stretches = layers, stretches
        self.strays = False
        self._length = layers[0].segment // stretches
        self._side_by_side = [
            Layer(
                layer.plan,
                layer.parameters,
                trials=layer.trials,
                batch_size=stretches * layer.batch_size,
                dtype=layer.dtype,
                segment=self._length,
            )
            for layer in layers
        ]
        first = self._side_by_side[0]
        shape = (self._length, first.trials, first.plan.cell.shapes.input_size, first.batch_size)
        self._x = np.empty(shape, first.dtype)
        self._copies = [self._pairs(layer, twin) for layer, twin in zip(layers, self._side_by_side, strict=True)]

    def _pairs(self, layer: Layer, twin: Layer) -> list[tuple[Array, Array]]:
        """Return the views of what is copied to a layer, each with where it comes from: (S, n, R, size, B)."""
        pairs = [(layer.arrays[kept][kept.lag :], twin.arrays[kept][kept.lag :]) for kept in layer.kept]
        return [(self._one_after_another(to), self._beside_each_other(source)) for to, source in pairs]

    def _one_after_another(self, array: Array) -> Array:
        """Return (S n, R, size, B) as (S, n, R, size, B)."""
        return array.reshape(self._stretches, self._length, *array.shape[1:])

    def _beside_each_other(self, array: Array) -> Array:
        """Return (n, R, size, S B) as (S, n, R, size, B)."""
        return array.reshape(*array.shape[:3], self._stretches, -1).transpose(3, 0, 1, 2, 4)

    def load(self, parameters: Sequence[LayerParameters]) -> None:
        """Take other parameters."""
        for twin, values in zip(self._side_by_side, parameters, strict=True):
            twin.parameters = values
        self.strays = False

    def checkpoints(self) -> list[dict[str, Array]]:
        """Return for each layer what `forward` needs of the segment that the first pass has just gone over."""
        firsts = range(0, self._stretches * self._length, self._length)
        return [
            {
                name: np.concatenate([array[first : first + layer.lag] for first in firsts], axis=-1)
                for name, array in layer.states.items()
            }
            for layer in self._layers
        ]

    def forward(
        self,
        x: Array,
        checkpoints: Sequence[Mapping[str, Array]],
        starts: Sequence[Sequence[Start]],
        filled: Callable[[Array], Array] | None,
    ) -> None:
        """Run over a whole segment.

        Args:
            x: its input, (n, R, input_size, B). starts: for each layer the sequences that begin within the segment.
            filled: gives what a layer puts out with that of a sequence that is there for those that are not; None where
                all are there.
        """
        batch_size = self._layers[0].batch_size
        beside = self._x
        np.copyto(self._beside_each_other(beside), self._one_after_another(x))
        each = zip(self._layers, self._side_by_side, self._copies, checkpoints, starts, strict=True)
        for layer, twin, copies, history, own_starts in each:
            twin.forward(beside, history, starts=[self._within_stretch(start) for start in own_starts])
            for to, source in copies:
                np.copyto(to, source)
            layer.resume(x, {name: past[..., :batch_size] for name, past in history.items()})
            for start in own_starts:
                layer.begin(start)  # which also changes the steps before it, of the stretch before
            x, beside = layer.outputs(), twin.outputs()
            if filled is not None:
                x, beside = filled(x), np.empty_like(beside)
                np.copyto(self._beside_each_other(beside), self._one_after_another(x))
        self.strays = not all(map(self._agree, self.checkpoints(), checkpoints))

    def _within_stretch(self, start: Start) -> Start:
        """Return the same start among sequences that are stretches side by side."""
        stretch, offset = divmod(start.offset, self._length)
        return Start(offset, stretch * self._layers[0].batch_size + start.sequences, start.history)

    def _agree(self, found: Mapping[str, Array], wanted: Mapping[str, Array]) -> bool:
        """Tell whether the states at the start of the stretches are those of the first pass, but for rounding."""
        tolerance = _ROUNDINGS * np.finfo(self._layers[0].dtype).eps
        return all(
            bool(np.abs(found[name] - past).max() <= tolerance * np.abs(past).max()) for name, past in wanted.items()
        )
