"""One spec for `gradcli check`: measured as far as its checks ask, and held against them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from gradcli.commands.layers import index_of_layer
from gradcli.commands.loading import load
from gradcli.diagnostics.baseline import compare_with_baseline, record
from gradcli.diagnostics.expectations import CheckOutcome, judge_expectation
from gradcli.diagnostics.figures import (
    CURVE_FIGURES,
    Figure,
    certificate_figure,
    clip_figure,
    curve_figures,
    lyapunov_figure,
    lyapunov_of_nonfinite,
)
from gradcli.diagnostics.layer_jacobian import leading_exponents, prove
from gradcli.diagnostics.measure import measure
from gradcli.diagnostics.verdict import Verdict
from gradcli.errors import ExitCode, GradcliError, InputFileError, Problem, SpecError, UsageError
from gradcli.frozen import frozen
from gradcli.prepare.build import Network, build, gradient_note
from gradcli.prepare.resources import Resources
from gradcli.results.baseline import Entry
from gradcli.results.check import BASELINE, CheckedFile, broken_file, checked_file, checks_of
from gradcli.spec.expectations import Expect
from gradcli.spec.folders import ENDINGS
from gradcli.spec.reader import LoadedSpec
from gradcli.spec.shown import printable

_NOTHING_ASKED = (
    "there is no `expect:` block, so nothing to check; `expect: {verdict: stable}` is one, and --baseline compares with"
    " an earlier run"
)
#: Checks that hold of the run, or of the baseline itself, and not of its gradient.
_OF_NO_GRADIENT = ("finite", BASELINE)


@frozen
class Asked:
    """What is asked of one file.

    Args:
        file: its name. baseline: whether its figures are wanted for one.
        compared: whether they are held against one, and `entry`, what it has of this file.
        tolerance: see `gradcli.diagnostics.baseline.compare_with_baseline`.
        resources: what the run may take.
    """

    file: str
    baseline: bool = False
    compared: bool = False
    entry: Entry | None = None
    tolerance: float | None = None
    resources: Resources = field(default=Resources())


def check_file(asked: Asked) -> CheckedFile:
    """Return what became of one file, whatever is wrong with it.

    Raises:
        UsageError: the command as a whole is not to be run so.
    """
    start = time.perf_counter()

    def broken(code: ExitCode, error: str | None = None, problems: Sequence[Problem] = ()) -> CheckedFile:
        seconds = time.perf_counter() - start
        return broken_file(asked.file, code=code, seconds=seconds, problems=problems, error=error)

    try:
        return _check(asked, start)
    except UsageError:
        raise
    except SpecError as error:
        return broken(error.exit_code, problems=error.problems)
    except GradcliError as error:
        return broken(error.exit_code, _without_name(str(error), asked.file))
    except MemoryError:
        return broken(ExitCode.RESOURCE, "out of memory; smaller sizes need less")
    except OSError as error:
        return broken(ExitCode.INPUT_FILE, error.strerror or str(error))
    except Exception as error:
        # A mistake of gradcli's own must not keep the other files from being checked.
        return broken(ExitCode.INTERNAL, f"internal error: {type(error).__name__}: {error}; please report this")


def _without_name(text: str, file: str) -> str:
    return text.removeprefix(f"{printable(file, limit=4096)}: ")


def _check(asked: Asked, start: float) -> CheckedFile:
    loaded = load(_as_path(asked.file), {})
    expect, wanted = loaded.spec.expect, asked.baseline or asked.compared
    if expect is None and not wanted:
        raise SpecError([Problem(loaded.source, 0, 0, "", _NOTHING_ASKED)])
    figures, refused, notes = _figures(loaded, expect, wanted, asked.resources)
    outcomes, code = _expectations(expect, figures, refused)
    entry = None
    if wanted:
        entry = Entry(_digest(loaded), loaded.spec.seed, {name: record(figure) for name, figure in figures.items()})
    if asked.compared:
        outcomes += _compared(asked.entry, entry, figures, asked.tolerance)
    outcomes = [_with_notes(one, notes) for one in outcomes]
    checks = checks_of(outcomes, _lines(loaded, expect))
    seconds = time.perf_counter() - start
    return checked_file(asked.file, checks, seconds=seconds, code=code, entry=entry, reads=loaded.files)


def _as_path(file: str) -> Path | str:
    """Return a name that no built-in cell could be taken for.

    Raises:
        InputFileError: there is no such file.
    """
    if not os.path.exists(file):
        raise InputFileError("there is no such file or folder")
    return file if file.endswith(ENDINGS) else Path(file)


def _lines(loaded: LoadedSpec, expect: Expect | None) -> Mapping[str, int]:
    """Return the lines of the keys under `expect:` by their names."""
    if expect is None:
        return {}
    places = {name: loaded.positions.place(("expect", name), at_key=True) for name in expect.names}
    return {name: place.line for name, place in places.items() if place is not None}


def _figures(
    loaded: LoadedSpec, expect: Expect | None, all_of_curve: bool, resources: Resources
) -> tuple[dict[str, Figure], dict[str, GradcliError], Sequence[str]]:
    """Return what is asked for, and nothing else, by name; by name why it was refused; and of what the gradient is."""
    names = [] if expect is None else expect.names
    clipped = "clip_fraction" in names
    spec = loaded.spec.model_copy(update={"clip": loaded.spec.clip[:1] if clipped else []})
    with resources.computing_threads():
        network = build(replace(loaded, spec=spec), max_memory=resources.max_memory)
    figures: dict[str, Figure] = {}
    refused: dict[str, GradcliError] = {}
    with resources.computing_threads(network.problem):
        if all_of_curve or clipped or any(name in CURVE_FIGURES for name in names):
            measured = measure(network, progress=resources.progress, theory=False, apart=all_of_curve)
            figures |= curve_figures(measured.verdict, measured.apart)
            if clipped:
                figures["clip_fraction"] = clip_figure(measured.clipped, measured.verdict)
        for name, look in (("certificate", _certificate), ("lyapunov", _lyapunov)):
            if name in names:
                try:
                    figures[name] = look(network)
                except GradcliError as error:
                    refused[name] = error
    return figures, refused, gradient_note(network.cell)


def _with_notes(outcome: CheckOutcome, notes: Sequence[str]) -> CheckOutcome:
    """Return an outcome that says of which gradient it is, where that is not the derivative."""
    if not notes or outcome.status == "error" or outcome.name.removeprefix(f"{BASELINE}.") in _OF_NO_GRADIENT:
        return outcome
    return replace(outcome, message=". ".join([outcome.message, *(f"{note[0].upper()}{note[1:]}" for note in notes)]))


def _certificate(network: Network) -> Figure:
    return certificate_figure(prove(network, index_of_layer(network.spec, None)), network.spec.seq_len)


def _lyapunov(network: Network) -> Figure:
    found = leading_exponents(network, index_of_layer(network.spec, None))
    return lyapunov_of_nonfinite(found) if isinstance(found, Verdict) else lyapunov_figure(found)


def _expectations(
    expect: Expect | None, figures: Mapping[str, Figure], refused: Mapping[str, GradcliError]
) -> tuple[list[CheckOutcome], ExitCode]:
    """Return the outcomes of an `expect:` block, and the exit code of the first check that could not be made."""
    outcomes = []
    code = ExitCode.DONE
    for name in [] if expect is None else expect.names:
        if name in refused:
            outcomes.append(CheckOutcome(name, "error", "", None, str(refused[name])))
            code = code or refused[name].exit_code
        else:
            outcomes.append(judge_expectation(name, getattr(expect, name), figures[name]))
    return outcomes, code


def _compared(
    before: Entry | None, now: Entry | None, figures: Mapping[str, Figure], tolerance: float | None
) -> list[CheckOutcome]:
    if before is None or now is None:
        message = "the baseline has nothing of this file; --update adds it"
        return [CheckOutcome(BASELINE, "failed", "an entry", None, message)]
    changed = before.spec != now.spec or before.seed != now.seed
    outcomes = []
    for name, earlier in before.figures.items():
        if name not in figures:
            continue
        outcome = compare_with_baseline(name, earlier, figures[name], tolerance)
        if changed and outcome.status == "failed":
            outcome = replace(outcome, message=f"{outcome.message}; the spec has changed since the baseline")
        outcomes.append(outcome)
    return outcomes


def _digest(loaded: LoadedSpec) -> str:
    """Return what tells a spec from another one: a digest of what it says, its expectations left out."""
    said = loaded.spec.model_dump(mode="json", exclude_unset=True, exclude={"expect"})
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
