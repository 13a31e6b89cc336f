"""What would keep the gradient alive, as people and programs read it; and the command to go on with."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence

from gradcli.diagnostics.measure import Measured
from gradcli.diagnostics.remedies import LONGER, Remedies, Remedy, outcome, trouble_of
from gradcli.diagnostics.remedy_code import FRAMEWORKS
from gradcli.diagnostics.verdict_words import KIND_WORDS
from gradcli.frozen import frozen
from gradcli.numbers import grouped, power_of_ten, steps_text
from gradcli.results.curves import horizon_text
from gradcli.results.declared import key
from gradcli.results.model import Block, Cell, Column, Line, Table
from gradcli.results.run import Verdict, verdict_of
from gradcli.spec.positions import SET
from gradcli.spec.reader import STANDARD_INPUT

_COMMANDS = {"fades": "gates", "grows": "jacobian", None: "contributions"}


def remedy_blocks(remedies: Remedies, seq_len: int, *, full: bool = False) -> list[Block]:
    """Return the remedy that helped most, with the lines that apply it; nothing where none did.

    Args:
        seq_len: of the run. full: all that helped, and a sentence where nothing did or not all was run.
    """
    blocks: list[Block] = []
    for remedy in remedies.found[: None if full else 1]:
        blocks.append(Line(f"{remedy_options(remedy)}   {effect(remedy, seq_len)}", "try", "dim"))
        blocks += [Line(lines, FRAMEWORKS[framework], "dim") for framework, lines in remedy.edit.code.items()]
    if full and remedies.trouble is not None:
        blocks += [Line(text, style="dim") for text in _what_was_tried(remedies)]
    return blocks


def remedy_table(remedies: Remedies, seq_len: int) -> list[Block]:
    """Return what helped in a table, before and after; a sentence where nothing did, or not all was run.

    Args:
        seq_len: of the run.
    """
    columns = [
        Column("try", "text", keep=9),
        Column("verdict", "text", keep=6),
        Column("with it", "text", keep=9),
        Column("horizon", keep=8),
        Column("horizon with it", keep=9),
        Column(f"relative norm at {grouped(seq_len)}", keep=5),
        Column("norm with it", keep=6),
    ]
    rows: list[list[Cell]] = [
        [
            remedy_options(remedy),
            *(KIND_WORDS[run.verdict.kind] for run in (remedy.before, remedy.after)),
            *(horizon_text(run.verdict, seq_len) for run in (remedy.before, remedy.after)),
            *(
                None if math.isnan(run.log10_ratio) else power_of_ten(run.log10_ratio)
                for run in (remedy.before, remedy.after)
            ),
        ]
        for remedy in remedies.found
    ]
    tables: list[Block] = [Table(columns, rows)] if rows else []
    notes = [] if remedies.trouble is None else _what_was_tried(remedies)
    return [*tables, *(Line(words, style="dim") for words in notes)]


def remedy_options(remedy: Remedy) -> str:
    """Return the options that apply a remedy, as a shell takes them."""
    if remedy.edit.step_norm is not None:
        return f"--clip step_norm={remedy.edit.step_norm:g}"
    return " ".join(f"{SET} {shlex.quote(text)}" for text in remedy.edit.sets)


def effect(remedy: Remedy, seq_len: int) -> str:
    """Return what a remedy does, before and after: "horizon 11 -> 100 steps (the beginning)"."""
    before, after = remedy.before, remedy.after
    if before.verdict.kind in ("vanishing", "dead", "transient") and after.reach >= LONGER * before.reach:
        end = " (the beginning)" if after.verdict.horizon_threshold is None else ""
        return f"horizon {grouped(before.reach)} -> {grouped(after.reach)} steps{end}"
    kinds = [KIND_WORDS[run.verdict.kind] for run in (before, after)]
    change = "" if kinds[0] == kinds[1] else f"{' -> '.join(kinds)}, "
    first = "" if math.isnan(before.log10_ratio) else f"{power_of_ten(before.log10_ratio)} -> "
    start = f"{steps_text(after.reference)} back"
    text = f"{change}at {grouped(seq_len)} steps {first}{power_of_ten(after.log10_ratio)} of its size {start}"
    if remedy.edit.step_norm is not None:
        text += "; it caps each step, and turns the gradient's direction"
    return text


def _what_was_tried(remedies: Remedies) -> Sequence[str]:
    if remedies.too_large:
        of_all = f"after {remedies.tried} of them" if remedies.tried else "here"
        return [f"Remedies are run on the same draws, which takes too long {of_all}; a smaller run tries more."]
    if remedies.found:
        return []
    wanted = "makes the gradient reach clearly farther" if remedies.trouble == "fades" else "keeps it from growing"
    count = remedies.tried
    return [f"None of {count} remedies tried {wanted}." if count else "No remedy that gradcli knows applies here."]


@frozen(kw_only=True)
class Steps:
    """A number of steps without the remedy and with it."""

    before: int | None = key("without it")
    after: int | None = key("with it")


@frozen(kw_only=True)
class Change:
    """A number without the remedy and with it."""

    before: float | None = key("without it")
    after: float | None = key("with it")


@frozen(kw_only=True)
class RemedyThatHelped:
    """An edit of the spec that was run on the same draws, and helped."""

    name: str = key("what it is")
    set: Sequence[str] = key("the texts of `--set` that apply it")
    horizon: Steps = key("the horizon; null: to the beginning")
    log10_ratio: Change = key("log10 of r at T")
    verdict: Verdict = key("the verdict with it")
    code: Mapping[str, str | None] = key(
        "the lines that do it, for `torch` and `keras`; null where that framework has no such layer"
    )


def remedies_that_helped(remedies: Remedies) -> Sequence[RemedyThatHelped]:
    """Return the remedies that helped, the best first."""
    return [_helped(remedy) for remedy in remedies.found]


def _helped(remedy: Remedy) -> RemedyThatHelped:
    before, after = remedy.before, remedy.after
    return RemedyThatHelped(
        name=remedy.edit.name,
        set=tuple(remedy.edit.sets),
        horizon=Steps(before=before.verdict.horizon_threshold, after=after.verdict.horizon_threshold),
        log10_ratio=Change(before=before.log10_ratio, after=after.log10_ratio),
        verdict=verdict_of(after.verdict),
        code={framework: remedy.edit.code.get(framework) for framework in FRAMEWORKS},
    )


def next_line(measured: Measured) -> list[Block]:
    """Return the line with the command to go on with; nothing where there is none."""
    command = next_step(measured)
    return [] if command is None else [Line(command, "next", "dim")]


def next_step(measured: Measured) -> str | None:
    """Return the command that tells most of why the gradient does as it does, to copy; None where no command does.

    With the options that the user gave; a spec from standard input has to be given again.
    """
    network = measured.network
    if measured.curve is None or not network.loaded.target:
        return None
    command = _COMMANDS[trouble_of(outcome(measured), network.spec.thresholds)]
    if network.problem.bidirectional:
        command = "jacobian"
    elif network.problem.begins is not None and command == "gates":
        command = "contributions"
    target = network.loaded.target
    text = shlex.join(["gradcli", command, target, *network.loaded.positions.options()])
    return f"{text} < SPEC" if target == STANDARD_INPUT else text
