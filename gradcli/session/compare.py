"""`gradcli compare`: several specs side by side, each as `simulate` runs it.

A file says on what it is run, and is run on that. The bare name of a cell or of a checkpoint says nothing of it: it
borrows the fields of `SHARED` from the first file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from gradcli.diagnostics.measure import Measured, measure
from gradcli.diagnostics.training import compare_weights
from gradcli.engine.problem import Progress, Run
from gradcli.engine.run import Engine
from gradcli.engine.together import apart, can_join, joined
from gradcli.errors import Problem, SpecError, UsageError
from gradcli.prepare.build import Network, build
from gradcli.prepare.data import open_source
from gradcli.prepare.limits import MemoryRefused
from gradcli.prepare.parameters import ParameterValues
from gradcli.prepare.sizing import count_parameters, parameter_shapes, parse, size_cells
from gradcli.prepare.threads import blas_threads
from gradcli.prepare.trained import TrainedNetwork
from gradcli.results.arms import run_on
from gradcli.results.compare import comparison_report
from gradcli.session.result import Result, saved_arrays
from gradcli.spec.losses import DRAWN_READOUT, BinaryCrossEntropyLoss, Loss, MSELoss, TargetLoss
from gradcli.spec.models import LARGEST_SIZE, Spec
from gradcli.spec.reader import LoadedSpec

Array = np.ndarray[Any, Any]

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

#: Arms of the same cell run together as long as the norms of all take no more than this.
_SHARED_BYTES = 64 * 2**20


def compare(
    specs: Sequence[LoadedSpec],
    *,
    match: str | None = None,
    record: bool = False,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run specs side by side and rank them.

    Args:
        specs: those that are bare names take the fields of `SHARED` from the first that was read from a file.
        match: "params" gives the others the hidden size at which they have about as many parameters as the first.
        record, max_memory, threads, progress: as for `gradcli.session.run_simulation`.

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
    # All of them before the first runs, so that a mistake in the last spec is told at once.
    runs_kept = len(arms) if record else 1
    with blas_threads(threads):
        networks = _all_built(arms, lenders, record=record, runs_kept=runs_kept, max_memory=max_memory)
    notes += dict.fromkeys(note for network in networks for note in network.notes)
    measured: list[Measured] = []
    runs: dict[int, Run] = {}
    for index, network in enumerate(networks):
        with blas_threads(threads, network.problem):
            if index not in runs:
                runs |= _shared_runs(networks, index, record, progress)
            measured.append(measure(network, record=record, progress=progress, run=runs.pop(index, None)))
    arrays = {f"{arm.label}/{name}": array for arm in measured for name, array in saved_arrays(arm).items()}
    with blas_threads(threads):
        weights = compare_weights(measured, max_memory=max_memory)
    return Result(
        comparison_report(measured, notes, weights),
        [(arm.label, arm.verdict.kind) for arm in measured],
        arrays,
    )


def _shared_runs(networks: Sequence[Network], index: int, record: bool, progress: Progress | None) -> dict[int, Run]:
    """Return the runs of an arm and of the later ones that can share it, by arm; none where sharing gains nothing."""
    problems = {
        other: networks[other].problem
        for other in range(index, len(networks))
        if _alike(networks[index], networks[other]) and can_join(networks[index].problem, networks[other].problem)
    }
    if len(problems) == 1:
        return {}
    whole = joined(list(problems.values()))
    states = sum(len(plan.states) for plan in whole.plans)
    norms = np.dtype(np.float64).itemsize * states * whole.seq_len * whole.trials * whole.batch_size
    # Larger ones run one trial after the other in any case, and alone they need less memory at a time.
    if whole.sizes.trials_at_once < whole.trials or norms > _SHARED_BYTES:
        return {}
    run = Engine(whole, progress=progress).run(record=record)
    if run.overflow is not None or run.backward_overflow is not None:
        return {}  # each alone then tells where its own numbers end
    return dict(zip(problems, apart(run, list(problems.values())), strict=True))


def _alike(a: Network, b: Network) -> bool:
    """Tell whether two arms are run on the same kind of input, with the same loss."""
    one, other = run_on(a), run_on(b)
    return all(one[field] == other[field] for field in ("input", "loss"))


def _all_built(
    arms: Sequence[LoadedSpec],
    lenders: Sequence[LoadedSpec | None],
    *,
    record: bool,
    runs_kept: int,
    max_memory: int | None,
) -> list[Network]:
    """Build all arms.

    Raises:
        MemoryRefused: some need too much memory; it is told of the one that needs most, so that its figure is enough.
    """
    built: dict[str, Network] = {}
    refused: list[MemoryRefused] = []
    # Those that borrow come last, so that what is wrong with what they borrow is told of its own spec.
    for arm, lender in sorted(zip(arms, lenders, strict=True), key=lambda pair: pair[1] is not None):
        try:
            built[arm.label] = _built(arm, lender, record=record, runs_kept=runs_kept, max_memory=max_memory)
        except MemoryRefused as error:
            refused.append(error)
    if refused:
        raise max(refused, key=lambda error: error.needed)
    return [built[arm.label] for arm in arms]


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
        return count_parameters(shapes, ParameterValues(at_size, cell, shapes, given).copies)

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
