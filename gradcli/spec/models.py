"""The spec: every field a user may write, its bounds, and its default. There is no other home of a default."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, get_args

from gradcli.spec import defaults
from gradcli.spec.base import BareKey, Choice, choice_of
from gradcli.spec.checked import Dump, SpecModel
from gradcli.spec.expectations import Expect
from gradcli.spec.initialisers import Finite, Initialiser, InitialState, Positive, Values
from gradcli.spec.inputs import Input, NormalInput
from gradcli.spec.losses import MAX_SEQ_LEN, Loss, MSELoss
from gradcli.spec.trained import Weights
from gradcli.spec.value_readers import Field, Suffixed

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]
Pattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_*?.\[\]!-]+$", max_length=128)]
LARGEST_SIZE = 65_536
Size = Annotated[int, Field(ge=1, le=LARGEST_SIZE)]
InputAt = Literal["every", "first"]
#: What a cell's recurrence has in common with others': the built-in cells are listed by it, in this order.
Family = Literal[
    "plain",
    "LSTM",
    "GRU",
    "normalised",
    "linear",
    "state space",
    "matrix memory",
    "delta rule",
    "continuous",
    "spiking",
    "depth",
]
FAMILIES: tuple[str, ...] = get_args(Family)
#: The laws named after a framework that has two parameters where a cell may have their sum.
Framework = Literal["torch", "keras"]
Dimension = Annotated[int, Field(ge=1, le=1_000_000)] | Annotated[str, Field(max_length=64)]


class NormClip(Choice):
    """Scale all parameter gradients so that their joint norm is at most the threshold (Pascanu et al. 2013)."""

    NAME = "norm"
    MAIN = "threshold"
    threshold: Positive


class ValueClip(Choice):
    """Clip every entry of the parameter gradients to [-threshold, threshold] (Mikolov 2012)."""

    NAME = "value"
    MAIN = "threshold"
    threshold: Positive


class StepNormClip(Choice):
    """Inside BPTT: scale each state's gradient at each step to a norm of at most the threshold."""

    NAME = "step_norm"
    MAIN = "threshold"
    threshold: Positive


class StepValueClip(Choice):
    """Inside BPTT: clip each entry of each state's gradient at each step (Graves 2013)."""

    NAME = "step_value"
    MAIN = "threshold"
    threshold: Positive


Clip: Any = choice_of("clipping method", NormClip, ValueClip, StepNormClip, StepValueClip)


class Thresholds(SpecModel):
    """When a norm, relative to that at distance 1, counts as vanished or exploded."""

    vanishing: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    exploding: Annotated[float, Field(gt=1, le=1e300)] = 1e3


class CellBlock(SpecModel):
    """A cell as its equations, with what they leave open."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)] = "custom"
    equations: Annotated[str, Field(min_length=1, max_length=20_000)]
    output: Name | None = None
    activation: Name | None = None
    constants: dict[Name, Finite | list[Any]] = {}
    fixed: list[Name] = []
    shapes: dict[Name, Annotated[list[Dimension], Field(max_length=2)]] = {}
    init: dict[Pattern, Initialiser] = {}
    chrono: dict[Name, Literal[1, -1]] = {}
    twice: dict[Framework, list[Name]] = {}
    tied: bool | None = None
    input_at: InputAt | None = None
    title: Annotated[str, Field(max_length=200)] | None = None
    family: Family | None = None
    reference: Annotated[str, Field(max_length=500)] | None = None
    year: Annotated[int, Field(ge=1900, le=2100)] | None = None
    notes: Annotated[str, Field(max_length=4000)] | None = None

    def counting_twice(self, laws: Collection[str]) -> set[str]:
        """Return the biases that are two parameters of the framework's, in a layer drawn by laws of these names."""
        return {name for framework, names in self.twice.items() if framework in laws for name in names}


class Spec(SpecModel):
    """One run: a cell, its sizes, where its numbers come from, the loss, and what to look for."""

    cell: Annotated[str, Field(min_length=1, max_length=64)] | CellBlock
    activation: Name | None = None
    constants: dict[Name, Finite | list[Any]] = {}
    hidden_size: Size = defaults.HIDDEN_SIZE
    input_size: Size = defaults.INPUT_SIZE
    num_layers: Annotated[int, Field(ge=1, le=1000)] = 1
    bidirectional: bool = False
    seq_len: Annotated[int, Field(ge=1, le=MAX_SEQ_LEN)] = defaults.SEQ_LEN
    tied: bool | None = None
    input_at: InputAt | None = None
    batch_size: Size = defaults.BATCH_SIZE
    trials: Annotated[int, Field(ge=1, le=65_536)] = defaults.TRIALS
    seed: Annotated[int, Field(ge=0, lt=2**63)] = defaults.SEED
    dtype: Literal["float64", "float32"] = "float64"
    init: dict[Pattern, Initialiser] = {}
    params: dict[Pattern, Values] = {}
    weights: Annotated[Weights, BareKey("file")] | None = None
    initial_states: Annotated[dict[Name, InitialState], Suffixed("_0")] = {}
    input: Input = NormalInput(kind="normal")
    loss: Loss = MSELoss(kind="mse")
    clip: list[Clip] = [NormClip(threshold=defaults.CLIP_NORM)]
    thresholds: Thresholds = Thresholds()
    learning_rate: Positive = 0.01
    expect: Expect | None = None

    @classmethod
    def gathered(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the keys ``h_0``, ``c_0``... of the spec as one table from state to initial value."""
        states = {key.removesuffix("_0"): value for key, value in data.items() if is_initial_state(key)}
        rest = {key: value for key, value in data.items() if not is_initial_state(key)}
        return {**rest, "initial_states": {**states, **rest.get("initial_states", {})}} if states else rest

    def dumped(self, how: Dump) -> Any:
        """Return it as plain data, each initial state under its own key."""
        data = super().dumped(how)
        states = data.pop("initial_states", {})
        return data | {f"{state}_0": value for state, value in states.items()}


def is_tied(spec: Spec, cell: CellBlock) -> bool:
    """Tell whether all steps share their weights: by the spec, else by the cell, else they do."""
    return next((tied for tied in (spec.tied, cell.tied) if tied is not None), True)


def steps_with_input(spec: Spec, cell: CellBlock) -> InputAt:
    """Return where x enters: by the spec, else by the cell; else at every step of weights that are tied."""
    return spec.input_at or cell.input_at or ("every" if is_tied(spec, cell) else "first")


def is_initial_state(key: str) -> bool:
    """Tell whether a key of the spec names an initial state, such as ``h_0``."""
    return key.endswith("_0") and len(key) > 2
