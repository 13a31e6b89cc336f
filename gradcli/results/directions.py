"""What the headline curve shows of a bidirectional layer, in words."""

from __future__ import annotations

from gradcli.diagnostics.measure import Measured, first_distances
from gradcli.numbers import grouped
from gradcli.results.model import Block, Line


def headline_note(measured: Measured) -> str:
    """Say which directions of the top layer the headline curve is of, and why not of both; "" where it has but one."""
    problem = measured.network.problem
    if not problem.bidirectional:
        return ""
    if len(measured.headline) > 1:
        return "the curve of both directions joined, each at distances from its own last step"
    (shown,) = measured.headline
    directions = {problem.names[-2]: "forward", problem.names[-1]: "reverse"}
    (left_out,) = directions.keys() - {shown}
    nearest = grouped(first_distances(problem)[left_out])
    reached = (
        f"position {grouped(problem.seq_len)} is the reverse direction's first step, so that its gradient"
        if problem.loss.first_step == problem.seq_len
        else f"the {'last ' if len(problem.loss.steps) > 1 else ''}loss is farther from the end of the"
        f" {directions[left_out]} direction, whose gradient"
    )
    longest = "" if problem.begins is None else " (in the longest sequence)"
    return (
        f"the curve of the {directions[shown]} direction: {reached} is exactly zero at distances below"
        f" {nearest}{longest}"
    )


def direction_hint(measured: Measured) -> list[Block]:
    """Name the loss that reaches both directions at their ends, where the headline curve is of one alone."""
    if not measured.network.problem.bidirectional or len(measured.headline) > 1:
        return []
    text = (
        "--set loss.at=final   (each direction at its own last step: h_n of PyTorch, return_sequences=False of Keras)"
    )
    return [Line(text, "try", "dim")]
