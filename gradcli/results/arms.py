"""On what the arms of a comparison were run: what all have in common, and what is told because it differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradcli.diagnostics.measure import Measured
from gradcli.numbers import CHOSEN, grouped, significant, threshold
from gradcli.prepare.arms import run_on
from gradcli.results.model import Block, Line
from gradcli.results.simulate import length_lines, sample_words
from gradcli.spec.shown import shown

#: What tables and titles call the fields.
_NAMES = {"seq_len": "T", "batch_size": "sequences", "input_size": "input size", "learning_rate": "learning rate"}


def common_words(arms: Sequence[Measured]) -> str:
    """Return the length, the sample and the loss, as far as they are those of all arms."""
    network = arms[0].network
    differ = _differing(arms)
    sample, *loss = sample_words(network.spec).split("   ")
    parts = [
        "" if "seq_len" in differ else f"T = {grouped(network.spec.seq_len)}",
        "" if {"trials", "batch_size"} & differ.keys() else sample,
        *([] if "loss" in differ else loss),
    ]
    return "   ".join(part for part in parts if part)


def differences(arms: Sequence[Measured]) -> list[str]:
    """Return in words what differs between the arms, one field a line: input: normal, std 100 (raw); zeros (still)."""
    return [f"{_NAMES.get(field, field)}: {_grouped_words(arms, found)}" for field, found in _differing(arms).items()]


def _differing(arms: Sequence[Measured]) -> dict[str, list[Any]]:
    """Return field -> its value in each arm, of those that are not the same in all."""
    found = [run_on(arm.network) for arm in arms]
    columns = {field: [one[field] for one in found] for field in found[0]}
    # A cell without input has no size of it to compare.
    return {
        field: values
        for field, values in columns.items()
        if any(value != other for value in values for other in values if None not in (value, other))
    }


def _grouped_words(arms: Sequence[Measured], values: Sequence[Any]) -> str:
    """Return each value with the labels of the arms that have it, in the order of the arms."""
    groups: list[tuple[Any, list[str]]] = []
    for arm, value in zip(arms, values, strict=True):
        known = next((labels for other, labels in groups if other == value), None)
        if known is None:
            groups.append((value, [arm.label]))
        else:
            known.append(arm.label)
    return "; ".join(f"{_words(value, values)} ({', '.join(labels)})" for value, labels in groups)


def _words(value: Any, others: Sequence[Any]) -> str:
    """Return a value in words; of a block what was chosen in it, or is not the same in blocks of its kind."""
    if isinstance(value, list):
        return ", ".join(_words(entry, ()) for entry in value) or "none"
    if not isinstance(value, Mapping):
        return grouped(value) if isinstance(value, int) else "-" if value is None else str(value)
    kind = value.get("kind")
    alike = [other for other in others if isinstance(other, Mapping) and other.get("kind") == kind]
    told = [
        f"{name} {_value(entry)}"
        for name, entry in value.items()
        if name != "kind" and (not alike or name in _ALWAYS or any(other.get(name) != entry for other in alike))
    ]
    return ", ".join([kind, *told] if kind else told)


#: Without these a kind of input or loss says little.
_ALWAYS = frozenset({"path", "file", "std", "value", "low", "high", "at"})


def _value(entry: Any) -> str:
    """Return a value within a block: a name as it is, numbers in full as long as they are few."""
    return entry if isinstance(entry, str) else significant(entry, CHOSEN) if isinstance(entry, float) else shown(entry)


def lengths_of(arms: Sequence[Measured]) -> list[Block]:
    """Return what to know of sequences of different lengths, said once where it holds for all arms."""
    lines = {arm.label: line for arm in arms for line in length_lines(arm.network)}
    texts = {line.text for line in lines.values() if isinstance(line, Line)}
    if len(lines) == len(arms) and len(texts) == 1:
        return [next(iter(lines.values()))]
    return [Line(f"{label}: {line.text}", style=line.style) for label, line in lines.items() if isinstance(line, Line)]


def vanishing_words(arms: Sequence[Measured]) -> str:
    """Return the threshold that horizons are about."""
    lows = {threshold(arm.network.spec.thresholds.vanishing) for arm in arms}
    return lows.pop() if len(lows) == 1 else "the vanishing threshold's share"
