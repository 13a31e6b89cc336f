"""From a spec to a problem for the engine: cells at their sizes, parameters drawn, input opened, loss set up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from gradcli.engine.loss import (
    BinaryCrossEntropy,
    CrossEntropy,
    GivenGradient,
    Linear,
    Loss,
    SquaredError,
    SquaredErrorOfReadout,
)
from gradcli.engine.problem import READOUT, REVERSE, Problem, layer_names
from gradcli.engine.step.plan import LayerPlan
from gradcli.errors import Problem as SpecProblem
from gradcli.errors import SpecError
from gradcli.frozen import frozen
from gradcli.language.cell import ParsedCell, SizedCell
from gradcli.prepare.data import located, open_source
from gradcli.prepare.garbage import collect_again
from gradcli.prepare.lengths import sequence_starts
from gradcli.prepare.limits import Beside, require_memory
from gradcli.prepare.parameters import ParameterValues
from gradcli.prepare.sizing import count_parameters, output_size, parameter_shapes, parse, size_cells, trained_shapes
from gradcli.prepare.trained import TrainedNetwork
from gradcli.sources.files import FieldError
from gradcli.sources.initial_states import draw_initial_state
from gradcli.sources.initialisers import InitialiserError
from gradcli.sources.input_source import FirstStepAlone, InputSource, SymbolSource
from gradcli.sources.output_gradients import OutputGradient, open_output_gradient
from gradcli.sources.target_files import TargetError
from gradcli.sources.targets import class_count, draw_target
from gradcli.spec.initialisers import TorchDefault, Zeros
from gradcli.spec.losses import (
    DEFAULT_OUTPUTS,
    DRAWN_READOUT,
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    FileTarget,
    GivenLoss,
    MSELoss,
    ProjectionLoss,
    ReadoutLoss,
    TargetLoss,
    loss_steps,
)
from gradcli.spec.losses import Loss as SpecLoss
from gradcli.spec.models import Spec
from gradcli.spec.reader import LoadedSpec
from gradcli.spec.shown import counted, printable
from gradcli.spec.trained import WeightsError
from gradcli.weights.layers import LinearHead, Value

Array = np.ndarray[Any, Any]
T = TypeVar("T")


@frozen
class Network:
    """A spec, ready to run.

    shapes: "layer0.W_hh" -> shape, for every parameter, the readout's included; with the steps first where weights are
        not tied.
    problem: the engine's, with all numbers drawn.
    notes: what a user should know, one line each: how files were read, what was drawn by default, whose gradients
        these are. input_notes: those of them that are about the input alone.
    """

    loaded: LoadedSpec
    cell: ParsedCell
    shapes: dict[str, tuple[int, ...]]
    problem: Problem
    notes: tuple[str, ...] = ()
    input_notes: tuple[str, ...] = ()

    @property
    def spec(self) -> Spec:
        return self.loaded.spec

    @property
    def parameter_count(self) -> int:
        """The number of parameters of the recurrent layers, as their framework counts them."""
        return count_parameters(self.trained_shapes, self.problem.copies)

    @property
    def trained_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the parameters that are no constants, "layer0.W_hh" -> shape."""
        return trained_shapes(self.shapes, self.cell)


def build(
    loaded: LoadedSpec,
    *,
    record: bool = False,
    runs_kept: int = 1,
    max_memory: int | None = None,
    beside: Beside | None = None,
) -> Network:
    """Return the network that a spec describes, with all its numbers.

    Args:
        loaded: the spec.
        record: whether states and adjoints will be kept, which takes memory.
        runs_kept: how many runs of about this size share the memory.
        max_memory: bytes that they may need; by default half of what is free.
        beside: what else will need memory.

    Raises:
        GradcliError: mistakes that only show once shapes are known, unreadable input files, too little memory.
    """
    collect_again()
    cell = parse(loaded)
    trained = _trained(loaded)
    source = open_source(loaded, max_memory=max_memory)
    if source.extent.batch_size != loaded.spec.batch_size:
        loaded = _with_batch_of(loaded, source)
        cell = parse(loaded)  # what takes statistics over the batch needs more than one sequence
    head = _head(loaded, trained)
    if head is not None:
        loaded = _with_readout(loaded, head)
    spec = loaded.spec
    sized = size_cells(loaded, cell, source.size)
    shapes = parameter_shapes(loaded, sized)
    outputs = output_size(spec, sized)
    read_out = None
    if isinstance(spec.loss, ReadoutLoss) or head is not None:
        read_out = _readout_size(loaded, source, head)
        shapes |= {f"{READOUT}.W_hy": (read_out, outputs), f"{READOUT}.b_y": (read_out,)}
    given = trained.sources(shapes, head) if trained is not None else {}
    values = ParameterValues(loaded, cell, shapes, given)
    plans = _plans(sized)
    starts = sequence_starts(loaded, source.lengths, plans)
    tape_bytes = require_memory(
        spec,
        shapes,
        plans,
        tied=loaded.tied,
        record=record,
        runs_kept=runs_kept,
        max_memory=max_memory,
        beside=beside,
    )
    mistakes: list[SpecProblem] = []
    parameters = _attempt(mistakes, lambda: values.draw(_read(loaded, trained, given, shapes, max_memory)))
    initial = _attempt(mistakes, partial(_initial_states, loaded, sized, trained))
    target = _attempt(mistakes, partial(_target, loaded, source, outputs, read_out))
    if parameters is None or initial is None or target is None:
        raise SpecError(mistakes)
    problem = Problem(
        plans=plans,
        parameters=[_layer_table(parameters, layer) for layer in layer_names(spec.num_layers, spec.bidirectional)],
        initial=initial,
        source=source if loaded.input_at == "every" else FirstStepAlone(source),
        loss=_loss(spec, target, _layer_table(parameters, READOUT), outputs if read_out is None else read_out, starts),
        seq_len=spec.seq_len,
        trials=spec.trials,
        batch_size=spec.batch_size,
        dtype=np.dtype(spec.dtype),
        tape_bytes=tape_bytes,
        tied=loaded.tied,
        bidirectional=spec.bidirectional,
        copies=values.copies,
        starts=starts,
    )
    notes = (
        *source.notes,
        *_readout_notes(loaded, head),
        *_open_laws_note(cell, values.left_open),
        *_entrywise_note(cell, values.left_open),
        *gradient_note(cell),
        *_given_loss_notes(spec, problem),
    )
    return Network(loaded, cell, shapes, problem, notes, source.notes)


def _open_laws_note(cell: ParsedCell, left_open: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    if not left_open:
        return ()
    from gradcli.prepare.usual_laws import open_laws_note  # of no use where the spec says all

    return open_laws_note(left_open, TorchDefault.NAME, cell.dotted)


def _entrywise_note(cell: ParsedCell, left_open: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Say which parameters are matrices because they stand beside one, where the spec says nothing of them."""
    names = [name for name in left_open if name in cell.inferred_matrices]
    if not names:
        return ()
    name, shape = names[0], " x ".join(map(str, left_open[names[0]]))
    others = f", and so do {', '.join(names[1:5])}" if len(names) > 1 else ""
    return (
        f"{name} stands beside a matrix and is one, {shape}, entry by entry{others}; one number instead is"
        f" shapes: {{{name}: []}}",
    )


def gradient_note(cell: ParsedCell) -> tuple[str, ...]:
    """Say where gradients are no derivatives: of which slope those of spikes are, and that a cell stops some."""
    told = []
    if cell.surrogates:
        named = " and ".join(f"{name} with k = {k:g}" for name, k in cell.surrogates)
        told.append(f"a spike has no gradient: all that goes through spike(...) has that of its surrogate, {named}")
    if cell.stops:
        told.append("what stop(...) holds passes no gradient, so that gradients are not the derivative there")
    return ("; ".join(told),) if told else ()


def _with_batch_of(loaded: LoadedSpec, source: InputSource) -> LoadedSpec:
    """Return a spec that left batch_size to the input, with as many sequences as that has."""
    return replace(loaded, spec=loaded.spec.model_copy(update={"batch_size": source.extent.batch_size}))


def _with_readout(loaded: LoadedSpec, head: LinearHead) -> LoadedSpec:
    """Return a spec whose loss names the head that it reads out through, also where it had left that to the file."""
    loss = loaded.spec.loss.model_copy(update={"readout": head.name})
    return replace(loaded, spec=loaded.spec.model_copy(update={"loss": loss}))


def _trained(loaded: LoadedSpec) -> TrainedNetwork | None:
    """Return what the weights of a spec give.

    Raises:
        SpecError: weights where every step has some of its own.
    """
    if not isinstance(loaded.trained, TrainedNetwork):
        return None
    if not loaded.tied:
        message = "trained weights are those of all steps; with tied: false every step has its own"
        raise SpecError([loaded.problem("weights", message)])
    return loaded.trained


def _head(loaded: LoadedSpec, trained: TrainedNetwork | None) -> LinearHead | None:
    """Return the linear head of the checkpoint that the loss reads out through.

    Raises:
        SpecError: the loss names one that there is not.
    """
    if trained is not None:
        return _placed_in_spec(loaded, lambda: trained.head(loaded.spec))
    loss = loaded.spec.loss
    if isinstance(loss, TargetLoss) and loss.readout not in (None, DRAWN_READOUT):
        message = "names a linear head of a checkpoint, but the spec has no `weights:`"
        raise SpecError([loaded.problem("loss.readout", message)])
    return None


def _readout_size(loaded: LoadedSpec, source: InputSource, head: LinearHead | None) -> int:
    """Return how many numbers the readout gives: the classes of a cross-entropy, else the targets.

    Raises:
        SpecError: classes or outputs that the target or the head of the checkpoint does not have.
    """
    loss = loaded.spec.loss
    found = None if head is None else head.weight.shape[0]
    field, said = _said_of_readout(loss)
    if found is not None and said not in (None, found):
        message = f"the head {head and head.name} has {counted(found, 'output')}; leave {field} out"
        raise SpecError([loaded.problem(f"loss.{field}", message)])
    if not isinstance(loss, CrossEntropyLoss):
        return found or said or DEFAULT_OUTPUTS
    if found is not None:
        if found == 1:
            message = f"the head {head and head.name} has one output; for a choice between two: binary_cross_entropy"
            raise SpecError([loaded.problem("loss.kind", message)])
        loss = loss.model_copy(update={"classes": found})
    field = "classes" if isinstance(source, SymbolSource) else "target"
    return located(loaded, f"loss.{field}", partial(class_count, loss, source))


def _said_of_readout(loss: SpecLoss) -> tuple[str, int | None]:
    """Return the field of a loss that says how many outputs its readout has, and what it says."""
    match loss:
        case CrossEntropyLoss():
            return "classes", loss.classes
        case BinaryCrossEntropyLoss():
            return "outputs", loss.outputs
    return "", None


def _readout_notes(loaded: LoadedSpec, head: LinearHead | None) -> tuple[str, ...]:
    """Say what was assumed of a head with one output, unless the spec says which loss it is for."""
    loss = loaded.spec.loss
    if head is None or not isinstance(loss, MSELoss) or not head.is_regression_assumed:
        return ()
    if loaded.positions.is_kind_written("loss"):
        return ()
    return (
        f"{printable(head.name)} has one output, and the file does not say what it is: taken for a number (mse);"
        " for the logit of a yes or no --set loss.kind=binary_cross_entropy",
    )


def _read(
    loaded: LoadedSpec,
    trained: TrainedNetwork | None,
    sources: Mapping[str, Value],
    shapes: Mapping[str, tuple[int, ...]],
    max_memory: int | None,
) -> dict[str, Array]:
    """Return the values that the checkpoint gives; a mistake in them is placed in the spec."""
    if trained is None:
        return {}
    known = {name: value for name, value in sources.items() if name in shapes}
    return _placed_in_spec(loaded, lambda: trained.read(known, shapes, max_memory=max_memory))


def _placed_in_spec(loaded: LoadedSpec, build_it: Callable[[], T]) -> T:
    """Return what `build_it` returns; a mistake in what the spec says of its weights is placed there."""
    try:
        return build_it()
    except WeightsError as error:
        raise SpecError([loaded.problem(error.path, str(error))]) from None


def _plans(sized: Sequence[SizedCell]) -> list[LayerPlan]:
    """Return a plan for each layer; layers of the same sizes share one."""
    plans: list[LayerPlan] = []
    for cell in sized:
        same = plans and cell.shapes.input_size == plans[-1].cell.shapes.input_size
        plans.append(plans[-1] if same else LayerPlan(cell))
    return plans


def _attempt(mistakes: list[SpecProblem], build_it: Callable[[], T]) -> T | None:
    """Return what `build_it` returns; where the spec is wrong, note its mistakes, so that others can still be found."""
    try:
        return build_it()
    except SpecError as error:
        mistakes += error.problems
        return None


def _layer_table(values: Mapping[str, Array], layer: str) -> dict[str, Array]:
    return {name.rpartition(".")[2]: value for name, value in values.items() if name.rpartition(".")[0] == layer}


def _initial_states(
    loaded: LoadedSpec, sized: Sequence[SizedCell], trained: TrainedNetwork | None
) -> list[dict[str, Array]]:
    spec = loaded.spec
    of_file = trained.initial_states() if trained is not None else {}
    found: list[dict[str, Array]] = []
    problems = []
    for layer, cell in zip(layer_names(spec.num_layers, spec.bidirectional), sized, strict=True):
        table = {}
        for state, shape in cell.shapes.of_states.items():
            name = f"{layer}.{state}"
            if name in of_file and state not in spec.initial_states:
                table[state] = _same_for_trials(of_file[name], math.prod(shape), spec)
                continue
            try:
                table[state] = draw_initial_state(
                    spec.initial_states.get(state, Zeros()),
                    layer=layer,
                    state=state,
                    shape=shape,
                    batch_size=spec.batch_size,
                    trials=spec.trials,
                    seed=spec.seed,
                )
            except InitialiserError as error:
                problems.append(loaded.problem((f"{state}_0",), str(error)))
        found.append(table)
    if problems:
        raise SpecError(problems)
    return found


def _same_for_trials(state: Array, size: int, spec: Spec) -> Array:
    """Return an initial state of a checkpoint, (size,) or (batch, size), for every trial: (trials, size, batch).

    Of a batch of another size than the spec's, the first state serves for all sequences.
    """
    rows = state.reshape(-1, size)
    rows = rows if len(rows) == spec.batch_size else rows[:1]
    return np.ascontiguousarray(np.broadcast_to(rows.T, (spec.trials, size, spec.batch_size)))


def _target(loaded: LoadedSpec, source: InputSource, output_size: int, read_out: int | None) -> Array | OutputGradient:
    """Return what the loss compares the output with, the vectors that it is projected on, or its gradient as given.

    read_out: the size of the readout, where there is one.
    """
    spec = loaded.spec
    loss = spec.loss
    if isinstance(loss, GivenLoss):
        return located(loaded, "loss", partial(open_output_gradient, loss, loaded.folder, source, output_size))
    if isinstance(loss, CrossEntropyLoss):
        loss = loss.model_copy(update={"classes": read_out})
    if not isinstance(loss, TargetLoss | ProjectionLoss):
        return np.ones((spec.trials, output_size))
    try:
        return draw_target(
            loss,
            output_size=output_size if read_out is None else read_out,
            steps=loss_steps(loss, spec.seq_len),
            batch_size=spec.batch_size,
            trials=spec.trials,
            seed=spec.seed,
            input_source=source,
            folder=loaded.folder,
        )
    except FieldError as error:
        raise SpecError([loaded.problem(("loss", "target", FileTarget.NAME, *error.path), str(error))]) from None
    except (InitialiserError, TargetError) as error:
        field = "vector" if isinstance(loss, ProjectionLoss) else "target"
        raise SpecError([loaded.problem(("loss", field), str(error))]) from None


def _loss(
    spec: Spec, target: Array | OutputGradient, readout: Mapping[str, Array], outputs: int, starts: Array | None
) -> Loss:
    """Return the loss of a spec.

    Args:
        target: what `_target` returns. readout: its parameters, where there is one.
        outputs: how many numbers are compared at a step. starts: the step after which each sequence begins.
    """
    if isinstance(target, OutputGradient):
        return GivenGradient(target.steps, target)
    steps = loss_steps(spec.loss, spec.seq_len)
    loss = _sum_of(spec.loss, steps, target, readout)
    if spec.loss.reduction == "mean":
        # The batch loss is the mean over sequences, also where these have different numbers of steps.
        begin = np.zeros(1, np.int64) if starts is None else starts
        per_sequence = float((np.asarray(steps)[:, None] > begin).sum()) / len(begin)
        loss = loss.scaled(_scale_of_mean(spec.loss, outputs) / per_sequence)
    return loss.of_final_states() if spec.loss.at == "final" and spec.bidirectional else loss


def _sum_of(loss: SpecLoss, steps: Sequence[int], target: Array, readout: Mapping[str, Array]) -> Loss:
    """Return the sum over the steps of a loss."""
    match loss:
        case MSELoss() if not readout:
            return SquaredError(steps, target)
        case MSELoss():
            return SquaredErrorOfReadout(steps, target, readout["W_hy"], readout["b_y"])
        case CrossEntropyLoss():
            return CrossEntropy(steps, target, readout["W_hy"], readout["b_y"])
        case BinaryCrossEntropyLoss():
            return BinaryCrossEntropy(steps, target, readout["W_hy"], readout["b_y"])
    return Linear(steps, target)


def _given_loss_notes(spec: Spec, problem: Problem) -> tuple[str, ...]:
    """Say of how many sequences the curve is, where the last gradient that is given enters some of them alone."""
    if not isinstance(spec.loss, GivenLoss):
        return ()
    found = []
    for loss, layers in problem.last_losses:
        entered = problem.entered(layers)
        if entered is not None:
            count = int(entered.sum())
            reverse = layers[0].endswith(f".{REVERSE}")
            place = f"{loss.first_step}, the first" if reverse else f"{loss.last_step}, the last"
            found.append(
                f"{spec.loss.file}: at step {place} with a gradient, it is zero in {len(entered) - count} of"
                f" {len(entered)} sequences; the curve is of the other {count}"
            )
    return tuple(found)


def _scale_of_mean(loss: SpecLoss, outputs: int) -> float:
    """Return what makes a step's loss the mean over its outputs, without the half of the squared error."""
    match loss:
        case MSELoss():
            return 2.0 / outputs
        case BinaryCrossEntropyLoss():
            return 1.0 / outputs
    return 1.0
