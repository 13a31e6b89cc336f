"""The values of a network's parameters: drawn from their laws, or given exactly; and every mistake about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from gradcli.engine.problem import READOUT, REVERSE, layer_names
from gradcli.errors import Problem as SpecProblem
from gradcli.errors import SpecError, did_you_mean
from gradcli.language.cell import ParsedCell
from gradcli.prepare.names import matches
from gradcli.sources.exact_values import exact_array
from gradcli.sources.initialisers import USUAL_CHRONO_SIGNS, InitialiserError, Parameter, draw_parameter
from gradcli.spec.base import Choice
from gradcli.spec.constants import constants_of
from gradcli.spec.initialisers import TorchDefault
from gradcli.spec.reader import LoadedSpec
from gradcli.spec.shown import Path
from gradcli.weights.layers import Value

Array = np.ndarray[Any, Any]


def law_of(loaded: LoadedSpec, name: str) -> tuple[Choice, tuple[str, ...]]:
    """Return the law of a parameter and where the spec says so: the last match wins, the spec over the cell."""
    for field, table in ((("init",), loaded.spec.init), (("cell", "init"), loaded.cell.init)):
        if name.startswith(f"{READOUT}.") and field == ("cell", "init"):
            continue
        matching = [pattern for pattern in table if matches(pattern, name)]
        if matching:
            return table[matching[-1]], (*field, matching[-1])
    return TorchDefault(), ("init",)


class ParameterValues:
    """The values of all parameters: which law each is drawn from, or its exact values; and every mistake about them.

    copies: "layer0.b_f" -> how many parameters of the framework's it is the sum of, where that is not one.
    """

    def __init__(
        self,
        loaded: LoadedSpec,
        cell: ParsedCell,
        shapes: Mapping[str, tuple[int, ...]],
        trained: Mapping[str, Value] = MappingProxyType({}),
    ) -> None:
        self._loaded = loaded
        self._trained = trained
        self._shapes = shapes
        self._steps = None if loaded.tied else loaded.spec.seq_len
        self._constants = constants_of(loaded.cell, loaded.spec.constants).arrays
        self._names = sorted({name.rpartition(".")[2] for name in shapes if not name.startswith(f"{READOUT}.")})
        self._usual_chrono = {name: sign for name, sign in USUAL_CHRONO_SIGNS.items() if name in self._names}
        self._problems: list[SpecProblem] = []
        spec = loaded.spec
        self._check_patterns("cell.init", loaded.cell.init)
        self._check_patterns("init", spec.init)
        self._check_patterns("params", spec.params)
        if spec.weights is not None:
            self._check_patterns("weights.map", spec.weights.map)
            self._check_changes("scale", spec.weights.scale)
            self._check_changes("shift", spec.weights.shift)
        for name in loaded.cell.chrono:
            self._check_name(name, ("cell", "chrono", name))
        for framework, names in loaded.cell.twice.items():
            for index, name in enumerate(names):
                self._check_name(name, ("cell", "twice", framework, index))
        for state in spec.initial_states:
            if state not in cell.states:
                hint = did_you_mean(state, cell.states)
                message = f"the cell has no state {state!r}; states: {', '.join(cell.states)}{hint}"
                self._problems.append(loaded.problem((f"{state}_0",), message))
        self._check_trained()
        self.copies = self._copies()

    def _check_name(self, name: str, path: Path) -> None:
        """Check that a parameter that the cell names is one of its equations'."""
        if name not in self._names:
            hint = did_you_mean(name, self._names)
            names = ", ".join(self._names) or "none in this cell"
            message = f"no parameter is called {name!r}; parameters: {names}{hint}"
            self._problems.append(self._loaded.problem(path, message))

    def _copies(self) -> dict[str, int]:
        """Return how often each parameter counts, where that is not once; see `gradcli.engine.problem.Problem`.

        What a checkpoint gives is as the file has it. Of a layer of which anything is drawn by `torch` or `keras`, all
        biases that PyTorch, or Keras, has twice count twice, also those whose values the spec gives.
        """
        drawn: dict[str, set[str]] = {}
        for name in self._shapes:
            if name not in self._trained and not any(matches(pattern, name) for pattern in self._loaded.spec.params):
                drawn.setdefault(name.rpartition(".")[0], set()).add(law_of(self._loaded, name)[0].NAME)
        found = {name: value.copies for name, value in self._trained.items()}
        for layer, laws in drawn.items():
            if layer != READOUT:
                for short in self._loaded.cell.counting_twice(laws):
                    found.setdefault(f"{layer}.{short}", 2)
        return {name: copies for name in self._shapes if (copies := found.get(name, 1)) != 1}

    def _check_trained(self) -> None:
        """Check that nothing is drawn in silence beside trained weights: they or the spec give every parameter."""
        loaded, spec = self._loaded, self._loaded.spec
        if loaded.trained is None:
            return
        for name in self._trained:
            if name not in self._shapes:
                short = name.rpartition(".")[2]
                message = f"{loaded.trained.description} has {name}, but the cell has no parameter {short!r}"
                self._problems.append(loaded.problem("weights", f"{message}{did_you_mean(short, self._names)}"))
        missing = [
            name
            for name in self._shapes
            if name not in self._trained
            and not name.startswith(f"{READOUT}.")
            and not any(matches(pattern, name) for pattern in (*spec.params, *spec.init))
        ]
        if missing:
            listed = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            message = (
                f"{loaded.trained.description} gives no {listed}; name tensors in weights.map, or values in params"
            )
            self._problems.append(loaded.problem("weights", message))

    def _raise_problems(self) -> None:
        if self._problems:
            raise SpecError(self._problems)

    def _check_patterns(self, field: str, table: Mapping[str, Any]) -> None:
        for pattern in table:
            if not any(matches(pattern, name) for name in self._shapes):
                known = self._names + [n for n in self._shapes if n.startswith(f"{READOUT}.")]
                names = ", ".join(known) or "none in this cell"
                message = f"no parameter matches {pattern!r}; parameters: {names}{self._hint(pattern, known)}"
                self._problems.append(self._loaded.problem((*field.split("."), pattern), message))

    def _check_changes(self, field: str, table: Mapping[str, float]) -> None:
        """Check that what is scaled or shifted are trained values."""
        self._check_patterns(f"weights.{field}", table)
        for pattern in table:
            named = [name for name in self._shapes if matches(pattern, name)]
            if named and not any(name in self._trained for name in named):
                message = f"changes trained values, and the checkpoint gives no {named[0]}; use init or params for it"
                self._problems.append(self._loaded.problem(("weights", field, pattern), message))

    def _hint(self, pattern: str, known: Sequence[str]) -> str:
        layer, dot, _ = pattern.rpartition(".")
        spec = self._loaded.spec
        layers = spec.num_layers
        if layer == READOUT:
            return "; the losses cross_entropy and binary_cross_entropy have a readout, mse where it names a head"
        if layer.endswith(f".{REVERSE}") and not spec.bidirectional:
            return "; only bidirectional layers have a reverse direction (bidirectional: true)"
        if dot and layer not in layer_names(layers, spec.bidirectional):
            return f"; layers: layer0 to layer{layers - 1}" if layers > 1 else "; the only layer is layer0"
        return did_you_mean(pattern, known) if pattern.isidentifier() else ""

    @property
    def left_open(self) -> dict[str, tuple[int, ...]]:
        """The parameters of a cell of the user's own that neither it nor the spec says how to draw, with their shapes.

        By their short names, in the order of the equations. Built-in cells say all of theirs.
        """
        if self._loaded.built_in is not None:
            return {}
        said = (*self._loaded.spec.params, *self._loaded.spec.init, *self._loaded.cell.init)
        return {
            name.rpartition(".")[2]: shape
            for name, shape in self._shapes.items()
            if not name.startswith(f"{READOUT}.")
            and name not in self._trained
            and name.rpartition(".")[2] not in self._constants
            and not any(matches(pattern, name) for pattern in said)
        }

    def draw(self, trained: Mapping[str, Array] = MappingProxyType({})) -> dict[str, Array]:
        """Return "layer0.W_hh" -> (R, ...) values: exact ones, else trained ones, else drawn.

        Args:
            trained: values of the parameters that a checkpoint gives.

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
            elif name in trained:
                values[name][...] = self._changed(name, trained[name])
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

    def _changed(self, name: str, trained: Array) -> Array:
        """Return scale * trained + shift, as the spec's `weights` say of a parameter."""
        weights = self._loaded.spec.weights
        if weights is None:
            return trained
        scale = [factor for pattern, factor in weights.scale.items() if matches(pattern, name)]
        shift = [term for pattern, term in weights.shift.items() if matches(pattern, name)]
        scaled = scale[-1] * trained if scale else trained
        return scaled + shift[-1] if shift else scaled

    def _by_step(self, name: str) -> bool:
        """Tell whether every step has a parameter of this name for itself."""
        return self._steps is not None and not name.startswith(f"{READOUT}.")

    def _exact(self, name: str, out: Array) -> bool:
        """Fill in the exact values that the spec gives for a parameter or a constant, if it does."""
        params = self._loaded.spec.params
        short = name.rpartition(".")[2]
        if short in self._constants and not name.startswith(f"{READOUT}."):
            return self._constant(short, out)
        matching = [pattern for pattern in params if matches(pattern, name)]
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

    def _constant(self, name: str, out: Array) -> bool:
        own = name in self._loaded.spec.constants
        try:
            out[...] = exact_array(self._constants[name], out.shape[2:] if self._steps is not None else out.shape[1:])
        except InitialiserError as error:
            self._problems.append(self._loaded.problem((*(() if own else ("cell",)), "constants", name), str(error)))
        return True

    def _draw(self, parameter: Parameter, layer: Sequence[Parameter], trial: int, step: int | None, out: Array) -> None:
        spec, cell = self._loaded.spec, self._loaded.cell
        law, path = law_of(self._loaded, f"{parameter.layer}.{parameter.name}")
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
                copies=self.copies.get(f"{parameter.layer}.{parameter.name}", 1),
            )
        except InitialiserError as error:
            self._problems.append(self._loaded.problem(path, str(error)))
