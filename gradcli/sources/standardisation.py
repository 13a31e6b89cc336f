"""Features brought to mean 0 and standard deviation 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradcli.frozen import frozen
from gradcli.sources.arrays import blocks

_SHOWN = 4  # features whose numbers are told


@frozen
class Standardisation:
    """(x - mean) / std for each feature; a feature that never changes is centred only, and so is zero.

    It is computed on y = (x - low) / span, which is in [0, 1], so that no square of x overflows or vanishes.

    scale: the largest |x|. low, span: the least and the range of x / scale. mean, std: those of y, std with 1/n.
    constant: which features never change; their span and std are 1.
    steps: how many steps all this is taken over.
    """

    scale: np.ndarray
    low: np.ndarray
    span: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    constant: np.ndarray
    steps: int

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the standardised features; they are the last axis."""
        return np.asarray((self._unit(x) - self.mean) / self.std)

    def _unit(self, x: np.ndarray) -> np.ndarray:
        return np.asarray((x / self.scale - self.low) / self.span)

    def note(self, name: str) -> str:
        """Return what was done, with the mean and standard deviation of the first features, as reports say it."""
        changing = ~self.constant
        means = self.scale * (self.low + self.span * self.mean)
        spreads = np.where(changing, self.scale * self.span * self.std, 0.0)
        text = f"{name}: each feature standardised over {self.steps:,} steps; mean {_numbers(means)}"
        text += f", standard deviation {_numbers(spreads)}"
        still = int(self.constant.sum())
        if still:
            text += f"; {still} that never change{'s' * (still == 1)}, centred only"
        return text


def standardisation_of(series: np.ndarray, counts: Sequence[int]) -> Standardisation:
    """Return the standardisation of a series (sequences, steps, features) of finite numbers.

    counts: how many steps of each sequence, from its start, there are.
    """
    size = series.shape[2]
    least, most = np.full(size, np.inf), np.full(size, -np.inf)
    for _, _, block in blocks(series, counts):
        least, most = np.minimum(least, block.min(axis=0)), np.maximum(most, block.max(axis=0))
    constant = least == most
    scale = np.maximum(np.abs(least), np.abs(most))
    scale[scale == 0] = 1.0
    steps = sum(counts)
    plain = Standardisation(
        scale,
        low=least / scale,
        span=np.where(constant, 1.0, most / scale - least / scale),
        mean=np.zeros(size),
        std=np.ones(size),
        constant=constant,
        steps=steps,
    )
    mean = sum((plain(block).sum(axis=0) for _, _, block in blocks(series, counts)), np.zeros(size)) / steps
    squares = (np.square(plain(block) - mean).sum(axis=0) for _, _, block in blocks(series, counts))
    variance = sum(squares, np.zeros(size)) / steps
    return Standardisation(
        scale, plain.low, plain.span, mean, np.where(constant, 1.0, np.sqrt(variance)), constant, steps
    )


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.4g}" for value in values[:_SHOWN]) + (" ..." if len(values) > _SHOWN else "")
