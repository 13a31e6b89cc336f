"""`gradcli compare`: several specs on the same input, seed and loss."""

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
from gradcli.network.build import Network, build
from gradcli.network.data import open_source
from gradcli.network.limits import MemoryRefused
from gradcli.network.sizing import count_parameters, parameter_shapes, parse, size_cells
from gradcli.network.threads import blas_threads
from gradcli.network.trained import TrainedNetwork
from gradcli.report.compare import comparison_report
from gradcli.session.result import Result, saved_arrays
from gradcli.spec.losses import DRAWN_READOUT, CrossEntropyLoss, Loss, MSELoss
from gradcli.spec.models import LARGEST_SIZE, Spec
from gradcli.spec.reader import LoadedSpec

Array = np.ndarray[Any, Any]

#: What the first spec settles for all, so that only the cells differ.
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
        specs: the first settles the fields of `SHARED` for all.
        match: "params" gives the others the hidden size at which they have about as many parameters as the first.
        record, max_memory, threads, progress: as for `gradcli.session.run_simulation`.

    Raises:
        UsageError: fewer than two specs, or an unknown `match`.
    """
    if len(specs) < 2:
        raise UsageError("compare takes at least two specs, such as: gradcli compare lstm rnn")
    if match not in (None, *MATCHES):
        raise UsageError(f"--match takes one of: {', '.join(MATCHES)}; got {match!r}")
    first, *others = _distinct_labels(specs)
    notes: list[str] = []
    arms = [first]
    for other in others:
        shared, replaced = _share(first, other)
        if replaced:
            notes.append(f"{other.label}: {', '.join(replaced)} as in {first.label}")
        arms.append(shared)
    if match == "params":
        arms = _match_parameters(arms, max_memory)
        notes.append(_matched_words(arms[0]))
    # All of them before the first runs, so that a mistake in the last spec is told at once.
    runs_kept = len(arms) if record else 1
    with blas_threads(threads):
        networks = _all_built(arms, record=record, runs_kept=runs_kept, max_memory=max_memory)
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
        comparison_report(measured, notes, weights), [(arm.label, arm.verdict.kind) for arm in measured], arrays
    )


def _shared_runs(networks: Sequence[Network], index: int, record: bool, progress: Progress | None) -> dict[int, Run]:
    """Return the runs of an arm and of the later ones that can share it, by arm; none where sharing gains nothing."""
    problems = {
        other: networks[other].problem
        for other in range(index, len(networks))
        if can_join(networks[index].problem, networks[other].problem)
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


def _all_built(arms: Sequence[LoadedSpec], *, record: bool, runs_kept: int, max_memory: int | None) -> list[Network]:
    """Build all arms.

    Raises:
        MemoryRefused: some need too much memory; it is told of the one that needs most, so that its figure is enough.
    """
    networks: list[Network] = []
    refused: list[MemoryRefused] = []
    for arm in arms:
        try:
            networks.append(_built(arm, arms[0], record=record, runs_kept=runs_kept, max_memory=max_memory))
        except MemoryRefused as error:
            refused.append(error)
    if refused:
        raise max(refused, key=lambda error: error.needed)
    return networks


def _built(arm: LoadedSpec, first: LoadedSpec, *, record: bool, runs_kept: int, max_memory: int | None) -> Network:
    """Build an arm; a mistake in what the first spec settles is placed there, one in an option names the arm."""
    try:
        return build(arm, record=record, runs_kept=runs_kept, max_memory=max_memory)
    except SpecError as error:
        raise SpecError([_placed(problem, arm, first) for problem in error.problems]) from None


def _placed(problem: Problem, arm: LoadedSpec, first: LoadedSpec) -> Problem:
    field = problem.path.partition(".")[0]
    if problem.line == 0 and field not in SHARED:
        # An option is for all arms: the label tells which of them it does not suit.
        return replace(problem, message=f"for {arm.label}: {problem.message}")
    if arm is first or field not in SHARED:
        return problem
    return first.problem(problem.path, f"for {arm.label}, which takes its {field} from here: {problem.message}")


def _share(first: LoadedSpec, other: LoadedSpec) -> tuple[LoadedSpec, list[str]]:
    """Return the other spec with what the first settles, and the fields that it had said differently itself."""
    spec = other.spec
    fields = {name: getattr(first.spec, name) for name in SHARED}
    fields["loss"] = _loss_of(first, other)
    if other.spec.weights is not None and other.spec.input_size != first.spec.input_size:
        raise UsageError(
            f"{other.label} reads {other.spec.input_size} features a step, {first.label} {first.spec.input_size}:"
            f" compare runs all on the same input; name {other.label} first, or give --input-size"
        )
    said = [name for name in SHARED if other.positions.is_written(name) and getattr(spec, name) != fields[name]]
    shared = spec.model_copy(update=fields)
    # Whether a size was chosen, or left to the input, is the first spec's to say as well.
    own = (spec.model_fields_set - set(SHARED)) | (first.spec.model_fields_set & set(SHARED))
    shared = Spec.model_construct(_fields_set=own, **{name: getattr(shared, name) for name in Spec.model_fields})
    return replace(other, spec=shared, folder=first.folder), said


def _loss_of(first: LoadedSpec, other: LoadedSpec) -> Loss:
    """Return the loss of the first spec for another one, with a readout that the other one has.

    Raises:
        UsageError: a squared error through a head, for a spec that has none.
    """
    loss = first.spec.loss
    if not isinstance(loss, MSELoss | CrossEntropyLoss) or loss.readout == DRAWN_READOUT:
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
    return loss if read is None else loss.model_copy(update={"readout": None, "classes": read.weight.shape[0]})


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
    input_size = open_source(arms[0], max_memory=max_memory).size
    wanted = _counter(arms[0], input_size)(arms[0].spec.hidden_size)
    return [arms[0], *(_at_size(arm, _nearest_size(_counter(arm, input_size), wanted)) for arm in arms[1:])]


def _matched_words(first: LoadedSpec) -> str:
    return f"hidden sizes chosen for about as many parameters as {first.label} has"


def _counter(loaded: LoadedSpec, input_size: int) -> Callable[[int], int]:
    """Return the function from a hidden size to the number of parameters of a spec."""
    cell = parse(loaded)

    def counted(hidden_size: int) -> int:
        sized = size_cells(_at_size(loaded, hidden_size), cell, input_size)
        return count_parameters(parameter_shapes(loaded, sized))

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
