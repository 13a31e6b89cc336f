"""Norms and products of the terms of a gradient, step by step, for windows of steps counted from the last one.

With G the whole gradient, g_t the term of step t and G_K the sum of the last K terms, what is wanted is |g_t|,
<g_t, G>, |G_K| and |G_K - G|. `sums_of_terms` takes the terms as they are. Those of a weight matrix are products,

    g_t = sum_b delta_tb v_tb',

of the adjoints delta of what it is multiplied into and the vectors v that it is multiplied with, b over sequences, and
`TermsOfProducts` never makes them: for some steps at once

    <G, g_t>   = sum_b delta_tb' G v_tb
    <g_s, g_t> = sum_bc (delta_sb . delta_tc) (v_sb . v_tc)

are large products. The squared norms of windows are |C|^2 + 2 <C, sum g> + |sum g|^2, with C the window before these
steps, and |D|^2 - 2 <D, sum g> + |sum g|^2, with D = C - G after them, so that what little is missing from a window
that is nearly the whole gradient keeps its digits. Where such a sum cancels, or where squares may leave the range of
floats, the terms of the steps are made after all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gradcli.engine.backward import BackwardPass, Block, Products
from gradcli.engine.factors import Factors, Use, factors_of, of_whole_parameters
from gradcli.engine.scaled import NOTHING, Scaled, exponent_of, scale_by, summed_products_of_columns
from gradcli.frozen import frozen
from gradcli.language.graph import Node

Array = np.ndarray[Any, Any]

#: The numbers kept for each step, trial and parameter: see `Sums`.
NUMBERS_KEPT = 4
#: Products of steps with each other are taken for about so many columns (steps times sequences) at once: there are as
#: many products for each column.
_COLUMNS = 96
#: A squared norm below this share of what it would be if nothing cancelled has lost too many digits.
_SURE_SHARE = 1e-5
#: A square below this may have lost digits to the end of the range of floats.
_SURE_SQUARE = 1e-200
#: Nor is a product with the whole gradient sure that comes from parts of it so many times larger.
_FAR_LARGER = 1e4
#: A factor whose power of two is no larger than this needs none of its own.
_NEAR_ONE = 64


@frozen
class Sums:
    """What is kept of the terms of one gradient, each (T, R) by distance or window.

    log2_norm: of the terms. The others are in units of 4**e, with e the exponent of the whole gradient in its trial:
    dot: <g_d, G>. kept: |G_K|^2. missing: |G_K - G|^2.
    """

    log2_norm: Array
    dot: Array
    kept: Array
    missing: Array

    @classmethod
    def of_size(cls, trials: int, steps: int) -> Sums:
        return cls(*np.zeros((NUMBERS_KEPT, steps, trials)))

    def put(self, distances: slice, trials: Any, found: Sequence[Array]) -> None:
        """Take the four numbers, (n, R) each, of some trials at some distances."""
        for mine, values in zip((self.log2_norm, self.dot, self.kept, self.missing), found, strict=True):
            mine[distances, trials] = values


def sums_of_terms(terms: Scaled, whole: Scaled, window: Array) -> tuple[Array, Array, Array, Array]:
    """Return log2 |g|, and <g, G>, |G_K|^2 and |G_K - G|^2 in units of 4**(exponent of G), (n, R) each by distance.

    Args:
        terms: g of the steps of a block, (n, R, ...), in the order of the steps. whole: G, (R, ...).
        window: the sum of the terms of all later steps, (R, entries), at the exponents of `whole`; that of these as
            well is put into its place.
    """
    total = whole.mantissa.reshape(window.shape)
    windows = in_units_of(terms, whole)[::-1]
    products = dots(windows, total)
    windows[0] += window
    for before, after in pairwise(windows):  # np.cumsum is five times slower along the first axis
        after += before
    window[:] = windows[-1]
    kept = dots(windows, windows)
    windows -= total
    return terms.log2_norm()[::-1], products, kept, dots(windows, windows)


def in_units_of(terms: Scaled, whole: Scaled) -> Array:
    """Return the terms of n steps, (n, R, entries), at the exponents of the whole gradient."""
    # Far below the whole gradient's size the factor is 0, and the term makes no difference to a float. The exponent of
    # an exact zero says nothing.
    shift = np.where(terms.nonzero(), terms.exponent - whole.exponent, NOTHING)
    factor = scale_by(np.ones(()), shift)[..., None]
    return np.asarray(terms.mantissa.reshape(*shift.shape, -1) * factor)


def dots(a: Array, b: Array) -> Array:
    """Return the products of vectors (n, R, entries) with others, or with those of all steps, (R, entries): (n, R)."""
    return np.asarray(np.einsum("nrp,nrp->nr" if b.ndim == 3 else "nrp,rp->nr", a, b))


class TermsOfProducts:
    """Takes the sums of terms for the parameters of a layer that are one part of one product each.

    Args:
        backward: a pass over the layer, made with `parameters`.
        whole: the gradients of all parameters of the layer, for these trials.
        seq_len: T. divisor: what the sum over sequences is divided by.

    Attributes:
        names: of the parameters that are taken here; others need their terms. nodes: theirs.
    """

    def __init__(self, backward: BackwardPass, whole: Mapping[str, Scaled], seq_len: int, divisor: int) -> None:
        found = of_whole_parameters(backward.plan, factors_of(backward.plan))
        self.nodes: set[Node] = {use.node for factors in found for use in factors.uses}
        # Parameters that are not trained have no gradient to take apart.
        self._factors = [
            factors._replace(uses=tuple(use for use in factors.uses if use.node.data in whole)) for factors in found
        ]
        self._products = [_Product(factors, whole, seq_len, divisor) for factors in self._factors]
        self.names: set[str] = {use.node.data for factors in self._factors for use in factors.uses}

    def add(self, backward: BackwardPass, block: Block, distance: int) -> None:
        """Take the terms of a block.

        Args:
            backward: the pass that has just gone over it, of the same layer. distance: of the last of its steps.
        """
        # An exact zero has no logarithm, and beside a sum in which they cancel terms may be beyond a float.
        with np.errstate(all="ignore"):
            for product, made in zip(self._products, backward.products(block, self._factors), strict=True):
                product.add(made, distance)

    def put(self, sums: Mapping[str, Sums], trials: slice) -> None:
        """Hand over what was found of all steps."""
        for product in self._products:
            for band in product.bands:
                for name, (vector, lane) in band.places.items():
                    sums[name].put(slice(None), trials, [numbers[:, vector, lane].T for numbers in band.found])


class _Product:
    """Takes the terms of one group's products.

    bands: its lanes; those of equal height are together, as one more axis.
    """

    def __init__(self, factors: Factors, whole: Mapping[str, Scaled], seq_len: int, divisor: int) -> None:
        self._divisor = divisor
        heights, uses = factors.heights, factors.uses
        count, starts = len(heights), np.cumsum([0, *heights])
        together = [range(count)] if len(set(heights)) == 1 else [range(lane, lane + 1) for lane in range(count)]
        self._rows: list[slice] = []
        self.bands: list[_Band] = []
        for band in together:
            if of_band := [use._replace(lane=use.lane - band[0]) for use in uses if use.lane in band]:
                self._rows.append(slice(starts[band[0]], starts[band[-1] + 1]))
                shape = len(factors.vectors) + 1, len(band), heights[band[0]]
                self.bands.append(_Band(of_band, shape, whole, seq_len))

    def add(self, products: Products, distance: int) -> None:
        """Take the terms of a block; see `TermsOfProducts.add`."""
        if not self.bands:
            return
        lanes, exponent, vectors = products
        count, trials, _, batch = lanes.shape
        top = exponent.max(axis=1)
        weight = scale_by(np.ones(()), exponent - top[:, None]) / self._divisor
        vectors = [*vectors, np.ones((count, trials, 1, batch))]
        left, rights = _Columns(lanes, weight), [_Columns(vector) for vector in vectors]
        length = max(1, _COLUMNS // batch)
        for first in range(0, count, length):
            last = min(first + length, count)
            adjoints, of_adjoints = left.of_steps(first, last)
            columns = [(right, top + of_adjoints + own) for right, own in (r.of_steps(first, last) for r in rights)]
            of_steps = slice(count - last, count - first)
            for rows, band in zip(self._rows, self.bands, strict=True):
                made = _Made(lanes[of_steps, :, rows], exponent, [v[of_steps] for v in vectors], self._divisor)
                band.take(slice(distance + first, distance + last), adjoints[:, rows], columns, made)


class _Columns:
    """Vectors of the steps of a block side by side, from the last step to the first.

    Args:
        values: (n, R, size, B). weight: what those of each sequence are multiplied by, (R, B).
    """

    def __init__(self, values: Array, weight: Array | None = None) -> None:
        n, trials, size, batch = values.shape
        self._columns = np.empty((trials, size, n, batch))
        from_the_last = values[::-1].transpose(1, 2, 0, 3)
        if weight is None:
            self._columns[:] = from_the_last
        else:
            np.multiply(from_the_last, weight[:, None, None], out=self._columns)
        side_by_side = self._columns.reshape(trials, size, n * batch)
        largest = np.maximum(side_by_side.max(axis=1), -side_by_side.min(axis=1)).reshape(trials, n, batch).max(axis=2)
        self._exponent = np.where(largest == 0, NOTHING, exponent_of(largest))

    def of_steps(self, first: int, last: int) -> tuple[Array, Array]:
        """Return the columns of some steps near 1, (R, size, n*B), and their power of two, (R,)."""
        columns = self._columns[:, :, first:last].reshape(*self._columns.shape[:2], -1)
        exponent = self._exponent[:, first:last].max(axis=1)
        exponent[exponent == NOTHING] = 0
        if np.abs(exponent).max() <= _NEAR_ONE:
            return columns, np.zeros_like(exponent)
        return scale_by(columns, -exponent[:, None, None]), exponent


class _Made:
    """The terms of some steps themselves.

    Args:
        lanes: the adjoints of a band, (n, R, rows, B). exponent: theirs, (R, B). vectors: with that of ones.
        divisor: of the sums over sequences.
    """

    def __init__(self, lanes: Array, exponent: Array, vectors: Sequence[Array], divisor: int) -> None:
        self._lanes, self._exponent, self._vectors, self._divisor = lanes, exponent, vectors, divisor

    def zeros(self, lanes: int) -> Array:
        """Tell which terms are exactly zero because one of their factors is, (R, vectors, lanes, n) by distance."""
        left = np.any(self._split(lanes) != 0, axis=3)
        found = [np.any(left & np.any(right != 0, axis=2)[:, :, None], axis=-1) for right in self._vectors]
        return np.asarray(~np.stack(found)[:, ::-1].transpose(2, 0, 3, 1))

    def terms(self, trial: int, vector: int, lane: int, lanes: int) -> Scaled:
        """Return the terms of a lane with a vector in one trial, in the order of the steps, (n, 1, rows, columns)."""
        left, right = self._split(lanes)[:, trial, lane], self._vectors[vector][:, trial]
        exponents = np.broadcast_to(self._exponent[trial], (len(left), left.shape[-1]))
        found = summed_products_of_columns(left.astype(np.float64), right.astype(np.float64), exponents)
        return Scaled(found.mantissa[:, None] / self._divisor, found.exponent[:, None]).normalised()

    def _split(self, lanes: int) -> Array:
        n, trials, _, batch = self._lanes.shape
        return self._lanes.reshape(n, trials, lanes, -1, batch)


class _Band:
    """The terms of some lanes of equal height with each vector.

    Args:
        uses: the parameters, by lanes of the band. shape: numbers of vectors and lanes, and the height.
        whole: their gradients, and others. seq_len: T.

    Attributes:
        found: the four numbers of `Sums`, (4, R, vectors, lanes, T). places: of parameters: vector and lane.
    """

    def __init__(
        self, uses: Sequence[Use], shape: tuple[int, int, int], whole: Mapping[str, Scaled], seq_len: int
    ) -> None:
        vectors, lanes, rows = shape
        trials = len(next(iter(whole.values())).exponent)
        self.places = {use.node.data: (use.vector, use.lane) for use in uses}
        self.found = np.zeros((NUMBERS_KEPT, trials, vectors, lanes, seq_len))
        self._exponent = np.zeros((trials, vectors, lanes), np.int64)
        self._wanted = np.zeros((vectors, lanes), dtype=bool)
        self._norm = np.zeros((trials, vectors, lanes, 1))
        # By vector: the whole gradients, (R, lanes, rows, columns); and the windows before the steps at hand, beside
        # what is missing after them, (R, 2, lanes, rows, columns).
        self._whole: dict[int, Array] = {}
        self._state: dict[int, Array] = {}
        for node, sign, lane, vector in uses:
            # Several parameters of one part, as two biases of one sum, have the same gradient but for the sign.
            gradient = whole[node.data]
            part = gradient.mantissa.reshape(trials, rows, -1)
            if vector not in self._whole:
                self._whole[vector] = np.zeros((trials, lanes, *part.shape[1:]))
                self._state[vector] = np.zeros((trials, 2, lanes, *part.shape[1:]))
            self._whole[vector][:, lane] = sign * part
            self._exponent[:, vector, lane] = gradient.exponent
            self._norm[:, vector, lane, 0] = np.sqrt(np.square(part).sum(axis=(1, 2)))
            self._wanted[vector, lane] = True

    def take(self, place: slice, adjoints: Array, columns: Sequence[tuple[Array, Array]], made: _Made) -> None:
        """Take the terms of some steps.

        Args:
            place: their distances. adjoints: delta of all lanes, (R, rows, n*B), from the last step to the first.
            columns: v for each vector, (R, size, n*B), with the exponent of delta times v, (R,). made: the terms.
        """
        trials, vectors, lanes = self._exponent.shape
        n, count = place.stop - place.start, adjoints.shape[-1]
        left = adjoints.reshape(trials, lanes, -1, count)
        of_left = np.matmul(left.swapaxes(-1, -2), left)
        of_right = np.ones((trials, vectors, count, count))
        exponent = np.stack([own for _, own in columns], axis=1)[..., None]
        factor = scale_by(np.ones(()), exponent - self._exponent)[..., None]
        products = np.zeros((trials, 2, vectors, lanes, count))
        squares = np.zeros((trials, 2, vectors, lanes, 1))
        sums = {}
        for vector, state in self._state.items():
            right = columns[vector][0]
            np.matmul(right.swapaxes(-1, -2), right, out=of_right[:, vector])
            sums[vector] = added = np.matmul(left, right.swapaxes(-1, -2)[:, None])
            added *= factor[:, vector, :, :, None]
            window, missing = state[:, 0], state[:, 1]
            np.add(window, added, out=missing)
            missing -= self._whole[vector]
            through = np.matmul(state.reshape(trials, -1, state.shape[-1]), right)
            through = through.reshape(trials, 2, lanes, -1, count)
            np.einsum("rklhm,rlhm->rklm", through, left, out=products[:, :, vector])
            np.einsum("rklhc,rklhc->rkl", state, state, out=squares[:, :, vector, :, 0])
        with_window, with_missing = factor * _of_steps(products, n).swapaxes(0, 1)
        between, sizes = _between(of_left, of_right, n)
        # What a step's term adds to the square of a window that has the later ones, and of one that has the earlier.
        with_all = np.matmul(between, np.ones(n))
        own = np.einsum("rvlij,ij->rvli", between, np.tri(n) + np.tri(n, k=-1))
        later = 2.0 * with_all - own
        square_of_factor, of_sizes = np.square(factor), factor * sizes
        window, missing = squares[:, 0], squares[:, 1]
        kept = window + np.cumsum(2.0 * with_window + square_of_factor * own, axis=-1)
        left_out = missing + _after(square_of_factor * later - 2.0 * with_missing)
        dot = with_window + square_of_factor * with_all - with_missing
        of_term = np.einsum("rvlnn->rvln", between)
        sure = (of_term > _SURE_SQUARE) & (of_term >= _SURE_SHARE * np.square(sizes))
        if not sure.all() and (nothing := sizes == 0).any():
            sure |= nothing & made.zeros(lanes)
        window, missing = np.sqrt(window), np.sqrt(missing)
        sure &= kept >= _SURE_SHARE * np.square(window + np.cumsum(of_sizes, axis=-1))
        sure &= left_out >= _SURE_SHARE * np.square(missing + _after(of_sizes))
        sure &= _FAR_LARGER * self._norm >= window + missing
        self.found[..., place] = 0.5 * np.log2(of_term) + exponent[..., None], dot, kept, left_out
        for trial, vector, lane in np.argwhere(~sure.all(axis=-1) & self._wanted):
            part = trial, vector, lane
            whole = Scaled(self._whole[vector][trial : trial + 1, lane], self._exponent[part][None])
            before = self._state[vector][trial, 0, lane].reshape(1, -1)
            self.found[:, *part, place] = np.array(sums_of_terms(made.terms(*part, lanes), whole, before))[..., 0]
            sums[vector][trial, lane] = 0.0
        for vector, added in sums.items():
            self._state[vector][:, 0] += added


def _of_steps(columns: Array, n: int) -> Array:
    """Return the sums over sequences, (..., n*B) -> (..., n)."""
    return columns if columns.shape[-1] == n else columns.reshape(*columns.shape[:-1], n, -1).sum(axis=-1)


def _between(of_left: Array, of_right: Array, n: int) -> tuple[Array, Array]:
    """Return the products of terms with each other, (R, vectors, lanes, n, n), and what bounds their norms.

    The bound is sum_b |delta_b| |v_b|, (R, vectors, lanes, n).

    Args:
        of_left, of_right: the products of the columns with each other, (R, lanes, n*B, n*B) and (R, vectors, n*B, n*B).
    """
    trials, count = len(of_left), of_left.shape[-1]
    batch = count // n
    sizes = np.sqrt(np.einsum("rlmm->rlm", of_left))[:, None] * np.sqrt(np.einsum("rvmm->rvm", of_right))[:, :, None]
    if batch == 1:
        return of_left[:, None] * of_right[:, :, None], sizes
    left, right = (products.reshape(trials, -1, n, batch, count) for products in (of_left, of_right))
    return _of_steps(np.einsum("rlibm,rvibm->rvlim", left, right), n), _of_steps(sizes, n)


def _after(values: Array) -> Array:
    """Return for each the sum of all that come after it, along the last axis."""
    sums = np.zeros_like(values)
    np.cumsum(values[..., :0:-1], axis=-1, out=sums[..., -2::-1])
    return sums
