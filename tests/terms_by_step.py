"""The terms of a parameter's gradient step by step: in blocks, as gradcli takes them, and slowly, one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gradcli.diagnostics.term_sums import Sums
from gradcli.engine.blocks import walk_adjoints
from gradcli.engine.group import TrialGroup
from gradcli.engine.parameter_gradients import batch_gradients, walk_gradients
from gradcli.engine.scaled import Scaled, scale_by
from gradcli.language.graph import Node

Terms = dict[str, Scaled]


def in_blocks(group: TrialGroup, layer: int, longest: int = 7) -> Iterator[tuple[int, Terms]]:
    """Yield each step with its term of the gradient of every parameter of a layer."""
    for (first, last), terms in walk_gradients(group, layer, longest=longest):
        for step in range(last, first, -1):
            index = step - first - 1
            yield step, {name: Scaled(t.mantissa[index], t.exponent[index]) for name, t in terms.items()}


def one_by_one(group: TrialGroup, layer: int) -> Iterator[tuple[int, Terms]]:
    """Yield the same, each step from a block of its own, whose sums of weight gradients are begun anew."""
    for visit in walk_adjoints(group, longest=1):
        backward, block = visit.passes[layer], visit.blocks[layer]
        with np.errstate(all="ignore"):
            backward.clear_weights()
            backward.collect(block)
            at_nodes: dict[Node, Scaled] = dict(block.gradients)
            for node, gradient in backward.weight_gradients():
                at_nodes[node] = at_nodes[node].add(gradient) if node in at_nodes else gradient
            terms = batch_gradients(backward.layer, at_nodes, group.problem.divisor)
        yield visit.steps[1], terms


def take_apart_slowly(
    group: TrialGroup, layer: int, whole: Mapping[str, Scaled], trials: slice, sums: Mapping[str, Sums]
) -> None:
    """Do what `gradcli.diagnostics.contributions` does with the terms, one step after the other."""
    flat = {name: gradient.mantissa.reshape(len(gradient.mantissa), -1) for name, gradient in whole.items()}
    kept = {name: np.zeros_like(values) for name, values in flat.items()}
    for step, terms in one_by_one(group, layer):
        d = group.problem.seq_len - step
        for name, term in terms.items():
            found, total = sums[name], flat[name]
            found.log2_norm[d, trials] = term.log2_norm()
            shift = (term.exponent - whole[name].exponent)[:, None]
            scaled = scale_by(term.mantissa.reshape(total.shape), shift)
            kept[name] += scaled
            found.dot[d, trials] = _dots(scaled, total)
            found.kept[d, trials] = _dots(kept[name], kept[name])
            found.missing[d, trials] = _dots(kept[name] - total, kept[name] - total)


def _dots(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(np.einsum("rp,rp->r", a, b))
