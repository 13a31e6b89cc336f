"""The laws of parameters: exact properties, statistics at fixed seeds, and independence of the draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from late_torch import torch

from gradcli.errors import UsageError
from gradcli.sources.initialisers import _LAWS, READOUT, InitialiserError, Parameter, draw_parameter
from gradcli.spec.base import Choice, alternatives_of
from gradcli.spec.initialisers import (
    Chrono,
    Constant,
    FlaxDefault,
    HeNormal,
    HeUniform,
    Identity,
    Initialiser,
    KerasDefault,
    LecunNormal,
    LinenDefault,
    NnxDefault,
    Normal,
    Orthogonal,
    SpectralRadius,
    TorchDefault,
    Uniform,
    XavierNormal,
    XavierUniform,
    Zeros,
)

N, INPUTS = 128, 32


def lstm(layer: str = "layer0", n: int = N, inputs: int = INPUTS) -> list[Parameter]:
    shapes = {"W_x": (n, inputs), "W_h": (n, n), "b_": (n,)}
    return [Parameter(layer, prefix + gate, shape) for prefix, shape in shapes.items() for gate in "ifgo"]


def draw(
    parameter: Parameter,
    law: Choice,
    *,
    others: list[Parameter] | None = None,
    n: int = N,
    seq_len: int = 100,
    seed: int = 0,
    trial: int = 0,
    step: int | None = None,
    signs: dict[str, int] | None = None,
    copies: int = 1,
) -> np.ndarray:
    return draw_parameter(
        parameter,
        law,
        cell_parameters=[parameter] if others is None else others,
        hidden_size=n,
        seq_len=seq_len,
        seed=seed,
        trial=trial,
        step=step,
        chrono_signs={"b_f": 1, "b_i": -1} if signs is None else signs,
        copies=copies,
    )


def named(parameters: list[Parameter], name: str) -> Parameter:
    return next(parameter for parameter in parameters if parameter.name == name)


def matrix(rows: int, columns: int, name: str = "W_hh") -> Parameter:
    return Parameter("layer0", name, (rows, columns))


VECTOR = Parameter("layer0", "b_f", (N,))
SCALAR = Parameter("layer0", "beta", ())


def spectral_radius(values: np.ndarray) -> float:
    return float(np.abs(np.linalg.eigvals(values)).max())


def test_every_initialiser_of_the_spec_has_a_law():
    assert set(_LAWS) == set(alternatives_of(Initialiser))


@pytest.mark.parametrize("law", [Zeros(), Constant(value=1), Normal(), TorchDefault()], ids=lambda law: law.NAME)
@pytest.mark.parametrize("shape", [(), (3,), (3, 5)])
def test_a_draw_is_a_float64_array_of_the_parameters_shape(law, shape):
    values = draw(Parameter("layer0", "p", shape), law)
    assert isinstance(values, np.ndarray)
    assert values.dtype == np.float64
    assert values.shape == shape


def test_zeros_and_constant():
    assert not draw(matrix(3, 5), Zeros()).any()
    assert np.array_equal(draw(matrix(3, 5), Constant(value=-2.5)), np.full((3, 5), -2.5))


# fan_in = 100 columns, fan_out = 300 rows: the two cannot be exchanged unnoticed.
@pytest.mark.parametrize(
    ("law", "std"),
    [
        (Normal(std=0.3), 0.3),
        (Uniform(bound=0.3), 0.3 / math.sqrt(3)),
        (XavierUniform(gain=2), 2 * math.sqrt(2 / 400)),
        (XavierNormal(gain=2), 2 * math.sqrt(2 / 400)),
        (HeUniform(), math.sqrt(2 / 100)),
        (HeNormal(), math.sqrt(2 / 100)),
        (LecunNormal(gain=3), 3 * math.sqrt(1 / 100)),
        (TorchDefault(), 1 / math.sqrt(3 * N)),
    ],
    ids=lambda value: value.NAME if isinstance(value, Choice) else None,
)
def test_the_standard_deviation_of_a_law(law, std):
    values = draw(matrix(300, 100), law)
    count = values.size
    assert abs(values.mean()) < 4 * std / math.sqrt(count)
    # Var(sample variance) <= 2 std^4 / count for the normal law, less for the uniform one.
    assert values.std() == pytest.approx(std, rel=4 / math.sqrt(2 * count))


@pytest.mark.parametrize(
    ("law", "bound"),
    [
        (Uniform(bound=0.3), 0.3),
        (XavierUniform(), math.sqrt(6 / 400)),
        (HeUniform(gain=2), 2 * math.sqrt(6 / 100)),
        (TorchDefault(), 1 / math.sqrt(N)),
    ],
    ids=lambda value: value.NAME if isinstance(value, Choice) else None,
)
def test_uniform_laws_fill_their_interval_and_keep_within_it(law, bound):
    values = draw(matrix(300, 100), law)
    assert 0.999 * bound < values.max() <= bound
    assert -bound <= values.min() < -0.999 * bound


def test_uniform_has_a_mean():
    values = draw(matrix(300, 100), Uniform(bound=0.5, mean=0.5))
    assert 0 <= values.min() < 0.001
    assert 0.999 < values.max() <= 1


def test_normal_has_a_mean():
    assert draw(matrix(300, 100), Normal(std=0.1, mean=5)).mean() == pytest.approx(5, abs=4 * 0.1 / math.sqrt(30_000))


@pytest.mark.torch
@pytest.mark.parametrize(
    ("law", "torch_name", "arguments"),
    [
        (XavierUniform(gain=1.5), "xavier_uniform_", {"gain": 1.5}),
        (XavierNormal(gain=1.5), "xavier_normal_", {"gain": 1.5}),
        (HeUniform(), "kaiming_uniform_", {"nonlinearity": "relu"}),
        (HeNormal(), "kaiming_normal_", {"nonlinearity": "relu"}),
    ],
    ids=lambda value: value.NAME if isinstance(value, Choice) else None,
)
def test_fan_in_and_fan_out_are_those_of_pytorch(law, torch_name, arguments):
    generator = torch.Generator().manual_seed(0)
    theirs = getattr(torch.nn.init, torch_name)(torch.empty(300, 100), **arguments, generator=generator).numpy()
    ours = draw(matrix(300, 100), law)
    assert ours.std() == pytest.approx(float(theirs.std()), rel=0.02)


@pytest.mark.torch
def test_torch_draws_what_pytorchs_recurrent_layers_draw():
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(INPUTS, N).state_dict()
    for name, gates in (("weight_ih_l0", "W_xg"), ("weight_hh_l0", "W_hg"), ("bias_hh_l0", "b_g")):
        ours = draw(named(lstm(), gates), TorchDefault())
        bound = float(theirs[name].abs().max())
        assert np.abs(ours).max() == pytest.approx(bound, rel=0.03)


def test_torch_has_the_spectral_radius_and_norm_of_the_circular_law():
    n = 400
    values = [draw(matrix(n, n), TorchDefault(), n=n, trial=trial) for trial in range(3)]
    # rho -> 1/sqrt(3) and the spectral norm -> 2/sqrt(3) as n grows.
    assert np.mean([spectral_radius(w) for w in values]) == pytest.approx(1 / math.sqrt(3), rel=0.05)
    assert np.mean([np.linalg.norm(w, 2) for w in values]) == pytest.approx(2 / math.sqrt(3), rel=0.03)


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (1, 1), (5, 1), (1, 5)])
def test_orthogonal_has_orthonormal_rows_or_columns(shape):
    q = draw(matrix(*shape), Orthogonal(gain=1.5)) / 1.5
    gram = q.T @ q if shape[0] >= shape[1] else q @ q.T
    assert np.allclose(gram, np.eye(min(shape)), atol=1e-14)


def test_orthogonal_is_haar_distributed():
    # Under the Haar measure the trace of an n x n orthogonal matrix has mean 0 and variance 1 for every n >= 2, and
    # each entry has variance 1/n. QR without its sign fix has a biased diagonal, and mean traces far from 0.
    draws = np.array([draw(matrix(4, 4), Orthogonal(), trial=trial) for trial in range(4000)])
    traces = np.trace(draws, axis1=1, axis2=2)
    assert abs(traces.mean()) < 4 / math.sqrt(4000)
    assert traces.var() == pytest.approx(1, abs=0.1)
    assert np.allclose((draws**2).mean(axis=0), 1 / 4, atol=0.02)
    assert np.sign(np.linalg.det(draws)).mean() == pytest.approx(0, abs=4 / math.sqrt(4000))


def test_identity():
    assert np.array_equal(draw(matrix(3, 3), Identity(gain=0.5)), 0.5 * np.eye(3))


@pytest.mark.parametrize("n", [1, 2, 50])
@pytest.mark.parametrize("radius", [0.9, 1.25, 1e-3])
def test_spectral_radius_is_exactly_what_was_asked_for(n, radius):
    assert spectral_radius(draw(matrix(n, n), SpectralRadius(radius=radius))) == pytest.approx(radius, rel=1e-12)


def test_a_spectral_radius_of_zero_is_the_zero_matrix():
    assert np.array_equal(draw(matrix(5, 5), SpectralRadius(radius=0)), np.zeros((5, 5)))


@pytest.mark.parametrize(
    ("law", "parameter", "message"),
    [
        (
            Orthogonal(),
            VECTOR,
            "orthogonal needs a matrix, but b_f is a vector of 128 numbers; "
            "initialisers that suit it: "
            "zeros, constant, normal, uniform, log_uniform, chrono, ring, ring_phase, ramp, torch, keras, flax, linen, "
            "nnx",
        ),
        (
            XavierUniform(),
            SCALAR,
            "xavier_uniform needs a matrix, but beta is a single number; "
            "initialisers that suit it: zeros, constant, normal, uniform, log_uniform, torch, keras, flax, linen, nnx",
        ),
        (
            Identity(),
            matrix(3, 5),
            "identity needs a square matrix, but W_hh is a matrix of 3 x 5; initialisers that suit it: "
            "zeros, constant, normal, uniform, log_uniform, xavier_uniform, xavier_normal, he_uniform, he_normal, "
            "lecun_normal, orthogonal, ramp, torch, keras, flax, linen, nnx",
        ),
        (
            SpectralRadius(radius=0),
            matrix(3, 5),
            "spectral_radius needs a square matrix, but W_hh is a matrix of 3 x 5; initialisers that suit it: "
            "zeros, constant, normal, uniform, log_uniform, xavier_uniform, xavier_normal, he_uniform, he_normal, "
            "lecun_normal, orthogonal, ramp, torch, keras, flax, linen, nnx",
        ),
        (
            KerasDefault(),
            SCALAR,
            "keras has a default for matrices W_x... and W_h... and for biases b_..., "
            "but beta is a single number; give beta an initialiser of its own",
        ),
        (
            FlaxDefault(),
            matrix(4, 4, "U"),
            "flax has a default for matrices W_x... and W_h... and for biases b_..., "
            "but U is a matrix of 4 x 4; give U an initialiser of its own",
        ),
    ],
    ids=lambda value: value.NAME if isinstance(value, Choice) else None,
)
def test_a_law_that_does_not_suit_the_parameter_is_an_error(law, parameter, message):
    with pytest.raises(InitialiserError) as error:
        draw(parameter, law)
    assert str(error.value) == message
    assert isinstance(error.value, UsageError)


class TestChrono:
    def test_the_input_gate_is_exactly_the_forget_gate_with_the_other_sign(self):
        b_f, b_i = (draw(named(lstm(), name), Chrono(), others=lstm()) for name in ("b_f", "b_i"))
        assert np.array_equal(b_i, -b_f)
        assert len(np.unique(b_f)) == N

    def test_it_is_the_logarithm_of_a_uniform_law_from_1_to_t_max_minus_1(self):
        u = np.exp(draw(Parameter("layer0", "b_f", (20_000,)), Chrono(t_max=100)))
        assert 1 <= u.min() < 1.05
        assert 98.9 < u.max() <= 99
        assert u.mean() == pytest.approx(50, abs=4 * 98 / math.sqrt(12 * 20_000))

    def test_t_max_is_seq_len_unless_given(self):
        assert np.array_equal(draw(VECTOR, Chrono(), seq_len=50), draw(VECTOR, Chrono(t_max=50), seq_len=7))

    def test_layers_and_trials_have_draws_of_their_own(self):
        first = draw(VECTOR, Chrono())
        assert not np.any(first == draw(VECTOR, Chrono(), trial=1))
        assert not np.any(first == draw(Parameter("layer1", "b_f", (N,)), Chrono()))

    @pytest.mark.parametrize("seq_len", [1, 2])
    def test_a_sequence_too_short_to_remember_anything_gives_zero(self, seq_len):
        assert np.array_equal(draw(VECTOR, Chrono(), seq_len=seq_len), np.zeros(N))

    def test_other_biases_are_an_error(self):
        with pytest.raises(InitialiserError) as error:
            draw(Parameter("layer0", "b_g", (N,)), Chrono())
        assert str(error.value) == (
            "chrono is for the biases of gates that set the memory (b_f, b_i), not for b_g; if b_g is one, the cell "
            "block must say so: 'chrono: {b_g: 1}' if its gate keeps the state, -1 if it writes to it"
        )

    def test_a_cell_without_gates_has_none(self):
        with pytest.raises(InitialiserError, match=r"\(none in this cell\), not for b_f"):
            draw(VECTOR, Chrono(), signs={})


class TestKeras:
    def test_the_recurrent_kernel_is_orthogonal_as_a_whole(self):
        cell = lstm()
        fused = np.concatenate([draw(named(cell, f"W_h{gate}"), KerasDefault(), others=cell) for gate in "ifgo"])
        assert np.allclose(fused.T @ fused, np.eye(N), atol=1e-13)

    def test_one_gate_of_four_has_a_spectral_radius_near_one_half(self):
        cell = lstm()
        radii = [
            spectral_radius(draw(named(cell, "W_hg"), KerasDefault(), others=cell, trial=trial)) for trial in range(8)
        ]
        # 1/2 in the limit; 0.519 is the mean at n = 128.
        assert np.mean(radii) == pytest.approx(0.519, abs=0.02)

    def test_one_gate_of_three_has_a_spectral_radius_near_one_over_sqrt_3(self):
        cell = [Parameter("layer0", f"W_h{gate}", (N, N)) for gate in "rzn"]
        radii = [spectral_radius(draw(cell[2], KerasDefault(), others=cell, trial=trial)) for trial in range(8)]
        assert np.mean(radii) == pytest.approx(1 / math.sqrt(3), rel=0.06)

    def test_a_plain_rnn_is_orthogonal(self):
        w = draw(matrix(N, N), KerasDefault())
        assert np.array_equal(w, draw(matrix(N, N), Orthogonal()))

    def test_the_order_in_which_the_cell_names_its_gates_does_not_matter(self):
        cell = lstm()
        w_hf = named(cell, "W_hf")
        assert np.array_equal(
            draw(w_hf, KerasDefault(), others=cell), draw(w_hf, KerasDefault(), others=list(reversed(cell)))
        )

    def test_fan_out_of_the_input_kernel_counts_all_gates(self):
        cell = lstm()
        bound = math.sqrt(6 / (INPUTS + 4 * N))
        values = draw(named(cell, "W_xf"), KerasDefault(), others=cell)
        assert 0.99 * bound < np.abs(values).max() <= bound

    def test_biases_are_zero_and_one_for_the_forget_gate(self):
        cell = [*lstm(), Parameter("layer0", "b_hn", (N,))]
        for name in ("b_i", "b_g", "b_o", "b_hn"):
            assert not draw(named(cell, name), KerasDefault(), others=cell).any()
        assert np.array_equal(draw(named(cell, "b_f"), KerasDefault(), others=cell), np.ones(N))

    def test_what_was_drawn_may_be_overwritten(self):
        cell = lstm()
        first = draw(named(cell, "W_hg"), KerasDefault(), others=cell)
        kept = first.copy()
        first[...] = 0.0
        assert np.array_equal(draw(named(cell, "W_hg"), KerasDefault(), others=cell), kept)

    def test_the_readout_is_a_dense_layer(self):
        readout = [Parameter(READOUT, "W_hy", (10, N)), Parameter(READOUT, "b_y", (10,))]
        bound = math.sqrt(6 / (10 + N))
        values = draw(readout[0], KerasDefault(), others=readout)
        assert 0.98 * bound < np.abs(values).max() <= bound
        assert not draw(readout[1], KerasDefault(), others=readout).any()


class TestFlax:
    def test_each_recurrent_kernel_is_orthogonal(self):
        cell = lstm()
        for gate in "ifgo":
            w = draw(named(cell, f"W_h{gate}"), FlaxDefault(), others=cell)
            assert np.allclose(w.T @ w, np.eye(N), atol=1e-13)

    def test_the_input_kernel_is_a_truncated_normal_of_variance_one_over_fan_in(self):
        values = draw(matrix(400, 100, "W_xh"), FlaxDefault()) * math.sqrt(100)
        assert values.std() == pytest.approx(1, rel=0.01)
        cut = 2 / 0.87962566103423978
        assert 0.995 * cut < np.abs(values).max() <= cut

    def test_all_biases_are_zero(self):
        assert not draw(VECTOR, FlaxDefault()).any()


class TestNnx:
    #: Of flax 0.12.8 with 128 units and 8 keys: whether the recurrent kernels of all gates are orthogonal as one or
    #: each alone; and what the cell keeps of its gradient at rest: max |1/2 + lambda / 4|, lambda of W_hn or W_hg.
    CELLS = (
        ("rzn", LinenDefault(), "each", 0.75),  # linen.GRUCell
        ("ifgo", LinenDefault(), "each", 0.75),  # linen.LSTMCell, linen.OptimizedLSTMCell
        ("ifgo", FlaxDefault(), "each", 0.75),
        ("ifgo", NnxDefault(), "each", 0.75),  # nnx.LSTMCell
        ("ifgo", NnxDefault(cell="LSTMCell"), "each", 0.75),
        ("ifgo", NnxDefault(cell="OptimizedLSTMCell"), "one", 0.6245),
        ("rzn", NnxDefault(), "one", 0.6439),  # nnx.GRUCell
        ("rzn", NnxDefault(cell="GRUCell"), "one", 0.6439),
    )

    @pytest.mark.parametrize(("gates", "law", "orthogonal", "at_rest"), CELLS)
    def test_the_recurrent_kernels_are_those_of_the_class(self, gates, law, orthogonal, at_rest):
        cell = [Parameter("layer0", f"W_h{gate}", (N, N)) for gate in gates]
        kernels = [draw(gate, law, others=cell) for gate in cell]
        whole = np.concatenate(kernels)
        assert np.allclose(whole.T @ whole, np.eye(N), atol=1e-13) == (orthogonal == "one")
        for kernel in kernels:
            assert np.allclose(kernel.T @ kernel, np.eye(N), atol=1e-13) == (orthogonal == "each")
        rates = []
        for trial in range(8):
            candidate = draw(named(cell, "W_hn" if "n" in gates else "W_hg"), law, others=cell, trial=trial)
            rates.append(np.abs(0.5 + np.linalg.eigvals(candidate) / 4).max())
        assert np.median(rates) == pytest.approx(at_rest, rel=0.01)

    def test_input_kernels_and_biases_are_those_of_linen(self):
        cell = lstm()
        for name in ("W_xi", "b_f"):
            expected = draw(named(cell, name), LinenDefault(), others=cell)
            assert np.array_equal(draw(named(cell, name), NnxDefault(cell="GRUCell"), others=cell), expected)

    def test_gates_of_no_class_have_to_be_told_of_which_one_they_are(self):
        cell = [Parameter("layer0", f"W_h{gate}", (N, N)) for gate in "fn"]
        with pytest.raises(InitialiserError, match=r"\{nnx: LSTMCell\} draws one orthogonal kernel for each gate"):
            draw(cell[0], NnxDefault(), others=cell)
        first = draw(cell[0], NnxDefault(cell="LSTMCell"), others=cell)
        assert np.allclose(first.T @ first, np.eye(N), atol=1e-13)


class TestTorch:
    def test_two_biases_are_drawn_each_for_itself_and_added(self):
        bias = Parameter("layer0", "b_f", (20_000,))
        one, two = draw(bias, TorchDefault()), draw(bias, TorchDefault(), copies=2)
        bound = 1 / math.sqrt(N)
        second = two - one
        for each in (one, second):
            assert 0.999 * bound < np.abs(each).max() <= bound
            assert each.std() == pytest.approx(bound / math.sqrt(3), rel=0.01)
        assert abs(np.corrcoef(one, second)[0, 1]) < 0.02
        assert two.std() == pytest.approx(0.072, abs=0.0005)


class TestIndependence:
    LAWS = (
        Normal(),
        Uniform(),
        TorchDefault(),
        Orthogonal(),
        SpectralRadius(radius=0.9),
        FlaxDefault(),
        KerasDefault(),
    )

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.NAME)
    def test_the_same_seed_gives_the_same_numbers_whatever_the_length(self, law):
        assert np.array_equal(draw(matrix(8, 8), law, seq_len=10), draw(matrix(8, 8), law, seq_len=1000))

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.NAME)
    def test_seed_trial_layer_name_and_step_give_other_numbers(self, law):
        first = draw(matrix(8, 8), law)
        others = [
            draw(matrix(8, 8), law, seed=1),
            draw(matrix(8, 8), law, trial=1),
            draw(Parameter("layer1", "W_hh", (8, 8)), law),
            draw(matrix(8, 8, "W_hg"), law),
            draw(matrix(8, 8), law, step=0),
            draw(matrix(8, 8), law, step=1),
        ]
        for one, other in [(first, other) for other in others] + [(others[-1], others[-2])]:
            assert not np.any(one == other)

    @pytest.mark.parametrize("law", LAWS[:-1], ids=lambda law: law.NAME)
    def test_another_parameter_of_the_cell_changes_nothing(self, law):
        cell = lstm(n=8)
        w_hf = named(cell, "W_hf")
        more = [Parameter("layer0", "W_ha", (8, 8)), *cell]
        assert np.array_equal(draw(w_hf, law, others=cell), draw(w_hf, law, others=more))

    def test_normal_laws_of_different_width_are_the_same_draw_scaled(self):
        wide, narrow = draw(matrix(8, 8), Normal(std=2)), draw(matrix(8, 8), Normal(std=1))
        assert np.array_equal(wide, 2 * narrow)

    def test_a_parameter_outside_its_own_cell_is_a_mistake_of_the_caller(self):
        with pytest.raises(ValueError, match="cell_parameters must hold all parameters of the layer, W_hh too"):
            draw(matrix(8, 8), KerasDefault(), others=lstm())
