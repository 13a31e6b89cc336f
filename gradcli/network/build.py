"""From a spec to a problem for the engine: cells at their sizes, parameters drawn, input opened, loss set up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, TypeVar

import numpy as np

from gradcli.engine.loss import CrossEntropy, Linear, Loss, SquaredError
from gradcli.engine.plan import LayerPlan
from gradcli.engine.problem import READOUT, REVERSE, Problem, layer_names
from gradcli.errors import Problem as SpecProblem
from gradcli.errors import SpecError, UsageError, did_you_mean
from gradcli.language.cell import CellError, ParsedCell, SizedCell, parse_cell
from gradcli.network.limits import require_memory, require_memory_to_read
from gradcli.sources.exact_values import exact_array
from gradcli.sources.initial_states import draw_initial_state
from gradcli.sources.initialisers import USUAL_CHRONO_SIGNS, InitialiserError, Parameter, draw_parameter
from gradcli.sources.inputs import FirstStepAlone, InputSource, SymbolSource, open_input
from gradcli.sources.targets import TargetError, class_count, draw_target
from gradcli.spec.base import Choice
from gradcli.spec.initialisers import TorchDefault, Zeros
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
    values = _Values(loaded, cell, shapes)
    plans = _plans(sized)
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


class _Values:
    """The values of all parameters: which law each is drawn from, or its exact values; and every mistake about them."""

    def __init__(self, loaded: LoadedSpec, cell: ParsedCell, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._loaded = loaded
        self._shapes = shapes
        self._steps = None if loaded.tied else loaded.spec.seq_len
        self._names = sorted({name.rpartition(".")[2] for name in shapes if not name.startswith(f"{READOUT}.")})
        self._usual_chrono = {name: sign for name, sign in USUAL_CHRONO_SIGNS.items() if name in self._names}
        self._problems: list[SpecProblem] = []
        spec = loaded.spec
        self._check_patterns("cell.init", loaded.cell.init)
        self._check_patterns("init", spec.init)
        self._check_patterns("params", spec.params)
        for name in loaded.cell.chrono:
            if name not in self._names:
                hint = did_you_mean(name, self._names)
                names = ", ".join(self._names) or "none in this cell"
                message = f"no parameter is called {name!r}; parameters: {names}{hint}"
                self._problems.append(loaded.problem(("cell", "chrono", name), message))
        for state in spec.initial_states:
            if state not in cell.states:
                hint = did_you_mean(state, cell.states)
                message = f"the cell has no state {state!r}; states: {', '.join(cell.states)}{hint}"
                self._problems.append(loaded.problem((f"{state}_0",), message))

    def _raise_problems(self) -> None:
        if self._problems:
            raise SpecError(self._problems)

    def _check_patterns(self, field: str, table: Mapping[str, Any]) -> None:
        for pattern in table:
            if not any(_matches(pattern, name) for name in self._shapes):
                known = self._names + [n for n in self._shapes if n.startswith(f"{READOUT}.")]
                names = ", ".join(known) or "none in this cell"
                message = f"no parameter matches {pattern!r}; parameters: {names}{self._hint(pattern, known)}"
                self._problems.append(self._loaded.problem((*field.split("."), pattern), message))

    def _hint(self, pattern: str, known: Sequence[str]) -> str:
        layer, dot, _ = pattern.rpartition(".")
        spec = self._loaded.spec
        layers = spec.num_layers
        if layer == READOUT:
            return "; only the loss cross_entropy has a readout"
        if layer.endswith(f".{REVERSE}") and not spec.bidirectional:
            return "; only bidirectional layers have a reverse direction (bidirectional: true)"
        if dot and layer not in layer_names(layers, spec.bidirectional):
            return f"; layers: layer0 to layer{layers - 1}" if layers > 1 else "; the only layer is layer0"
        return did_you_mean(pattern, known) if pattern.isidentifier() else ""

    def _law(self, name: str) -> tuple[Choice, tuple[str, ...]]:
        """Return the law of a parameter and where the spec says so: the last match wins, the spec over the cell."""
        spec, cell = self._loaded.spec, self._loaded.cell
        for field, table in ((("init",), spec.init), (("cell", "init"), cell.init)):
            if name.startswith(f"{READOUT}.") and field == ("cell", "init"):
                continue
            matching = [pattern for pattern in table if _matches(pattern, name)]
            if matching:
                return table[matching[-1]], (*field, matching[-1])
        return TorchDefault(), ("init",)

    def draw(self) -> dict[str, Array]:
        """Return "layer0.W_hh" -> (R, ...) values.

        Raises:
            SpecError: laws that do not suit their parameters, and exact values of the wrong shape.
        """
        spec = self._loaded.spec
        values = {name: np.empty((spec.trials, *shape)) for name, shape in self._shapes.items()}
        by_layer: dict[str, list[Parameter]] = {}
        for name, shape in self._shapes.items():
            layer, _, short = name.rpartition(".")
            by_layer.setdefault(layer, []).append(Parameter(layer, short, shape[1:] if self._by_step(name) else shape))
        drawn = {f"{p.layer}.{p.name}": p for parameters in by_layer.values() for p in parameters}
        for name in self._shapes:
            if self._exact(name, values[name]):
                del drawn[name]
        of_all_steps = [name for name in drawn if not self._by_step(name)]
        of_each_step = [name for name in drawn if self._by_step(name)]
        for trial in range(spec.trials):
            # All parameters of a trial and step, then the next: some laws draw several parameters together.
            for name in of_all_steps:
                self._draw(drawn[name], by_layer[drawn[name].layer], trial, None, values[name][trial, ...])
            self._raise_problems()
            for step in range(spec.seq_len if of_each_step else 0):
                for name in of_each_step:
                    self._draw(drawn[name], by_layer[drawn[name].layer], trial, step, values[name][trial, step, ...])
                self._raise_problems()
        return values

    def _by_step(self, name: str) -> bool:
        """Tell whether every step has a parameter of this name for itself."""
        return self._steps is not None and not name.startswith(f"{READOUT}.")

    def _exact(self, name: str, out: Array) -> bool:
        """Fill in the exact values that the spec gives for a parameter, if it does."""
        params = self._loaded.spec.params
        matching = [pattern for pattern in params if _matches(pattern, name)]
        if not matching:
            return False
        try:
            if self._by_step(name):
                out[...] = exact_array(params[matching[-1]], out.shape[2:], count=self._steps)
            else:
                out[...] = exact_array(params[matching[-1]], out.shape[1:])
        except InitialiserError as error:
            self._problems.append(self._loaded.problem(("params", matching[-1]), str(error)))
        return True

    def _draw(self, parameter: Parameter, layer: Sequence[Parameter], trial: int, step: int | None, out: Array) -> None:
        spec, cell = self._loaded.spec, self._loaded.cell
        law, path = self._law(f"{parameter.layer}.{parameter.name}")
        try:
            out[...] = draw_parameter(
                parameter,
                law,
                cell_parameters=layer,
                hidden_size=spec.hidden_size,
                seq_len=spec.seq_len,
                seed=spec.seed,
                trial=trial,
                step=step,
                chrono_signs=cell.chrono or self._usual_chrono,
            )
        except InitialiserError as error:
            self._problems.append(self._loaded.problem(path, str(error)))


def _matches(pattern: str, name: str) -> bool:
    """Tell whether a name or glob of the spec means a parameter such as "layer1.W_hh".

    A bare one means every layer and direction, "layer1.W_hh" the forward direction of one layer; the readout's
    parameters answer to "readout." only.
    """
    layer, _, short = name.rpartition(".")
    of_layers, dot, of_names = pattern.rpartition(".")
    if not fnmatchcase(short, of_names):
        return False
    return fnmatchcase(layer, of_layers) if dot else layer != READOUT


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
