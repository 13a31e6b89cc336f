"""What might keep a gradient alive: one table. An entry says for which trouble it is, and how a spec would be changed.

Nothing here says that it helps: `gradcli.diagnostics.remedies` runs what applies, and keeps what did. A new remedy is a
function and a line of `TABLE`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from typing import Literal

from gradcli import cells
from gradcli.diagnostics import remedy_code as code
from gradcli.diagnostics.measure import Measured
from gradcli.frozen import frozen
from gradcli.language.graph import reachable
from gradcli.prepare.build import Network
from gradcli.prepare.names import matches
from gradcli.prepare.parameters import law_of
from gradcli.prepare.trained import TrainedNetwork
from gradcli.sources.initialisers import USUAL_CHRONO_SIGNS
from gradcli.spec.base import Choice
from gradcli.spec.initialisers import Chrono, Constant, FlaxDefault, Identity, Orthogonal, TorchDefault, Uniform
from gradcli.spec.inputs import ConstantInput, FileInput, NormalInput, SineInput, UniformInput
from gradcli.spec.shown import flow

Trouble = Literal["fades", "grows"]
Source = Literal["init", "params", "weights"]

#: Inputs whose root mean square is larger drive most gates and activations into saturation.
LARGE_INPUT = 2.0
#: What is left of matrices beside a shortcut, which lets the gradient through without them.
_SMALL_GAIN = 0.1
_RECURRENT_GLOB = "W_h*"
_LARGEST_EXPONENT = 300


@frozen
class Edit:
    """One way to apply a remedy.

    name: what it changes, in a few words. sets: texts of `--set` that do it. code: framework -> lines that do it.
    step_norm: the threshold of clipping inside BPTT that `sets` ask for, which changes the curve and nothing else.
    """

    name: str
    sets: tuple[str, ...]
    code: code.Code = field(default_factory=dict)
    step_norm: float | None = None


@frozen
class Case:
    """What a remedy is looked for: a run, and its trouble. The names of parameters are without their layers'."""

    measured: Measured
    trouble: Trouble

    @property
    def network(self) -> Network:
        return self.measured.network

    @cached_property
    def stock(self) -> code.StockLayer | None:
        """The framework's own layer that the cell is."""
        return code.stock_layer(self.network)

    @cached_property
    def _full_names(self) -> Mapping[str, list[str]]:
        """Short name -> "layer0.b_f" and so on, of the layers' parameters."""
        found: dict[str, list[str]] = {}
        for name in self.network.shapes:
            layer, _, short = name.rpartition(".")
            if layer in self.network.problem.names:
                found.setdefault(short, []).append(name)
        return found

    @cached_property
    def _trained(self) -> frozenset[str]:
        trained = self.network.loaded.trained
        return frozenset(trained.sources({}, None)) if isinstance(trained, TrainedNetwork) else frozenset()

    def source(self, short: str) -> Source:
        """Return where a parameter's values come from: which table a change has to stand in."""
        names = self._full_names[short]
        if any(matches(pattern, name) for pattern in self.network.spec.params for name in names):
            return "params"
        mapped = self.network.spec.weights.map if self.network.spec.weights is not None else {}
        given = any(name in self._trained or any(matches(p, name) for p in mapped) for name in names)
        return "weights" if given else "init"

    def laws(self, short: str) -> list[Choice]:
        """Return the laws that a parameter of each layer is drawn from."""
        return [law_of(self.network.loaded, name)[0] for name in self._full_names[short]]

    @cached_property
    def gate_signs(self) -> dict[str, int]:
        """The biases that chrono sets: bias -> 1 where its gate keeps the state, -1 where it writes to it."""
        known = self.network.loaded.cell.chrono or USUAL_CHRONO_SIGNS
        return {name: sign for name, sign in known.items() if name in self._full_names}

    @cached_property
    def keep_signs(self) -> dict[str, int]:
        """The biases of the gates that alone decide how much is kept, and the sign that keeps more."""
        keeping = {name: sign for name, sign in self.gate_signs.items() if sign > 0}
        return keeping or self.gate_signs

    @cached_property
    def matrices(self) -> list[str]:
        """The matrices that earlier states are multiplied by."""
        plan = self.network.problem.plans[-1]
        matrices = [product.args[0] for product in plan.recurrent_products]
        names = {str(node.data) for node in reachable(matrices) if node.op == "parameter"}
        return [name for name in self._full_names if name in names and len(self.shape(name)) == 2]

    def shape(self, short: str) -> tuple[int, ...]:
        """Return the shape of a parameter of the top layer, at one step."""
        shape = self.network.shapes[self._full_names[short][-1]]
        return shape if self.network.loaded.tied else shape[1:]

    def of_matrices(self, table: str, values: Mapping[str, object]) -> tuple[str, ...]:
        """Return the texts that give recurrent matrices values in a table of the spec, a glob where it is the same."""
        texts = {name: flow(value) for name, value in values.items()}
        matched = {name for name in self._full_names if matches(_RECURRENT_GLOB, f"layer0.{name}")}
        if len(texts) > 1 and len(set(texts.values())) == 1 and matched == set(texts):
            return (f"{table}.{_RECURRENT_GLOB}={next(iter(texts.values()))}",)
        return tuple(f"{table}.{name}={text}" for name, text in texts.items())


def _smaller_input(case: Case) -> Iterator[Edit]:
    source, stock = case.network.spec.input, case.stock
    name = "input scale"
    match source:
        case NormalInput() if math.hypot(source.std, source.mean) > LARGE_INPUT:
            texts = ("input.std=1", *(("input.mean=0",) if source.mean else ()))
            yield Edit(name, texts, code.scale_input(stock, source.mean, source.std))
        case ConstantInput() if abs(source.value) > LARGE_INPUT:
            yield Edit(name, ("input.value=1",), code.scale_input(stock, 0.0, source.value))
        case UniformInput() if max(abs(source.low), abs(source.high)) > LARGE_INPUT and source.low < source.high:
            lines = code.scale_input(stock, (source.low + source.high) / 2, (source.high - source.low) / 2)
            yield Edit(name, ("input.low=-1", "input.high=1"), lines)
        case SineInput() if source.amplitude > LARGE_INPUT:
            yield Edit(name, ("input.amplitude=1",), code.scale_input(stock, 0.0, source.amplitude))
        case FileInput() if not source.standardize:
            texts = (*(("input.scale=1",) if source.scale != 1.0 else ()), "input.standardize=true")
            yield Edit(name, texts, code.standardise_input(stock))


def _chrono(case: Case) -> Iterator[Edit]:
    seq_len, signs = case.network.spec.seq_len, case.gate_signs
    if not signs or seq_len < 4 or any(case.source(name) != "init" for name in signs):
        return
    if all(isinstance(law, Chrono) and law.t_max in (None, seq_len) for name in signs for law in case.laws(name)):
        return
    lines = code.draw_chrono(case.stock, signs, seq_len) if case.stock else {}
    yield Edit("chrono biases", tuple(f"init.{name}=chrono" for name in signs), lines)


def _keep_bias(size: float) -> Callable[[Case], Iterator[Edit]]:
    """Return the entry that sets the biases of gates that keep, or adds to trained ones."""

    def edits(case: Case) -> Iterator[Edit]:
        values = {name: sign * size for name, sign in case.keep_signs.items()}
        sources = {case.source(name) for name in values}
        if len(sources) != 1:
            return
        (source,) = sources
        if source == "weights":
            texts = tuple(f"weights.shift.{name}={value:g}" for name, value in values.items())
            yield Edit("gate bias", texts, code.add_to_biases(case.stock, values) if case.stock else {})
            return
        if source == "init" and all(_keeps_as_much(case, name, value) for name, value in values.items()):
            return
        numbers = {name: f"{value:g}" for name, value in values.items()}
        texts = tuple(f"{source}.{name}={number}" for name, number in numbers.items())
        yield Edit("gate bias", texts, code.set_biases(case.stock, numbers) if case.stock else {})

    return edits


def _keeps_as_much(case: Case, name: str, value: float) -> bool:
    """Tell whether a gate's bias is at least as large already."""
    sign = math.copysign(1.0, value)
    return all(isinstance(law, Constant) and sign * law.value >= abs(value) for law in case.laws(name))


def _orthogonal(case: Case) -> Iterator[Edit]:
    names = case.matrices
    if not _are_drawn(case, names) or all(law == Orthogonal() for name in names for law in case.laws(name)):
        return
    lines = _redrawn(case, "orthogonal_", "np.linalg.qr(np.random.normal(size=({n}, {n})))[0]")
    yield Edit("orthogonal recurrence", case.of_matrices("init", dict.fromkeys(names, "orthogonal")), lines)


def _orthogonal_with_chrono(case: Case) -> Iterator[Edit]:
    """Take the growth out of the matrices of a gated cell, and have the gates keep what is then left to them."""
    for gates in _chrono(case):
        for matrices in _orthogonal(case):
            lines = {framework: f"{matrices.code[framework]}\n{line}" for framework, line in gates.code.items()}
            yield Edit("orthogonal recurrence and chrono biases", (*matrices.sets, *gates.sets), lines)


def _identity(case: Case) -> Iterator[Edit]:
    names = case.matrices
    square = all(len(set(case.shape(name))) == 1 for name in names)
    if case.gate_signs or not square or not _are_drawn(case, names):
        return
    if all(law == Identity() for name in names for law in case.laws(name)):
        return
    lines = _redrawn(case, "eye_", "np.eye({n})")
    yield Edit("identity recurrence", case.of_matrices("init", dict.fromkeys(names, "identity")), lines)


def _are_drawn(case: Case, names: Sequence[str]) -> bool:
    return bool(names) and all(case.source(name) == "init" for name in names)


def _redrawn(case: Case, torch_init: str, numpy_matrix: str) -> code.Code:
    return code.draw_recurrent(case.stock, torch_init, numpy_matrix) if case.stock else {}


def _critical_gain(case: Case) -> Iterator[Edit]:
    """Scale the recurrent matrices by one over the measured rate: a linear recurrence then keeps its gradient."""
    rate = case.measured.verdict.rate_per_step
    if rate is not None and math.isfinite(1.0 / rate) and (rate > 1.0) == (case.trouble == "grows"):
        yield from _gain(case, float(f"{1.0 / rate:.2g}"))


def _small_gain(case: Case) -> Iterator[Edit]:
    yield from _gain(case, _SMALL_GAIN)


def _gain(case: Case, factor: float) -> Iterator[Edit]:
    names = case.matrices
    if factor == 1.0 or not names or len({case.source(name) for name in names}) != 1:
        return
    lines = code.scale_recurrent(case.stock, factor) if case.stock else {}
    if case.source(names[0]) == "weights":
        yield Edit("recurrent gain", case.of_matrices("weights.scale", dict.fromkeys(names, factor)), lines)
    elif case.source(names[0]) == "init":
        scaled = {}
        for name in names:
            laws = {flow(_scaled(law, factor, case)) for law in case.laws(name)}
            if len(laws) != 1:
                return
            scaled[name] = _scaled(case.laws(name)[0], factor, case)
        if None not in scaled.values():
            yield Edit("recurrent gain", case.of_matrices("init", scaled), lines)


def _scaled(law: Choice, factor: float, case: Case) -> object:
    """Return what a spec says for draws that are `factor` times as large; None where no law says that."""
    match law:
        case TorchDefault():
            law = Uniform(bound=1.0 / math.sqrt(case.network.spec.hidden_size))
        case FlaxDefault():
            law = Orthogonal()
    given = {name: getattr(law, name) for name in type(law).model_fields}
    if given.pop("of", None) is not None:
        return None  # the draws are those of a function of the parameter
    sizes = [name for name in ("gain", "std", "bound", "radius", "value", "mean") if name in given]
    if not sizes:
        return None
    given |= {name: float(f"{factor * given[name]:.3g}") for name in sizes}
    kept = {name: value for name, value in given.items() if name == law.MAIN or value != 0.0}
    return {law.NAME: kept[law.MAIN] if law.MAIN is not None and list(kept) == [law.MAIN] else kept}


def _normalised_cell(case: Case) -> Iterator[Edit]:
    spec = case.network.spec
    name = f"layer-norm-{spec.cell}"
    if (
        name in cells.names()
        and not spec.params
        and not spec.constants
        and spec.activation is None
        and not _trained(case)
    ):
        yield Edit("normalisation", (f"cell={name}",))


def _trained(case: Case) -> bool:
    return case.network.loaded.trained is not None


def _step_norm(case: Case) -> Iterator[Edit]:
    """Clip each state's gradient at each step to what it is at the start of the curve."""
    curve = case.measured.curve
    if curve is None or abs(curve.reference) > _LARGEST_EXPONENT or case.measured.verdict.kind == "stable":
        return
    threshold = float(f"{10.0**curve.reference:.1g}")
    texts = (f"clip=[{{step_norm: {threshold:g}}}]",)
    yield Edit("clipping inside BPTT", texts, code.clip_steps(case.stock, threshold), step_norm=threshold)


@frozen
class Entry:
    """A remedy: the troubles that it is for, and how it would change a spec. At most one edit where it applies."""

    troubles: frozenset[Trouble]
    edits: Callable[[Case], Iterator[Edit]]


_FADES: frozenset[Trouble] = frozenset({"fades"})
_GROWS: frozenset[Trouble] = frozenset({"grows"})

#: In the order in which they are tried, of which the first few are.
TABLE: tuple[Entry, ...] = (
    Entry(_FADES | _GROWS, _smaller_input),
    Entry(_FADES, _chrono),
    Entry(_FADES, _keep_bias(3.0)),
    Entry(_FADES | _GROWS, _orthogonal),
    Entry(_GROWS, _orthogonal_with_chrono),
    Entry(_FADES, _identity),
    Entry(_FADES | _GROWS, _critical_gain),
    Entry(_GROWS, _small_gain),
    Entry(_FADES, _keep_bias(1.0)),
    Entry(_FADES, _normalised_cell),
    Entry(_GROWS, _step_norm),
)


def edits_for(case: Case) -> Iterator[Edit]:
    """Yield what might help, each text of `--set` once."""
    seen = set()
    for entry in TABLE:
        if case.trouble in entry.troubles:
            for edit in entry.edits(case):
                if edit.sets not in seen:
                    seen.add(edit.sets)
                    yield edit
