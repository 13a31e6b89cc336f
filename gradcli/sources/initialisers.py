"""The laws that parameters are drawn from.

Which laws a spec may name, and with which arguments, is in `gradcli.spec.initialisers`; here is what they mean.
A matrix is (out, in), so fan_in is its number of columns and fan_out its number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gradcli.errors import UsageError
from gradcli.frozen import frozen
from gradcli.sources.streams import stream
from gradcli.spec.base import Choice
from gradcli.spec.initialisers import (
    Chrono,
    Constant,
    FlaxDefault,
    HeNormal,
    HeUniform,
    Identity,
    KerasDefault,
    LecunNormal,
    LinenDefault,
    LogUniform,
    NnxDefault,
    Normal,
    Of,
    Orthogonal,
    Ramp,
    Ring,
    RingPhase,
    SpectralRadius,
    TorchDefault,
    Uniform,
    XavierNormal,
    XavierUniform,
    Zeros,
)

READOUT = "readout"
"""The layer of the linear readout: W_hy (classes, output_size) and b_y (classes,)."""


class InitialiserError(UsageError):
    """An initialiser that does not suit its parameter, or exact values of another shape."""


#: The biases that chrono sets in a cell that does not say which: of a forget gate and of an input gate.
USUAL_CHRONO_SIGNS = {"b_f": 1, "b_i": -1}


@frozen
class Parameter:
    """A parameter of one layer. shape: () a scalar, (n,) a vector, (out, in) a matrix."""

    layer: str
    name: str
    shape: tuple[int, ...]

    def describe(self) -> str:
        """Return what it is in words, such as "b_f is a vector of 64 numbers"."""
        if not self.shape:
            return f"{self.name} is a single number"
        if len(self.shape) == 1:
            return f"{self.name} is a vector of {self.shape[0]} numbers"
        return f"{self.name} is a matrix of {self.shape[0]} x {self.shape[1]}"


@frozen
class _Place:
    """Where a draw takes place: the parameter, and what laws may ask about its surroundings."""

    parameter: Parameter
    layer_parameters: tuple[Parameter, ...]
    hidden_size: int
    seq_len: int
    seed: int
    trial: int
    step: int | None
    chrono_signs: Mapping[str, int]
    copies: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parameter.shape

    @property
    def fan_in(self) -> int:
        return self.shape[1]

    @property
    def fan_out(self) -> int:
        return self.shape[0]

    def stream(self) -> np.random.Generator:
        return _parameter_stream(self.parameter, self.seed, self.trial, self.step)

    def streams(self) -> Iterator[np.random.Generator]:
        """Yield a stream for each copy of the parameter; the first is that of a parameter without others."""
        yield self.stream()
        for copy in range(1, self.copies):
            yield stream(
                self.seed,
                "parameter",
                self.parameter.layer,
                self.parameter.name,
                *_draw_names(self.trial, self.step),
                "copy",
                copy,
            )

    def uniform(self, bound: float, mean: float = 0.0) -> np.ndarray:
        return self.stream().uniform(mean - bound, mean + bound, self.shape)

    def open_unit_interval(self) -> np.ndarray:
        """Return draws from U(0, 1) whose logarithm is finite, and not 0."""
        return self.stream().uniform(np.nextafter(0.0, 1.0), 1.0, self.shape)

    def normal(self, std: float, mean: float = 0.0) -> np.ndarray:
        return self.stream().normal(mean, std, self.shape)


def draw_parameter(
    parameter: Parameter,
    law: Choice,
    *,
    cell_parameters: Sequence[Parameter],
    hidden_size: int,
    seq_len: int,
    seed: int,
    trial: int,
    chrono_signs: Mapping[str, int],
    step: int | None = None,
    copies: int = 1,
) -> np.ndarray:
    """Return one draw of `parameter` from `law`: float64, of the parameter's shape.

    cell_parameters: all parameters of the layer, for laws that draw several of them together (keras).
    chrono_signs: the gate biases that chrono may set, each with its sign (forget gate +1, input gate -1).
    step: the step whose own weights these are, where weights are not tied over time; None for tied weights.
    copies: of how many parameters of the framework's this is the sum; a framework's law then draws each of them.

    Every parameter, trial and step has its own stream, whatever the law: a change of law keeps the underlying draws.

    Raises InitialiserError where the law does not suit the parameter.
    """
    if parameter not in cell_parameters:
        raise ValueError(f"cell_parameters must hold all parameters of the layer, {parameter.name} too")
    suits, draw = _LAWS[type(law)]
    if not _SHAPES[suits](parameter.shape):
        suiting = ", ".join(kind.NAME for kind, (shapes, _) in _LAWS.items() if _SHAPES[shapes](parameter.shape))
        raise InitialiserError(
            f"{law.NAME} needs a {suits}, but {parameter.describe()}; initialisers that suit it: {suiting}"
        )
    place = _Place(parameter, tuple(cell_parameters), hidden_size, seq_len, seed, trial, step, chrono_signs, copies)
    return draw(law, place)


def _parameter_stream(parameter: Parameter, seed: int, trial: int, step: int | None) -> np.random.Generator:
    return stream(seed, "parameter", parameter.layer, parameter.name, *_draw_names(trial, step))


def _draw_names(trial: int, step: int | None) -> tuple[int, ...]:
    return (trial,) if step is None else (trial, step)


def _orthonormal(gaussian: np.ndarray) -> np.ndarray:
    """Return the matrix with orthonormal columns (rows, where it is wide) that QR makes of a Gaussian one.

    Haar-distributed, because R's diagonal is made positive, which makes the factorisation unique.
    Source: F. Mezzadri, How to generate random matrices from the classical compact groups (2007).
    """
    rows, columns = gaussian.shape
    q, r = np.linalg.qr(gaussian if rows >= columns else gaussian.T)
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return q if rows >= columns else np.ascontiguousarray(q.T)


def _orthogonal(law: Orthogonal, place: _Place) -> np.ndarray:
    return law.gain * _orthonormal(place.normal(1.0))


def _spectral_radius(law: SpectralRadius, place: _Place) -> np.ndarray:
    if law.radius == 0:
        return np.zeros(place.shape)
    rng = place.stream()
    drawn = 0.0
    while drawn == 0:  # a matrix without any eigenvalue other than 0 has probability 0, but no scale
        gaussian = rng.standard_normal(place.shape)
        drawn = float(np.abs(np.linalg.eigvals(gaussian)).max())
    return gaussian * (law.radius / drawn)


def _chrono(law: Chrono, place: _Place) -> np.ndarray:
    """Return sign * log u, u ~ U[1, t_max - 1], one u for all gate biases of the layer, so that b_i = -b_f exactly."""
    name = place.parameter.name
    if name not in place.chrono_signs:
        known = ", ".join(place.chrono_signs) or "none in this cell"
        raise InitialiserError(
            f"chrono is for the biases of gates that set the memory ({known}), not for {name}; if {name} is one, the "
            f"cell block must say so: 'chrono: {{{name}: 1}}' if its gate keeps the state, -1 if it writes to it"
        )
    # Over one or two steps there is nothing to remember: u = 1, log u = 0.
    t_max = law.t_max if law.t_max is not None else max(float(place.seq_len), 2.0)
    shared = stream(place.seed, "chrono", place.parameter.layer, *_draw_names(place.trial, place.step))
    return place.chrono_signs[name] * np.log(shared.uniform(1.0, t_max - 1.0, place.shape))


def _ring(law: Ring, place: _Place) -> np.ndarray:
    """Return log(-1/2 log r^2), r^2 ~ U(r_min^2, r_max^2): evenly over the ring, whose area grows with r^2.

    Source: Orvieto et al., Resurrecting recurrent neural networks for long sequences (2023), Lemma 3.2.
    """
    square = law.r_min**2 + (law.r_max**2 - law.r_min**2) * place.open_unit_interval()
    # A sum rounded up to 1 would never decay, and has no logarithm of its logarithm.
    return np.log(-0.5 * np.log(np.minimum(square, np.nextafter(1.0, 0.0))))


def _parameters_of(values: np.ndarray, of: Of) -> np.ndarray:
    """Return the parameters of which exp, softplus or sigmoid has these values."""
    if of is None:
        return values
    if of == "exp":
        return np.asarray(np.log(values))
    if of == "softplus":
        # log(exp(v) - 1), which a large v does not overflow, and a small one does not cancel.
        return np.asarray(values + np.log(-np.expm1(-values)))
    return np.asarray(np.log(values) - np.log1p(-values))


def _between(values: np.ndarray, low: float, high: float, of: Of) -> np.ndarray:
    """Return the parameters of which `of` has these values, of an open range out of which rounding may have led."""
    return _parameters_of(np.clip(values, np.nextafter(low, high), np.nextafter(high, low)), of)


def _uniform(law: Uniform, place: _Place) -> np.ndarray:
    drawn = place.uniform(law.bound, law.mean)
    return drawn if law.of is None else _between(drawn, law.mean - law.bound, law.mean + law.bound, law.of)


def _log_uniform(law: LogUniform, place: _Place) -> np.ndarray:
    low, high = math.log(law.low), math.log(law.high)
    return _between(np.exp(place.uniform((high - low) / 2, (high + low) / 2)), law.low, law.high, law.of)


def _ramp(law: Ramp, place: _Place) -> np.ndarray:
    share = np.linspace(0.0, 1.0, place.shape[-1])
    along = np.asarray(law.first + (law.last - law.first) * share**law.power)
    return np.tile(_parameters_of(along, law.of), (*place.shape[:-1], 1))


def _torch(law: TorchDefault, place: _Place) -> np.ndarray:
    """PyTorch 2 (nn.RNN, nn.LSTM, nn.GRU, reset_parameters): U(-1/sqrt(n), 1/sqrt(n)), weights and biases alike.

    bias_ih and bias_hh are drawn each for itself, and so the sum of the two has the standard deviation sqrt(2/(3 n)).
    """
    bound = 1.0 / math.sqrt(place.hidden_size)
    return np.asarray(sum(rng.uniform(-bound, bound, place.shape) for rng in place.streams()))


_INPUT_KERNEL, _RECURRENT_KERNEL, _BIAS = "input kernel", "recurrent kernel", "bias"


def _role(parameter: Parameter) -> str | None:
    """Return what Keras and Flax would call a parameter, by its name; None where they have nothing like it."""
    is_matrix = len(parameter.shape) == 2
    if is_matrix and (parameter.layer == READOUT or parameter.name.startswith("W_x")):
        return _INPUT_KERNEL
    if is_matrix and parameter.name.startswith("W_h"):
        return _RECURRENT_KERNEL
    if not is_matrix and (parameter.name == "b" or parameter.name.startswith("b_")):
        return _BIAS
    return None


def _role_or_error(law: Choice, parameter: Parameter) -> str:
    role = _role(parameter)
    if role is None:
        raise InitialiserError(
            f"{law.NAME} has a default for matrices W_x... and W_h... and for biases b_..., "
            f"but {parameter.describe()}; give {parameter.name} an initialiser of its own"
        )
    return role


def _keras(law: KerasDefault, place: _Place) -> np.ndarray:
    """Keras 3 (SimpleRNN, LSTM, GRU): all gates share one kernel (in, gates * units), and that is what is drawn.

    Input kernel: glorot_uniform, so fan_out counts the rows of all gates. Recurrent kernel: orthogonal as a whole, so
    that one gate's square block is not: its spectral radius is near 1/2 for four gates. Biases 0, and 1 for the forget
    gate `b_f` (unit_forget_bias). The readout is a Dense layer: glorot_uniform on its own.
    """
    parameter = place.parameter
    role = _role_or_error(law, parameter)
    if role == _BIAS:
        return np.full(place.shape, 1.0 if parameter.name == "b_f" else 0.0)
    if role == _INPUT_KERNEL:
        return place.uniform(math.sqrt(6.0 / (place.fan_in + sum(gate.shape[0] for gate in _gates(place)))))
    return _block_of_orthogonal(place)


def _gates(place: _Place) -> tuple[Parameter, ...]:
    """Return the matrices that are blocks of one kernel in a framework that joins those of all gates, by name."""
    role = _role(place.parameter)
    alike = (p for p in place.layer_parameters if _role(p) == role and p.shape[1] == place.fan_in)
    return tuple(sorted(alike, key=lambda gate: gate.name))


def _block_of_orthogonal(place: _Place) -> np.ndarray:
    """Return one gate's block of a recurrent kernel that is orthogonal as a whole."""
    gates = _gates(place)
    first_row = sum(gate.shape[0] for gate in gates[: gates.index(place.parameter)])
    fused = _fused_orthogonal(gates, place.seed, place.trial, place.step)
    return fused[first_row : first_row + place.fan_out].copy()


# The gates of a layer ask for the same kernel one after the other; more than the last is not worth its memory.
@lru_cache(maxsize=1)
def _fused_orthogonal(gates: tuple[Parameter, ...], seed: int, trial: int, step: int | None) -> np.ndarray:
    return _orthonormal(
        np.concatenate([_parameter_stream(gate, seed, trial, step).standard_normal(gate.shape) for gate in gates])
    )


def _flax(law: FlaxDefault | LinenDefault | NnxDefault, place: _Place) -> np.ndarray:
    """Flax 0.12: linen's SimpleCell, LSTMCell, OptimizedLSTMCell and GRUCell, and NNX's SimpleCell and LSTMCell.

    Every gate has kernels of its own. Input kernel: lecun_normal, a normal law cut off at two standard deviations and
    rescaled to the variance 1/fan_in. Recurrent kernel: orthogonal. Biases 0, the LSTM's forget gate's too. (Only
    MGUCell has a forget bias of 1, which a name cannot tell; give `b_f: 1` for it.) The readout is a Dense layer, and
    so has an input kernel.
    """
    role = _role_or_error(law, place.parameter)
    if role == _BIAS:
        return np.zeros(place.shape)
    if role == _RECURRENT_KERNEL:
        return _orthonormal(place.normal(1.0))
    return _truncated_normal(place.stream(), place.shape) * (1.0 / (_TRUNCATED_STD * math.sqrt(place.fan_in)))


#: NNX's class of cells with these recurrent matrices; of the LSTM there is also OptimizedLSTMCell.
_NNX_CELLS = {
    frozenset({"W_hh"}): "SimpleCell",
    frozenset({"W_hi", "W_hf", "W_hg", "W_ho"}): "LSTMCell",
    frozenset({"W_hr", "W_hz", "W_hn"}): "GRUCell",
}


def _nnx(law: NnxDefault, place: _Place) -> np.ndarray:
    """Flax NNX 0.12 (nnx.SimpleCell, LSTMCell, OptimizedLSTMCell, GRUCell): linen's laws, but for two of the kernels.

    OptimizedLSTMCell and GRUCell have one recurrent layer for all gates, whose kernel (H, gates * H) is orthogonal as a
    whole, as Keras's is; its input kernel, (in, gates * H), has the same fan_in as those of single gates.
    """
    if _role_or_error(law, place.parameter) != _RECURRENT_KERNEL:
        return _flax(law, place)
    cell = law.cell or _NNX_CELLS.get(frozenset(gate.name for gate in _gates(place)))
    if cell is None:
        raise InitialiserError(
            "nnx has no class with the gates of this cell; {nnx: LSTMCell} draws one orthogonal kernel for each gate, "
            "{nnx: GRUCell} one for all of them"
        )
    return _block_of_orthogonal(place) if cell in ("GRUCell", "OptimizedLSTMCell") else _flax(law, place)


# The standard deviation of N(0, 1) given |z| <= 2: sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)).
_TRUNCATED_STD = math.sqrt(1.0 - 4.0 * math.exp(-2.0) / math.sqrt(2.0 * math.pi) / math.erf(math.sqrt(2.0)))


def _truncated_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return draws from N(0, 1) given |z| <= 2."""
    values = rng.standard_normal(shape)
    outside = np.abs(values) > 2.0
    while outside.any():
        values[outside] = rng.standard_normal(int(outside.sum()))
        outside = np.abs(values) > 2.0
    return values


_SHAPES: dict[str, Callable[[tuple[int, ...]], bool]] = {
    "parameter": lambda shape: True,
    "vector": lambda shape: len(shape) == 1,
    "vector or matrix": lambda shape: len(shape) > 0,
    "matrix": lambda shape: len(shape) == 2,
    "square matrix": lambda shape: len(shape) == 2 and shape[0] == shape[1],
}

_Draw = Callable[[Any, _Place], np.ndarray]

# One line a law: the shapes that it suits, and its draw.
_LAWS: dict[type[Choice], tuple[str, _Draw]] = {
    Zeros: ("parameter", lambda law, at: np.zeros(at.shape)),
    Constant: ("parameter", lambda law, at: np.full(at.shape, float(law.value))),
    Normal: ("parameter", lambda law, at: at.normal(law.std, law.mean)),
    Uniform: ("parameter", _uniform),
    LogUniform: ("parameter", _log_uniform),
    XavierUniform: ("matrix", lambda law, at: at.uniform(law.gain * math.sqrt(6.0 / (at.fan_in + at.fan_out)))),
    XavierNormal: ("matrix", lambda law, at: at.normal(law.gain * math.sqrt(2.0 / (at.fan_in + at.fan_out)))),
    HeUniform: ("matrix", lambda law, at: at.uniform(law.gain * math.sqrt(6.0 / at.fan_in))),
    HeNormal: ("matrix", lambda law, at: at.normal(law.gain * math.sqrt(2.0 / at.fan_in))),
    LecunNormal: ("matrix", lambda law, at: at.normal(law.gain * math.sqrt(1.0 / at.fan_in))),
    Orthogonal: ("matrix", _orthogonal),
    Identity: ("square matrix", lambda law, at: law.gain * np.eye(at.fan_in)),
    SpectralRadius: ("square matrix", _spectral_radius),
    Chrono: ("vector", _chrono),
    Ring: ("vector", _ring),
    RingPhase: ("vector", lambda law, at: np.log(law.max_phase * at.open_unit_interval())),
    Ramp: ("vector or matrix", _ramp),
    TorchDefault: ("parameter", _torch),
    KerasDefault: ("parameter", _keras),
    FlaxDefault: ("parameter", _flax),
    LinenDefault: ("parameter", _flax),
    NnxDefault: ("parameter", _nnx),
}
