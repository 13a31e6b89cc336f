"""The arms of a comparison: which specs borrow what, what is made equal, and on what each is run.

A file says on what it is run, and is run on that. The bare name of a cell or of a checkpoint says nothing of it: it
borrows the fields of `SHARED` from the first file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from gradcli.errors import Problem, SpecError, UsageError
from gradcli.frozen import frozen
from gradcli.prepare.build import Network, build
from gradcli.prepare.data import open_source
from gradcli.prepare.limits import MemoryRefused
from gradcli.prepare.parameters import ParameterValues
from gradcli.prepare.sizing import count_parameters, parameter_shapes, parse, size_cells, trained_shapes
from gradcli.prepare.trained import TrainedNetwork
from gradcli.spec.checked import SpecModel
from gradcli.spec.losses import DRAWN_READOUT, BinaryCrossEntropyLoss, Loss, MSELoss, TargetLoss
from gradcli.spec.models import LARGEST_SIZE, Spec
from gradcli.spec.reader import LoadedSpec

#: What an arm is run on and judged by: a bare name borrows it, so that only the cells differ.
SHARED = (
    "input",
    "input_size",
    "seq_len",
    "batch_size",
    "trials",
    "seed",
    "dtype",
    "loss",
    "thresholds",
    "clip",
    "learning_rate",
)

MATCHES = ("params",)
#: Keys of an input or a loss that name a file.
_PATHS = ("path", "file")


@frozen
class Arms:
    """Specs ready to be compared.

    Args:
        lenders: for each, the spec that it borrows from; None for one that says itself on what it is run.
        notes: what was borrowed and made equal.
    """

    specs: Sequence[LoadedSpec]
    lenders: Sequence[LoadedSpec | None]
    notes: Sequence[str]


def arms_of(specs: Sequence[LoadedSpec], *, match: str | None = None, max_memory: int | None = None) -> Arms:
    """Return the arms of a comparison.

    Args:
        specs: those that are bare names take the fields of `SHARED` from the first that was read from a file.
        match: "params" gives the others the hidden size at which they have about as many parameters as the first.

    Raises:
        UsageError: fewer than two specs, or an unknown `match`.
    """
    if len(specs) < 2:
        raise UsageError("compare takes at least two specs, such as: gradcli compare lstm rnn")
    if match not in (None, *MATCHES):
        raise UsageError(f"--match takes one of: {', '.join(MATCHES)}; got {match!r}")
    specs = _distinct_labels(specs)
    notes: list[str] = []
    arms: list[LoadedSpec] = []
    lenders: list[LoadedSpec | None] = []
    for spec in specs:
        lender = _lender(spec, specs)
        lenders.append(lender)
        arms.append(spec if lender is None else _borrowed(lender, spec))
        if lender is not None and (taken := _changed(spec, arms[-1])):
            notes.append(f"{spec.label}: {', '.join(taken)} as in {lender.label}")
    if match == "params":
        arms = _match_parameters(arms, max_memory)
        notes.append(_matched_words(arms[0]))
    return Arms(arms, lenders, notes)


def notes_by_arm(networks: Sequence[Network]) -> list[str]:
    """Return every note of several networks once, with the names of those that it is about.

    What is said of an input that all of them read is about none of them.
    """
    about: dict[str, list[str]] = {}
    for network in networks:
        for note in network.notes:
            about.setdefault(note, []).append(network.loaded.label)
    of_inputs = {note for network in networks for note in network.input_notes}
    return [
        note if note in of_inputs and len(labels) == len(networks) else f"{', '.join(labels)}: {note}"
        for note, labels in about.items()
    ]


def run_on(network: Network) -> dict[str, Any]:
    """Return what a network is run on and judged by, field by field, as plain data that tells all differences.

    Sizes are those found in the input, and paths those of the files that were read.
    """
    spec = network.spec
    folder = network.loaded.folder
    return {
        "input": _fields(spec.input, folder),
        "input_size": network.problem.plans[0].cell.shapes.input_size if network.cell.uses_input else None,
        "seq_len": spec.seq_len,
        "trials": spec.trials,
        "batch_size": spec.batch_size,
        "seed": spec.seed,
        "dtype": spec.dtype,
        "loss": _fields(spec.loss, folder),
        "thresholds": _fields(spec.thresholds, folder),
        "clip": [{clip.NAME: clip.threshold} for clip in spec.clip],
        "learning_rate": spec.learning_rate,
    }


def _fields(model: SpecModel, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = _resolved(model.model_dump(mode="json"), folder)
    return found


def _resolved(value: Any, folder: Path) -> Any:
    """Return a value in which every path of a file is the one that was read, which folders may tell apart."""
    if not isinstance(value, dict):
        return value
    found = {name: _resolved(entry, folder) for name, entry in value.items()}
    return found | {name: str(folder / value[name]) for name in _PATHS if isinstance(value.get(name), str)}


def build_all(arms: Arms, *, record: bool, max_memory: int | None) -> list[Network]:
    """Build all arms, before the first of them runs, so that a mistake in the last spec is told at once.

    Raises:
        MemoryRefused: some need too much memory; it is told of the one that needs most, so that its figure is enough.
    """
    runs_kept = len(arms.specs) if record else 1
    built: dict[str, Network] = {}
    refused: list[MemoryRefused] = []
    # Those that borrow come last, so that what is wrong with what they borrow is told of its own spec.
    for arm, lender in sorted(zip(arms.specs, arms.lenders, strict=True), key=lambda pair: pair[1] is not None):
        try:
            built[arm.label] = _built(arm, lender, record=record, runs_kept=runs_kept, max_memory=max_memory)
        except MemoryRefused as error:
            refused.append(error)
    if refused:
        raise max(refused, key=lambda error: error.needed)
    return [built[arm.label] for arm in arms.specs]


def _built(
    arm: LoadedSpec, lender: LoadedSpec | None, *, record: bool, runs_kept: int, max_memory: int | None
) -> Network:
    """Build an arm; a mistake in what it has borrowed is placed in the lender, one in an option names the arm."""
    try:
        return build(arm, record=record, runs_kept=runs_kept, max_memory=max_memory)
    except SpecError as error:
        raise SpecError([_placed(problem, arm, lender) for problem in error.problems]) from None


def _placed(problem: Problem, arm: LoadedSpec, lender: LoadedSpec | None) -> Problem:
    field = problem.path.partition(".")[0]
    if lender is not None and field in SHARED:
        return lender.problem(problem.path, f"for {arm.label}, which takes its {field} from here: {problem.message}")
    if problem.line == 0:
        # An option is for all arms: the label tells which of them it does not suit.
        return replace(problem, message=f"for {arm.label}: {problem.message}")
    return problem


def _lender(spec: LoadedSpec, specs: Sequence[LoadedSpec]) -> LoadedSpec | None:
    """Return the spec that a bare name borrows from: the first file; for a cell, where there is none, a checkpoint.

    None for a file, and for a checkpoint that reads another number of features.
    """
    if spec.is_file:
        return None
    files = [other for other in specs if other.is_file]
    if spec.spec.weights is None:
        files = files or [other for other in specs if other.spec.weights is not None]
    elif files and files[0].spec.input_size != spec.spec.input_size:
        return None
    return files[0] if files else None


def _borrowed(lender: LoadedSpec, spec: LoadedSpec) -> LoadedSpec:
    """Return a spec with what another one is run on and judged by."""
    fields = {name: getattr(lender.spec, name) for name in SHARED}
    fields["loss"] = _loss_of(lender, spec)
    shared = spec.spec.model_copy(update=fields)
    # Whether a size was chosen, or left to the input, is the lender's to say as well.
    own = (spec.spec.model_fields_set - set(SHARED)) | (lender.spec.model_fields_set & set(SHARED))
    shared = Spec.model_construct(_fields_set=own, **{name: getattr(shared, name) for name in Spec.model_fields})
    return replace(spec, spec=shared, folder=lender.folder)


def _changed(spec: LoadedSpec, borrowed: LoadedSpec) -> list[str]:
    """Return the fields that a spec would have had otherwise."""
    return [name for name in SHARED if getattr(spec.spec, name) != getattr(borrowed.spec, name)]


def _loss_of(first: LoadedSpec, other: LoadedSpec) -> Loss:
    """Return the loss of a first spec for another one, with a readout that the other one has.

    Raises:
        UsageError: a squared error through a head, for a spec that has none.
    """
    loss = first.spec.loss
    if not isinstance(loss, TargetLoss) or loss.readout == DRAWN_READOUT:
        return loss
    if isinstance(other.trained, TrainedNetwork):
        # Checkpoints may call the same head differently: fc, and model.fc.
        return (
            loss if loss.readout is None else loss.model_copy(update={"readout": other.trained.name_of(loss.readout)})
        )
    if isinstance(loss, MSELoss) and loss.readout is not None:
        raise UsageError(
            f"the loss reads out through {loss.readout!r} of {first.label}, which {other.label} does not have;"
            " choose another one, such as --set loss=projection"
        )
    read = first.trained.head(first.spec) if isinstance(first.trained, TrainedNetwork) else None
    if read is None:
        return loss
    size = "outputs" if isinstance(loss, BinaryCrossEntropyLoss) else "classes"
    return loss.model_copy(update={"readout": None, size: read.weight.shape[0]})


def _distinct_labels(specs: Sequence[LoadedSpec]) -> list[LoadedSpec]:
    """Return the specs with labels told apart by a number where they are the same."""
    taken = {loaded.label for loaded in specs}
    seen: set[str] = set()
    found = []
    for loaded in specs:
        label = loaded.label
        if label in seen:
            label = next(name for n in count(2) if (name := f"{loaded.label}-{n}") not in taken)
            taken.add(label)
        seen.add(label)
        found.append(replace(loaded, label=label))
    return found


def _match_parameters(arms: Sequence[LoadedSpec], max_memory: int | None) -> list[LoadedSpec]:
    """Return the arms with hidden sizes at which the parameter counts are nearest to the first arm's.

    Raises:
        UsageError: another arm than the first has trained weights, whose size is settled.
    """
    trained = [arm.label for arm in arms[1:] if arm.spec.weights is not None]
    if trained:
        raise UsageError(f"--match params cannot change the hidden size of trained weights: {', '.join(trained)}")
    counters = [_counter(arm, open_source(arm, max_memory=max_memory).size) for arm in arms]
    wanted = counters[0](arms[0].spec.hidden_size)
    return [
        arms[0],
        *(_at_size(arm, _nearest_size(counter, wanted)) for arm, counter in zip(arms[1:], counters[1:], strict=True)),
    ]


def _matched_words(first: LoadedSpec) -> str:
    return f"hidden sizes chosen for about as many parameters as {first.label} has"


def _counter(loaded: LoadedSpec, input_size: int) -> Callable[[int], int]:
    """Return the function from a hidden size to the number of parameters of a spec."""
    cell = parse(loaded)

    def counted(hidden_size: int) -> int:
        at_size = _at_size(loaded, hidden_size)
        shapes = parameter_shapes(at_size, size_cells(at_size, cell, input_size))
        given = loaded.trained.sources(shapes, None) if isinstance(loaded.trained, TrainedNetwork) else {}
        return count_parameters(trained_shapes(shapes, cell), ParameterValues(at_size, cell, shapes, given).copies)

    return counted


def _nearest_size(counter: Callable[[int], int], wanted: int) -> int:
    """Return the hidden size at which `counter`, which grows with the size, is nearest to `wanted`."""
    low, high = 1, 2
    while counter(high) < wanted and high < LARGEST_SIZE:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if counter(middle) < wanted:
            low = middle
        else:
            high = middle
    return min((low, high), key=lambda size: abs(counter(size) - wanted))


def _at_size(loaded: LoadedSpec, hidden_size: int) -> LoadedSpec:
    return replace(loaded, spec=loaded.spec.model_copy(update={"hidden_size": hidden_size}))
