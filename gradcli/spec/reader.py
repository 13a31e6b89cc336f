"""Reading a spec: from a file, standard input or the name of a built-in cell to a checked `Spec` with positions."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from gradcli import cells
from gradcli.errors import InputFileError, Problem, SpecError, UsageError
from gradcli.frozen import frozen
from gradcli.spec import examples, yaml12
from gradcli.spec.explain import Finding, check
from gradcli.spec.files import Read, files_named, standard_input
from gradcli.spec.given import GivenArrays
from gradcli.spec.models import CellBlock, InputAt, Spec, is_initial_state, is_tied, steps_with_input
from gradcli.spec.overrides import apply_options, apply_overrides, split_path
from gradcli.spec.positions import Positions
from gradcli.spec.shown import Path, counted, got, printable, shown
from gradcli.spec.trained import SIZES, Checkpoints, Trained, Weights, WeightsError

STANDARD_INPUT = "-"
LAYER_OPTION = "--layer"
_ENDINGS = (".yaml", ".yml")
_EQUATIONS = r"=|\n|\[\s*t\b"
_EQUATIONS_BELOW = (
    "expected the name of a cell or a block of keys; these are equations: write them one level deeper, under a line"
    " `equations: |`"
)
_UNTIED_BOTH_WAYS = (
    "with tied: false step t is layer t of a network in depth, which cannot be gone through from its end as well;"
    " give tied: true, or leave out bidirectional"
)


@frozen
class LoadedSpec:
    """A spec as read.

    cell: the cell of the spec, looked up if it is a built-in one.
    label: a short name for tables: the stem of the file, or the name of the cell.
    source: the file as messages name it. folder: paths in the spec are relative to it.
    trained: what its `weights` give; None where it has none.
    target: what named it on the command line; "" where nothing did.
    file: that of the spec itself; None where a built-in cell or a checkpoint stands in its place.
    """

    spec: Spec
    cell: CellBlock
    label: str
    source: str
    folder: FilePath
    positions: Positions
    built_in: cells.LoadedCell | None
    trained: Trained | None = None
    target: str = ""
    file: Read | None = None

    @property
    def files(self) -> list[Read]:
        """The files that a run of it reads: the spec's own, and all that it names."""
        named = [Read(path, trail, self.folder / path) for trail, path in files_named(self.spec)]
        beside = self.trained.files if self.trained is not None else ()
        own = [self.file] if self.file is not None else []
        return [*own, *named, *(Read(str(path), "weights.file", path) for path in beside)]

    @property
    def is_file(self) -> bool:
        """Whether it says on what it is run: it was read, or given as a mapping, and is no bare name."""
        return self.positions.document is not None or not self.target

    @property
    def tied(self) -> bool:
        """Whether all steps share their weights."""
        return is_tied(self.spec, self.cell)

    @property
    def input_at(self) -> InputAt:
        """Whether x enters at every step, or at the first alone."""
        return steps_with_input(self.spec, self.cell)

    def problem(self, path: str | Path, message: str) -> Problem:
        """Return a problem of the value at `path`, or of its nearest ancestor that was written down."""
        parts = split_path(path) if isinstance(path, str) else path
        parts = tuple(int(part) if isinstance(part, str) and part.isdecimal() else part for part in parts if part != "")
        if self.built_in is not None and parts[:1] == ("cell",) and len(parts) > 1:
            return Positions(self.built_in.source, self.built_in.document).problem(parts[1:], message)
        return self.positions.problem(parts, message)

    def problem_in_equations(self, line: int, column: int, message: str) -> Problem:
        """Return a problem at (line, column) of the equations, both from 1, at its place in their file."""
        place = self.place_in_equations(line, column)
        if place is None:
            return self.positions.problem(("cell", "equations"), f"line {line}, column {column}: {message}")
        source = self.source if self.built_in is None else self.built_in.source
        return Problem(source, *place, "cell.equations", message)

    def place_in_equations(self, line: int, column: int) -> yaml12.Place | None:
        """Return where (line, column) of the equations stands in their file; None where an option gives them."""
        if self.built_in is not None:
            return self.built_in.document.place_in_text(("equations",), line, column)
        path: Path = ("cell", "equations")
        if self.positions.option_of(path) is not None or self.positions.document is None:
            return None
        return self.positions.document.place_in_text(path, line, column)


def load_spec(
    target: str | Mapping[str, Any],
    *,
    options: Mapping[str, object] = {},
    overrides: Sequence[str] = (),
    examine_cell: Callable[[LoadedSpec], object] | None = None,
    checkpoints: Checkpoints | None = None,
    layer: str | None = None,
    arrays: GivenArrays | None = None,
) -> LoadedSpec:
    """Return the spec that `target` names: a YAML file, ``-`` for standard input, a built-in cell, or a checkpoint.

    It may be a mapping as well: the fields of a spec.

    options: values of top-level fields from the command line; a mistake in one names the option (``--seq-len``).
    overrides: ``PATH=VALUE`` texts of ``--set``, applied after the options. Both win over the file.
    examine_cell: raises SpecError where the equations have mistakes. Called where the rest of the spec has mistakes,
    with defaults in the place of all the rest, so that all mistakes are told at once.
    checkpoints: opens the checkpoint that the spec's `weights` name, where there are any. layer: the layer of it, as
    `--layer` says. arrays: what Python gives, in the place of what the file says.
    Raises UsageError for an unknown cell, InputFileError for a file that cannot be read, SpecError for a bad spec.
    """
    origin = _find(target, checkpoints)
    positions = origin.positions
    line = _CommandLine(options, overrides, layer, arrays or GivenArrays())
    data, wrong = line.applied_to(origin.data, positions)
    problems = positions.mistakes() + wrong
    trained, mistakes = _trained(data, origin, checkpoints)
    if trained is not None:
        # Once more, now on what the checkpoint settles: a part of its loss may be set, such as loss.at.
        data, wrong = line.applied_to({**trained.fields, **origin.data}, positions)
        problems += wrong
    spec, findings = _checked(data)
    findings += mistakes
    if isinstance(data.get("cell"), str) and re.search(_EQUATIONS, data["cell"]):
        findings = [finding for finding in findings if finding.path != ("cell",)]
        findings.append(Finding(("cell",), _EQUATIONS_BELOW))
    built_in: cells.LoadedCell | None = None
    if isinstance(data.get("cell"), str):
        if (name := cells.find(data["cell"])) is not None:
            built_in = cells.load(name)
        elif not any(finding.path == ("cell",) for finding in findings):
            findings.append(Finding(("cell",), cells.unknown(data["cell"])))
    known = {(problem.line, problem.column) for problem in problems if problem.line}
    found = [positions.problem(*finding) for finding in findings]
    # A value that YAML's reader already refused says nothing more.
    problems += [problem for problem in found if (problem.line, problem.column) not in known]
    loaded = _loaded(spec, built_in, origin, trained)
    if loaded is not None and loaded.spec.bidirectional and not loaded.tied:
        problems.append(loaded.problem("bidirectional", _UNTIED_BOTH_WAYS))
    if problems or loaded is None:
        if examine_cell is not None:
            problems += _problems_of_cell(data, built_in, origin, examine_cell)
        raise SpecError(problems)
    return replace(loaded, target=target if isinstance(target, str) else "")


@frozen
class _CommandLine:
    """What the command line, or the arguments of a function, say of a spec."""

    options: Mapping[str, object]
    overrides: Sequence[str]
    layer: str | None
    arrays: GivenArrays

    def applied_to(self, data: Mapping[str, Any], positions: Positions) -> tuple[dict[str, Any], list[Problem]]:
        """Return the plain data of a spec with all of it in place, and what is wrong with it."""
        # The document keeps what was in the file.
        changed = deepcopy(dict(data)) if self.overrides else dict(data)
        apply_options(changed, self.options, positions)
        self.arrays.apply(changed, positions)
        problems = apply_overrides(changed, self.overrides, positions)
        problems += self.arrays.apply_sizes(changed, positions)
        if isinstance(name := changed.get("cell"), str):
            changed["cell"] = cells.find(name) or name
        weights = _opened(changed.get("weights"))
        if self.layer is not None and isinstance(weights, dict):
            changed["weights"] = {**weights, "layer": self.layer}
            positions.override(("weights", "layer"), LAYER_OPTION, self.layer)
        return changed, problems


def _opened(weights: Any) -> Any:
    """Return the block of the weights, for which the file alone may stand."""
    return {"file": weights} if isinstance(weights, str) else weights


def _trained(
    data: Mapping[str, Any], origin: _Origin, checkpoints: Checkpoints | None
) -> tuple[Trained | None, list[Finding]]:
    """Return what the weights of a spec settle of it, and what is wrong with them and what the spec says of them."""
    block = _opened(data.get("weights"))
    if checkpoints is None or not isinstance(block, dict):
        return None, []
    weights, _ = check(Weights, block)
    if weights is None:
        return None, []  # its mistakes are those of the spec
    try:
        trained = checkpoints.open(weights, data, origin.folder)
    except WeightsError as error:
        return None, [Finding(error.path, str(error))]
    return trained, [
        Finding((field,), f"{trained.description} has {shown(settled)}; got {got(data[field])}; leave {field} out")
        for field in SIZES
        if field in data and (settled := trained.fields.get(field, data[field])) != data[field]
    ]


def _loaded(
    spec: Spec | None, built_in: cells.LoadedCell | None, origin: _Origin, trained: Trained | None = None
) -> LoadedSpec | None:
    cell = built_in.cell if built_in is not None else spec.cell if spec is not None else None
    if spec is None or not isinstance(cell, CellBlock):
        return None
    positions = origin.positions
    return LoadedSpec(
        spec, cell, origin.label, positions.source, origin.folder, positions, built_in, trained, file=origin.file
    )


def _problems_of_cell(
    data: Mapping[str, Any],
    built_in: cells.LoadedCell | None,
    origin: _Origin,
    examine_cell: Callable[[LoadedSpec], object],
) -> Sequence[Problem]:
    """Return the mistakes in the equations of a spec with other mistakes."""
    alone = {key: data[key] for key in ("cell", "activation", "constants") if key in data}
    loaded = _loaded(check(Spec, alone)[0], built_in, origin)
    if loaded is None:
        return ()
    try:
        examine_cell(loaded)
    except SpecError as error:
        return error.problems
    return ()


@frozen
class _Origin:
    """Where a spec comes from, and its plain data."""

    data: dict[str, Any]
    positions: Positions
    label: str
    folder: FilePath
    file: Read | None = None


def _find(target: str | Mapping[str, Any], checkpoints: Checkpoints | None) -> _Origin:
    if isinstance(target, Mapping):
        return _given(target)
    if target == STANDARD_INPUT:
        if sys.stdin is None:
            raise InputFileError("standard input is closed")
        return _parsed(sys.stdin.buffer.read(yaml12.MAX_BYTES + 1), "<stdin>", "stdin", FilePath(), standard_input())
    if checkpoints is not None and checkpoints.is_file_name(target):
        name = printable(target, limit=4096)
        label = printable(FilePath(target).name.partition(".")[0])
        return _Origin({"weights": {"file": target}}, Positions(name, None), label, FilePath())
    if target.endswith(_ENDINGS) or os.sep in target or (os.altsep and os.altsep in target):
        file, name = FilePath(target), printable(target, limit=4096)
        return _parsed(_bytes_of(target), name, printable(file.stem), file.parent, Read(name, "the spec", file))
    if (known := cells.find(target)) is not None:
        return _Origin({"cell": known}, Positions(f"built-in cell {known}", None), known, FilePath())
    hint = f"; to read the file, write {os.curdir}{os.sep}{printable(target)}" if os.path.isfile(target) else ""
    raise UsageError(f"{cells.unknown(target)}{hint or examples.hint(target)}")


def _given(fields: Mapping[str, Any]) -> _Origin:
    """Return a spec that is given as a mapping."""
    data: dict[str, Any] = _plain(fields)
    cell = data.get("cell")
    name = cell.get("name") if isinstance(cell, dict) else cell
    return _Origin(data, Positions("spec", None), name if isinstance(name, str) else "spec", FilePath())


def _plain(value: Any) -> Any:
    """Return mappings as dicts and sequences as lists, as a file would give them, arrays among them."""
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise UsageError(f"spec: a key is a text; got {shown(name)}")
        return {name: _plain(entry) for name, entry in value.items()}
    if hasattr(value, "tolist"):  # an array, or a number out of one
        return value.tolist()
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _bytes_of(target: str) -> bytes:
    name = printable(target, limit=4096)
    try:
        with open(target, "rb") as file:
            return file.read(yaml12.MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputFileError(f"{name}: there is no such file{examples.hint(target)}") from None
    except IsADirectoryError:
        raise InputFileError(f"{name}: is a folder; expected a spec, a YAML file") from None
    except OSError as error:
        raise InputFileError(f"{name}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputFileError(f"{name}: is not the name of a file") from None


def _parsed(raw: bytes, source: str, label: str, folder: FilePath, file: Read | None) -> _Origin:
    document = yaml12.read(raw, source)
    if not isinstance(document.data, dict):
        message = f"expected a block of keys, beginning with `cell:`; got {got(document.data)}"
        problem = Problem(source, 1, 1, "", message)
        raise SpecError([*Positions(source, document).mistakes(), problem])
    return _Origin(document.data, Positions(source, document), label, folder, file)


def _checked(data: dict[str, Any]) -> tuple[Spec | None, list[Finding]]:
    """Return the data as a spec, or None and what is wrong."""
    findings = [*_misplaced_states(data), *_wrong_steps(data), *_wrong_values(data)]
    clean = {key: value for key, value in data.items() if key != "initial_states"}
    spec, wrong = check(Spec, clean)
    if "weights" in data and "cell" not in data:
        wrong = [finding for finding in wrong if finding.path]  # what is wrong with the weights says it all
    if spec is not None and spec.expect is not None and spec.expect.clip_fraction is not None and not spec.clip:
        findings.append(Finding(("expect", "clip_fraction"), "there is no method under `clip:` that could clip"))
    return (spec if not findings else None), [*wrong, *findings]


def _misplaced_states(data: Mapping[str, Any]) -> list[Finding]:
    if "initial_states" not in data:
        return []
    return [Finding(("initial_states",), "unknown key; write each state's own, such as `h_0:`", at_key=True)]


def _wrong_steps(data: Mapping[str, Any]) -> list[Finding]:
    """Check the steps of ``loss.at`` against the length of the sequence."""
    loss = data.get("loss")
    steps = loss.get("at") if isinstance(loss, dict) else None
    seq_len = data.get("seq_len", Spec.model_fields["seq_len"].default)
    if not isinstance(steps, list) or not _is_count(seq_len):
        return []
    findings = []
    first: dict[int, int] = {}
    for index, step in enumerate(steps):
        path = ("loss", "at", index)
        if not _is_count(step):
            continue
        if step > seq_len:
            findings.append(Finding(path, f"must be a step from 1 to seq_len = {shown(seq_len)}; got {shown(step)}"))
        if first.setdefault(step, index) != index:
            findings.append(Finding(path, f"step {shown(step)} is given twice"))
    return findings


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _wrong_values(data: Mapping[str, Any]) -> list[Finding]:
    """Check that exact values are numbers, and nested lists rectangular: the models leave that to the shapes."""
    exact: dict[Path, Any] = {(key,): value for key, value in data.items() if is_initial_state(key)}
    params = data.get("params")
    if isinstance(params, dict):
        exact |= {("params", key): value for key, value in params.items()}
    loss = data.get("loss")
    if isinstance(loss, dict) and loss.get("kind") == "mse":
        exact["loss", "target"] = loss.get("target")
    return [finding for path, value in exact.items() for finding in _wrong_array(path, value)]


def _wrong_array(path: Path, value: Any) -> list[Finding]:
    if isinstance(value, dict) and list(value) == ["values"]:
        path, value = (*path, "values"), value["values"]
    if not isinstance(value, list):
        return []
    return _wrong_entries(path, value, _shape(value))


def _shape(value: Any) -> tuple[int, ...]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _wrong_entries(path: Path, value: Any, shape: tuple[int, ...]) -> list[Finding]:
    """Return the first entry that is no finite number or breaks the shape that the first entries set."""
    if isinstance(value, list) and not value:
        return [Finding(path, "an empty list holds no values")]
    if isinstance(value, list) != bool(shape):
        wanted = f"a list of {shape[0]}" if shape else "a number"
        return [Finding(path, f"expected {wanted}, like the entries before it; got {shown(value)}")]
    if not isinstance(value, list):
        return _wrong_number(path, value)
    if len(value) != shape[0]:
        return [
            Finding(path, f"has {counted(len(value), 'entry', 'entries')}, but the rows before it have {shape[0]:,}")
        ]
    for index, entry in enumerate(value):
        wrong = _wrong_entries((*path, index), entry, shape[1:])
        if wrong:
            return wrong
    return []


def _wrong_number(path: Path, value: Any) -> list[Finding]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [Finding(path, f"expected a number; got {got(value)}")]
    try:
        finite = math.isfinite(float(value))
    except OverflowError:
        finite = False
    return [] if finite else [Finding(path, f"the number is too large for a float64; got {shown(value)}")]
