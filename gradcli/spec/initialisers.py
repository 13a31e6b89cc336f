"""The initialisers of parameters and initial states, with their arguments and defaults.

The laws themselves are in `gradcli.sources.initialisers`; here is only what a spec may say.
"""

from __future__ import annotations

from math import pi
from typing import Annotated, Any, ClassVar, Literal

from gradcli.spec.base import Choice, choice_of
from gradcli.spec.given import Given, OrGiven
from gradcli.spec.value_readers import Field, WrongError

Finite = Annotated[float, Field(ge=-1e300, le=1e300)]
Positive = Annotated[float, Field(gt=0, le=1e300)]
Values = Annotated[float | list[Any] | Given, OrGiven(float | list[Any])]


class Zeros(Choice):
    """All zeros."""

    NAME = "zeros"


class Exact(Choice):
    """One number everywhere, or exact values as nested lists."""

    NAME = "values"
    MAIN = "values"
    values: Values


class Constant(Choice):
    """One number everywhere."""

    NAME = "constant"
    MAIN = "value"
    value: Finite


class Normal(Choice):
    """Independent draws from N(mean, std^2)."""

    NAME = "normal"
    MAIN = "std"
    std: Positive = 0.01
    mean: Finite = 0.0


#: What of a parameter a law is of: exp, softplus or sigmoid of it; of itself, where nothing is said.
Of = Literal["exp", "softplus", "sigmoid"] | None


def _check_range(of: Of, *ends: float, reached: bool = True) -> None:
    """Check that there are parameters of which `of` is between these ends, and at them where they are `reached`."""
    if of is not None and (min(ends) < 0 or (reached and min(ends) == 0)):
        raise WrongError(f"{of} of a parameter is above 0, but this reaches down to {min(ends):g}")
    if of == "sigmoid" and (max(ends) > 1 or (reached and max(ends) == 1)):
        raise WrongError(f"sigmoid of a parameter is below 1, but this reaches up to {max(ends):g}")


class Uniform(Choice):
    """Independent draws from U(mean - bound, mean + bound), of the parameter or of a function of it."""

    NAME = "uniform"
    MAIN = "bound"
    bound: Positive = 0.1
    mean: Finite = 0.0
    of: Of = None

    def check(self) -> None:
        _check_range(self.of, self.mean - self.bound, self.mean + self.bound, reached=False)


class LogUniform(Choice):
    """exp U(log low, log high), of the parameter or of a function of it."""

    NAME = "log_uniform"
    low: Positive
    high: Positive
    of: Of = None

    def check(self) -> None:
        if self.low >= self.high:
            raise WrongError(f"low = {self.low:g} is not below high = {self.high:g}")
        _check_range(self.of, self.low, self.high, reached=False)


class XavierUniform(Choice):
    """U(-a, a) with a = gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""

    NAME = "xavier_uniform"
    MAIN = "gain"
    gain: Positive = 1.0


class XavierNormal(Choice):
    """N(0, gain^2 2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""

    NAME = "xavier_normal"
    MAIN = "gain"
    gain: Positive = 1.0


class HeUniform(Choice):
    """U(-a, a) with a = gain sqrt(6 / fan_in) (He et al. 2015)."""

    NAME = "he_uniform"
    MAIN = "gain"
    gain: Positive = 1.0


class HeNormal(Choice):
    """N(0, gain^2 2 / fan_in) (He et al. 2015)."""

    NAME = "he_normal"
    MAIN = "gain"
    gain: Positive = 1.0


class LecunNormal(Choice):
    """N(0, gain^2 / fan_in) (LeCun et al. 1998)."""

    NAME = "lecun_normal"
    MAIN = "gain"
    gain: Positive = 1.0


class Orthogonal(Choice):
    """gain times a random matrix with orthonormal rows or columns, Haar-distributed (Saxe et al. 2014)."""

    NAME = "orthogonal"
    MAIN = "gain"
    gain: Positive = 1.0


class Identity(Choice):
    """gain times the identity matrix (IRNN: Le, Jaitly and Hinton 2015)."""

    NAME = "identity"
    MAIN = "gain"
    gain: Finite = 1.0


class SpectralRadius(Choice):
    """A Gaussian matrix scaled so that its largest |eigenvalue| is `radius` (Jaeger 2001)."""

    NAME = "spectral_radius"
    MAIN = "radius"
    radius: Annotated[float, Field(ge=0, le=1e300)]


class Chrono(Choice):
    """+-log U[1, t_max - 1] on gate biases; t_max is seq_len unless given (Tallec and Ollivier 2018)."""

    NAME = "chrono"
    MAIN = "t_max"
    t_max: Annotated[float, Field(gt=2, le=1e300)] | None = None


class Ring(Choice):
    """nu_log = log(-log r), where the moduli r fill the ring r_min < r < r_max evenly (LRU: Orvieto et al. 2023)."""

    NAME = "ring"
    r_min: Annotated[float, Field(ge=0, lt=1)] = 0.0
    r_max: Annotated[float, Field(gt=0, le=1)] = 1.0

    def check(self) -> None:
        if self.r_min >= self.r_max:
            raise WrongError(f"r_min = {self.r_min} is not below r_max = {self.r_max}")


class RingPhase(Choice):
    """theta_log = log U(0, max_phase), the logarithm of an angle in radians (LRU: Orvieto et al. 2023)."""

    NAME = "ring_phase"
    MAIN = "max_phase"
    max_phase: Annotated[float, Field(gt=0, le=2 * pi)] = 2 * pi


class Ramp(Choice):
    """From `first` to `last` over n units, or over the n columns of a matrix, the same in every trial and every row.

    first + (last - first) (i / (n - 1))^power, of the parameter or of a function of it.
    """

    NAME = "ramp"
    first: Finite
    last: Finite
    power: Positive = 1.0
    of: Of = None

    def check(self) -> None:
        _check_range(self.of, self.first, self.last)


class TorchDefault(Choice):
    """PyTorch's recurrent layers: U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)) for everything, both biases too."""

    NAME = "torch"


class KerasDefault(Choice):
    """What Keras does: glorot_uniform input kernel, orthogonal recurrent kernel over all gates, biases 0, forget 1."""

    NAME = "keras"


class FlaxDefault(Choice):
    """What Flax's linen does: lecun_normal input kernels, an orthogonal recurrent kernel for each gate, biases 0."""

    NAME = "flax"


class LinenDefault(Choice):
    """The same as flax: linen.SimpleCell, LSTMCell, OptimizedLSTMCell and GRUCell."""

    NAME = "linen"


class NnxDefault(Choice):
    """What Flax NNX's class `cell` does; GRUCell and OptimizedLSTMCell draw all gates as one orthogonal kernel.

    Without one, the class of the same gates: SimpleCell, LSTMCell, GRUCell.
    """

    NAME = "nnx"
    MAIN = "cell"
    cell: Literal["SimpleCell", "LSTMCell", "OptimizedLSTMCell", "GRUCell"] | None = None


Initialiser: Any = choice_of(
    "initialiser",
    Zeros,
    Constant,
    Normal,
    Uniform,
    LogUniform,
    XavierUniform,
    XavierNormal,
    HeUniform,
    HeNormal,
    LecunNormal,
    Orthogonal,
    Identity,
    SpectralRadius,
    Chrono,
    Ring,
    RingPhase,
    Ramp,
    TorchDefault,
    KerasDefault,
    FlaxDefault,
    LinenDefault,
    NnxDefault,
    bare=Constant,
)


class NormalState(Choice):
    """Independent draws from N(mean, std^2), anew for every sequence."""

    NAME: ClassVar[str] = "normal"
    MAIN = "std"
    std: Positive = 1.0
    mean: Finite = 0.0


class UniformState(Choice):
    """Independent draws from U(-bound, bound), anew for every sequence."""

    NAME: ClassVar[str] = "uniform"
    MAIN = "bound"
    bound: Positive = 1.0


InitialState: Any = choice_of("initial state", Zeros, NormalState, UniformState, bare=Exact)
