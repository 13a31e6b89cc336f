"""Curves of gradient norms whose law is known: log10 of the ratio at d = 0..T."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradcli.diagnostics.verdict import Verdict, judge

ZERO = -np.inf


def verdict_of(curve: Any, vanishing: float = 1e-3, exploding: float = 1e3) -> Verdict:
    return judge(np.asarray(curve, dtype=float), vanishing=vanishing, exploding=exploding)


# --- curves in closed form: log10 of the ratio at d = 0..T ---


def power_of(w: float, seq_len: int) -> np.ndarray:
    """h_t = w h_(t-1): r_d = w**d."""
    return np.arange(seq_len + 1) * math.log10(w)


def critical_tanh(seq_len: int) -> np.ndarray:
    """h_t = tanh(h_(t-1)), h_0 = 0.5: the curve is the product of the last d derivatives 1 - h_t**2."""
    h, derivatives = 0.5, []
    for _ in range(seq_len):
        h = math.tanh(h)
        derivatives.append(math.log10(1 - h * h))
    return np.concatenate([[0.0], np.cumsum(derivatives[::-1])])


def orthogonal_tanh(seq_len: int, size: int = 64) -> np.ndarray:
    """h_t = tanh(Q h_(t-1)) with Q orthogonal, without input."""
    rng = np.random.default_rng(0)
    weights = np.linalg.qr(rng.normal(size=(size, size)))[0]
    h, derivatives = rng.normal(size=size), []
    for _ in range(seq_len):
        h = np.tanh(weights @ h)
        derivatives.append(1 - h * h)
    gradient = rng.normal(size=size)
    norms = [np.linalg.norm(gradient)]
    for derivative in reversed(derivatives):
        gradient = weights.T @ (derivative * gradient)
        norms.append(np.linalg.norm(gradient))
    return np.log10(norms)


def jordan_block(seq_len: int) -> np.ndarray:
    """The spectral norm of [[.9, 1], [0, .9]]**d: rises to 3.91 at d = 9, then falls as d 0.9**d."""
    d = np.arange(seq_len + 1.0)
    a, b = 0.9**d, d * 0.9 ** (d - 1)
    return 0.5 * np.log10((2 * a**2 + b**2 + b * np.sqrt(b**2 + 4 * a**2)) / 2)


def two_layers(seq_len: int) -> np.ndarray:
    """Two stacked linear layers, a1 = .9 and a2 = .5: the gradient of layer 1, relative to its 0.9 at k = 1."""
    k = np.arange(1, seq_len + 2.0)
    return np.log10((0.9**k - 0.5**k) / 0.4)


def rotation(rate: float, seq_len: int) -> np.ndarray:
    """One coordinate of a spiral: a complex pair's oscillation on top of rate**d."""
    d = np.arange(seq_len + 1)
    return d * math.log10(rate) + np.log10(np.abs(np.cos(0.3 * d)) + 0.05)


def noisy(rate: float, seq_len: int, size: int, seed: int) -> np.ndarray:
    """rate**d with a log-normal spread sqrt(d / size), as products of random matrices have."""
    steps = np.random.default_rng(seed).normal(math.log(rate), 1 / math.sqrt(size), size=seq_len)
    return np.concatenate([[0.0], np.cumsum(steps)]) / math.log(10)


DISTANCE = np.arange(101)
