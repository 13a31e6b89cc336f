"""From a spec to a problem for the engine: cells at their sizes, parameters drawn, input opened, loss set up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from gradcli.engine.loss import CrossEntropy, Linear, Loss, SquaredError
from gradcli.engine.plan import LayerPlan
from gradcli.engine.problem import READOUT, Problem, layer_names
from gradcli.errors import Problem as SpecProblem
from gradcli.errors import SpecError, UsageError
from gradcli.language.cell import CellError, ParsedCell, SizedCell, parse_cell
from gradcli.network.lengths import sequence_starts
from gradcli.network.limits import require_memory, require_memory_to_read
from gradcli.network.parameters import ParameterValues
from gradcli.sources.initial_states import draw_initial_state
from gradcli.sources.initialisers import InitialiserError
from gradcli.sources.inputs import FirstStepAlone, InputSource, SymbolSource, open_input
from gradcli.sources.targets import TargetError, class_count, draw_target
from gradcli.spec.initialisers import Zeros
from gradcli.spec.losses import CrossEntropyLoss, MSELoss, ProjectionLoss
from gradcli.spec.models import Spec
from gradcli.spec.reader import LoadedSpec

Array = np.ndarray[Any, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Network:
    """A spec, ready to run.

    shapes: "layer0.W_hh" -> shape, for every parameter, the readout's included; with the steps first where weights are
        not tied.
    problem: the engine's, with all numbers drawn.
    """

    loaded: LoadedSpec
    cell: ParsedCell
    shapes: dict[str, tuple[int, ...]]
    problem: Problem

    @property
    def spec(self) -> Spec:
        return self.loaded.spec

    @property
    def parameter_count(self) -> int:
        """The number of parameters of the recurrent layers."""
        return count_parameters(self.shapes)


def count_parameters(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the number of entries of all parameters but those of the readout."""
    return sum(int(np.prod(shape)) for name, shape in shapes.items() if not name.startswith(f"{READOUT}."))


def parse(loaded: LoadedSpec) -> ParsedCell:
    """Return the cell of a spec, with its mistakes placed in the file.

    Raises:
        SpecError: mistakes in the equations or in the settings beside them.
    """
    cell, spec = loaded.cell, loaded.spec
    try:
        return parse_cell(
            cell.equations,
            output=cell.output,
            constants={**cell.constants, **spec.constants},
            shapes=cell.shapes,
            activation=spec.activation or cell.activation,
            batch_size=spec.batch_size,
        )
    except CellError as error:
        raise _placed(loaded, error) from None


def _placed(loaded: LoadedSpec, error: CellError) -> SpecError:
    problems = []
    for p in error.problems:
        elsewhere = loaded.place_in_equations(p.elsewhere, 1) if p.elsewhere else None
        message = p.text(elsewhere.line if elsewhere else p.elsewhere)
        problems.append(loaded.problem_in_equations(p.line, p.column, message))
    for path, message in error.settings:
        field, _, name = path.partition(".")
        own = getattr(loaded.spec, field, None)
        at_top = name in own if isinstance(own, Mapping) else own is not None
        problems.append(loaded.problem(path if at_top else f"cell.{path}", message))
    return SpecError(problems)


def size_cells(loaded: LoadedSpec, cell: ParsedCell, input_size: int) -> list[SizedCell]:
    """Return the cell at the sizes of each layer; a layer's input is the output state of the one below.

    Of a bidirectional layer each direction has an entry of its own, and its output is that of both.

    Raises:
        SpecError: sizes that do not fit together.
    """
    sized: list[SizedCell] = []
    directions = 2 if loaded.spec.bidirectional else 1
    for _ in range(loaded.spec.num_layers):
        if sized and sized[-1].shapes.input_size == input_size:
            sized += [sized[-1]] * directions
            continue
        try:
            sized += [cell.at_sizes(loaded.spec.hidden_size, input_size)] * directions
        except CellError as error:
            raise _placed(loaded, error) from None
        input_size = output_size(loaded.spec, sized)
    return sized


def output_size(spec: Spec, sized: Sequence[SizedCell]) -> int:
    """Return the size of what the last of some layers puts out: its output state, of both directions together."""
    cell = sized[-1]
    return cell.shapes.states[cell.output] * (2 if spec.bidirectional else 1)


def parameter_shapes(loaded: LoadedSpec, sized: Sequence[SizedCell]) -> dict[str, tuple[int, ...]]:
    """Return "layer0.W_hh" -> shape for all layers; (T, ...) where every step has weights of its own."""
    spec = loaded.spec
    steps = () if loaded.tied else (spec.seq_len,)
    layers = zip(layer_names(spec.num_layers, spec.bidirectional), sized, strict=True)
    return {f"{layer}.{name}": (*steps, *shape) for layer, c in layers for name, shape in c.shapes.parameters.items()}


def build(loaded: LoadedSpec, *, record: bool = False, runs_kept: int = 1, max_memory: int | None = None) -> Network:
    """Return the network that a spec describes, with all its numbers.

    Args:
        loaded: the spec.
        record: whether states and adjoints will be kept, which takes memory.
        runs_kept: how many runs of about this size share the memory.
        max_memory: bytes that they may need; by default half of what is free.

    Raises:
        GradcliError: mistakes that only show once shapes are known, unreadable input files, too little memory.
    """
    spec = loaded.spec
    cell = parse(loaded)
    source = open_source(loaded, max_memory=max_memory)
    sized = size_cells(loaded, cell, source.size)
    shapes = parameter_shapes(loaded, sized)
    outputs = output_size(spec, sized)
    loss = spec.loss
    if isinstance(loss, CrossEntropyLoss):
        field = "classes" if isinstance(source, SymbolSource) else "target"
        classes = _located(loaded, f"loss.{field}", partial(class_count, loss, source))
        shapes |= {f"{READOUT}.W_hy": (classes, outputs), f"{READOUT}.b_y": (classes,)}
    values = ParameterValues(loaded, cell, shapes)
    plans = _plans(sized)
    starts = sequence_starts(loaded, source.lengths, plans)
    tape_bytes = require_memory(
        spec, shapes, plans, tied=loaded.tied, record=record, runs_kept=runs_kept, max_memory=max_memory
    )
    mistakes: list[SpecProblem] = []
    parameters = _attempt(mistakes, values.draw)
    initial = _attempt(mistakes, partial(_initial_states, loaded, sized))
    target = _attempt(mistakes, partial(_target, loaded, source, outputs))
    if parameters is None or initial is None or target is None:
        raise SpecError(mistakes)
    problem = Problem(
        plans=plans,
        parameters=[_layer_table(parameters, layer) for layer in layer_names(spec.num_layers, spec.bidirectional)],
        initial=initial,
        source=source if loaded.input_at == "every" else FirstStepAlone(source),
        loss=_loss(spec, target, _layer_table(parameters, READOUT)),
        seq_len=spec.seq_len,
        trials=spec.trials,
        batch_size=spec.batch_size,
        dtype=np.dtype(spec.dtype),
        tape_bytes=tape_bytes,
        tied=loaded.tied,
        bidirectional=spec.bidirectional,
        starts=starts,
    )
    return Network(loaded, cell, shapes, problem)


def _plans(sized: Sequence[SizedCell]) -> list[LayerPlan]:
    """Return a plan for each layer; layers of the same sizes share one."""
    plans: list[LayerPlan] = []
    for cell in sized:
        same = plans and cell.shapes.input_size == plans[-1].cell.shapes.input_size
        plans.append(plans[-1] if same else LayerPlan(cell))
    return plans


def open_source(loaded: LoadedSpec, *, max_memory: int | None = None) -> InputSource:
    """Return the input of a spec; its mistakes are placed at the field. max_memory: as for `build`."""
    spec = loaded.spec
    require_memory_to_read(spec.input, loaded.folder, max_memory=max_memory)
    return _located(
        loaded,
        "input",
        lambda: open_input(
            spec.input,
            folder=loaded.folder,
            input_size=spec.input_size if "input_size" in spec.model_fields_set else None,
            default_size=spec.input_size,
            seq_len=_steps_read(loaded),
            batch_size=spec.batch_size,
            trials=spec.trials,
            seed=spec.seed,
        ),
    )


def _steps_read(loaded: LoadedSpec) -> int:
    """Return how many steps of the input there must be: one where no other enters, unless they may be the targets."""
    alone = loaded.input_at == "first" and not isinstance(loaded.spec.loss, CrossEntropyLoss)
    return 1 if alone else loaded.spec.seq_len


def _located(loaded: LoadedSpec, path: str, build_it: Callable[[], T]) -> T:
    """Return what `build_it` returns; a usage error of it is placed at a field of the spec."""
    try:
        return build_it()
    except UsageError as error:
        raise SpecError([loaded.problem(path, str(error))]) from None


def _attempt(mistakes: list[SpecProblem], build_it: Callable[[], T]) -> T | None:
    """Return what `build_it` returns; where the spec is wrong, note its mistakes, so that others can still be found."""
    try:
        return build_it()
    except SpecError as error:
        mistakes += error.problems
        return None


def _layer_table(values: Mapping[str, Array], layer: str) -> dict[str, Array]:
    return {name.rpartition(".")[2]: value for name, value in values.items() if name.rpartition(".")[0] == layer}


def _initial_states(loaded: LoadedSpec, sized: Sequence[SizedCell]) -> list[dict[str, Array]]:
    spec = loaded.spec
    found: list[dict[str, Array]] = []
    problems = []
    for layer, cell in zip(layer_names(spec.num_layers, spec.bidirectional), sized, strict=True):
        table = {}
        for state, size in cell.shapes.states.items():
            try:
                table[state] = draw_initial_state(
                    spec.initial_states.get(state, Zeros()),
                    layer=layer,
                    state=state,
                    size=size,
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


def _target(loaded: LoadedSpec, source: InputSource, output_size: int) -> Array:
    """Return what the loss compares the output with, or the vectors that it is projected on."""
    spec = loaded.spec
    loss = spec.loss
    if not isinstance(loss, MSELoss | CrossEntropyLoss | ProjectionLoss):
        return np.ones((spec.trials, output_size))
    try:
        return draw_target(
            loss,
            output_size=output_size,
            steps=loss_steps(spec),
            batch_size=spec.batch_size,
            trials=spec.trials,
            seed=spec.seed,
            input_source=source,
        )
    except (InitialiserError, TargetError) as error:
        field = "vector" if isinstance(loss, ProjectionLoss) else "target"
        raise SpecError([loaded.problem(("loss", field), str(error))]) from None


def _loss(spec: Spec, target: Array, readout: Mapping[str, Array]) -> Loss:
    steps = loss_steps(spec)
    if isinstance(spec.loss, MSELoss):
        return SquaredError(steps, target)
    if isinstance(spec.loss, CrossEntropyLoss):
        return CrossEntropy(steps, target, readout["W_hy"], readout["b_y"])
    return Linear(steps, target)


def loss_steps(spec: Spec) -> list[int]:
    """Return the steps 1..T at which the output counts, ascending."""
    at = spec.loss.at
    if at == "last":
        return [spec.seq_len]
    return list(range(1, spec.seq_len + 1)) if at == "every" else sorted(at)
