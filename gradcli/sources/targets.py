"""What a loss compares the output with: targets, classes, and the vector of a projection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from gradcli.sources.exact_values import exact_array, exact_view
from gradcli.sources.initial_states import DRAWS
from gradcli.sources.input_source import InputSource, SymbolSource
from gradcli.sources.streams import DrawnSteps, stream
from gradcli.sources.target_files import TargetError, read_classes, read_values
from gradcli.spec.initialisers import Exact
from gradcli.spec.losses import (
    DEFAULT_CLASSES,
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    DrawnBit,
    DrawnClass,
    FileTarget,
    GivenClass,
    MSELoss,
    NextSymbol,
    ProjectionLoss,
    TargetLoss,
)


def draw_target(
    loss: TargetLoss | ProjectionLoss,
    *,
    output_size: int,
    steps: Sequence[int],
    batch_size: int,
    trials: int,
    seed: int,
    input_source: InputSource,
    folder: Path = Path(),
    part: slice = slice(None),
) -> np.ndarray:
    """Return what `loss` compares the output with.

    steps: the steps of the loss, counted from 1, ascending. part: the positions of `steps` that are wanted (one at
    least), for runs too long for all at once. Neither it nor the other steps change what is drawn for a step.
    folder: where the paths of files start. Before a sequence of theirs begins, targets from files are zero.

    mse: float64 (steps, trials, output_size, batch); binary_cross_entropy likewise, from 0 to 1. cross_entropy:
    integers (steps, trials, batch) below `class_count`. projection: float64 (trials, output_size), the same at every
    step.

    Raises InitialiserError or TargetError where given values do not fit, InputFileError where a file is unreadable.
    """
    if isinstance(loss, ProjectionLoss):
        return _projection_vector(loss, output_size, trials, seed)
    chosen = np.asarray(steps[part], dtype=np.int64)

    def drawn(draw: Callable[[np.random.Generator, int], np.ndarray]) -> np.ndarray:
        source = DrawnSteps(draw, seed=seed, names=("target",), trials=trials, length=int(chosen[-1]))
        return np.concatenate([source.read(*run) for run in _runs(chosen)])

    if isinstance(loss, MSELoss | BinaryCrossEntropyLoss):
        law = loss.target
        if isinstance(law, Exact):
            values = exact_view(law.values, (output_size,), count=len(steps))[part, np.newaxis, :, np.newaxis]
            if isinstance(loss, BinaryCrossEntropyLoss):
                _require_probabilities(values)
            return np.broadcast_to(values, (len(chosen), trials, output_size, batch_size)).copy()
        if isinstance(law, FileTarget):
            binary = isinstance(loss, BinaryCrossEntropyLoss)
            found = read_values(law, folder, input_source, chosen, output_size, probabilities=binary)
            return np.repeat(found[:, np.newaxis], trials, axis=1)
        if isinstance(law, DrawnBit):
            shape = (output_size, batch_size)
            return drawn(lambda rng, count: rng.integers(2, size=(count, *shape)).astype(np.float64))
        draw = DRAWS[type(law)]
        return drawn(lambda rng, count: draw(law, rng, (count, output_size, batch_size)))
    classes = class_count(loss, input_source)
    target = class_target(loss, input_source)
    if isinstance(target, NextSymbol):
        symbols = _symbol_source(input_source).symbols
        # The target at step t is the symbol of step t + 1.
        return np.concatenate([symbols(*run) for run in _runs(chosen + 1)])
    if isinstance(target, GivenClass):
        given = _given_classes(target, classes, len(steps))[part, np.newaxis, np.newaxis]
        return np.broadcast_to(given, (len(chosen), trials, batch_size)).copy()
    if isinstance(target, FileTarget):
        labels = read_classes(target, folder, input_source, chosen, classes)[:, np.newaxis]
        return np.repeat(labels, trials, axis=1)
    return drawn(lambda rng, count: rng.integers(classes, size=(count, batch_size)))


ClassTarget = DrawnClass | NextSymbol | GivenClass | FileTarget


def class_target(loss: CrossEntropyLoss, input_source: InputSource) -> ClassTarget:
    """Return the target of a cross-entropy; unless given, the next symbol where the input has symbols, else drawn."""
    if loss.target is not None:
        target: ClassTarget = loss.target
        return target
    return NextSymbol() if isinstance(input_source, SymbolSource) else DrawnClass()


def class_count(loss: CrossEntropyLoss, input_source: InputSource) -> int:
    """Return the number of classes; unless given, the number of symbols where the target is the next one.

    Raises TargetError where the symbols are more than the classes, or where there are none.
    """
    if not isinstance(class_target(loss, input_source), NextSymbol):
        return DEFAULT_CLASSES if loss.classes is None else loss.classes
    symbols = _symbol_source(input_source).symbol_count
    if loss.classes is None:
        return symbols
    if loss.classes < symbols:
        raise TargetError(
            f"the target is the next of {symbols} symbols, but classes is {loss.classes}; "
            f"leave classes out, or set it to at least {symbols}"
        )
    return loss.classes


def _symbol_source(source: InputSource) -> SymbolSource:
    if not isinstance(source, SymbolSource):
        raise TargetError(
            "target next needs an input of symbols: kind one_hot, text or tokens; for other inputs: drawn, class"
            " numbers, or a file of them"
        )
    return source


def _given_classes(target: GivenClass, classes: int, steps: int) -> np.ndarray:
    """Return given class numbers, one for every step of the loss: (steps,)."""
    given = np.atleast_1d(np.asarray(target.classes, dtype=np.int64))
    if isinstance(target.classes, list) and len(given) != steps:
        raise TargetError(f"expected one class, or one for each of the {steps} steps of the loss; got {len(given)}")
    if given.max() >= classes:
        raise TargetError(f"class {given.max()} is out of range: with {classes} classes they are 0 to {classes - 1}")
    return np.broadcast_to(given, (steps,))


def _require_probabilities(values: np.ndarray) -> None:
    wrong = values[(values < 0) | (values > 1)]
    if wrong.size:
        raise TargetError(f"expected numbers from 0 to 1, such as 0 for no and 1 for yes; got {wrong[0]:g}")


def _projection_vector(loss: ProjectionLoss, output_size: int, trials: int, seed: int) -> np.ndarray:
    """Return v of L = v . h: as given, or uniform on the unit sphere, drawn for every trial."""
    if loss.vector is not None:
        return np.broadcast_to(exact_array(loss.vector, (output_size,)), (trials, output_size)).copy()
    gaussian = np.stack([stream(seed, "projection", trial).standard_normal(output_size) for trial in range(trials)])
    vectors: np.ndarray = gaussian / np.linalg.norm(gaussian, axis=1, keepdims=True)
    return vectors


def _runs(steps: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the runs of consecutive steps, counted from 1, as bounds [start, stop) counted from 0."""
    ends = np.flatnonzero(np.diff(steps) != 1)
    for first, last in zip([0, *(ends + 1)], [*ends, len(steps) - 1], strict=True):
        yield int(steps[first]) - 1, int(steps[last])
