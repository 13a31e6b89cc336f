"""Targets of losses: drawn, given, and the next symbol."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from as_read import as_read

from gradcli.sources.initialisers import InitialiserError
from gradcli.sources.input_source import InputSource
from gradcli.sources.inputs import open_input
from gradcli.sources.target_files import TargetError
from gradcli.sources.targets import class_count, draw_target
from gradcli.spec.inputs import Input, NormalInput, OneHotInput, TextInput
from gradcli.spec.losses import CrossEntropyLoss, Loss, NextSymbol

T, BATCH, TRIALS, OUTPUTS = 200, 5, 2, 3
EVERY = range(1, T + 1)


def inputs(model: Input, folder: Path = Path()) -> InputSource:
    return open_input(
        model, folder=folder, input_size=None, default_size=7, seq_len=T, batch_size=BATCH, trials=TRIALS, seed=0
    )


NORMAL, ONE_HOT = inputs(NormalInput(kind="normal")), inputs(OneHotInput(kind="one_hot"))


def loss_of(kind: str, **arguments) -> Loss:
    return as_read(Loss, {"kind": kind, **arguments})


def target(loss, steps=EVERY, *, source=NORMAL, trials=TRIALS, seed=0, part=slice(None)) -> np.ndarray:
    return draw_target(
        loss,
        output_size=OUTPUTS,
        steps=steps,
        batch_size=BATCH,
        trials=trials,
        seed=seed,
        input_source=source,
        part=part,
    )


DRAWN = {
    "mse normal": (loss_of("mse"), NORMAL),
    "mse uniform": (loss_of("mse", target={"uniform": 2.0}), NORMAL),
    "drawn class": (loss_of("cross_entropy"), NORMAL),
    "next symbol": (loss_of("cross_entropy"), ONE_HOT),
    "given class": (loss_of("cross_entropy", target=3), NORMAL),
    "given classes": (loss_of("cross_entropy", target=[step % 10 for step in range(T)]), NORMAL),
    "given values": (loss_of("mse", target=[[step, 1, 2] for step in range(T)]), NORMAL),
}


@pytest.mark.parametrize("name", DRAWN)
def test_the_shape_and_dtype_of_a_target(name):
    loss, source = DRAWN[name]
    values = target(loss, source=source)
    if loss.kind == "mse":
        assert values.shape == (T, TRIALS, OUTPUTS, BATCH)
        assert values.dtype == np.float64
    else:
        assert values.shape == (T, TRIALS, BATCH)
        assert values.dtype == np.int64
    assert values.flags.writeable


@pytest.mark.parametrize("name", DRAWN)
def test_a_part_of_the_steps_has_the_values_of_the_whole(name):
    loss, source = DRAWN[name]
    whole = target(loss, source=source)
    parts = [target(loss, source=source, part=slice(start, start + 70)) for start in range(0, T, 70)]
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("name", ["mse normal", "mse uniform", "drawn class", "next symbol"])
def test_the_target_of_a_step_depends_neither_on_the_other_steps_nor_on_further_trials(name):
    loss, source = DRAWN[name]
    whole = target(loss, source=source)
    steps = [1, 2, 3, 5, 7, 64, 65, 130, T]
    assert np.array_equal(target(loss, steps, source=source), whole[np.array(steps) - 1])
    assert np.array_equal(target(loss, [T], source=source), whole[-1:])
    if source is NORMAL:
        assert np.array_equal(target(loss, trials=3)[:, :2], whole)
        assert not np.array_equal(target(loss, seed=1), whole)
    assert not np.array_equal(whole[:, 0], whole[:, 1])


def test_the_target_is_not_the_input():
    drawn = draw_target(
        loss_of("mse"),
        output_size=NORMAL.size,
        steps=EVERY,
        batch_size=BATCH,
        trials=TRIALS,
        seed=0,
        input_source=NORMAL,
    )
    assert abs(np.corrcoef(drawn.ravel(), NORMAL.fill(0, T).ravel())[0, 1]) < 5 / np.sqrt(drawn.size)


def test_normal_and_uniform_targets_have_their_moments():
    normal = target(loss_of("mse", target={"normal": {"std": 0.5, "mean": 2.0}}))
    assert normal.mean() == pytest.approx(2.0, abs=4 * 0.5 / np.sqrt(normal.size))
    assert normal.std() == pytest.approx(0.5, rel=4 / np.sqrt(2 * normal.size))
    uniform = target(loss_of("mse", target={"uniform": 2.0}))
    assert -2 <= uniform.min() < -1.99
    assert 1.99 < uniform.max() <= 2


def test_given_values_are_one_number_one_vector_or_one_vector_for_each_step():
    assert not target(loss_of("mse", target="zeros"), [T]).any()
    assert np.array_equal(target(loss_of("mse", target=0.5), [T]), np.full((1, TRIALS, OUTPUTS, BATCH), 0.5))
    vector = target(loss_of("mse", target=[1, 2, 3]), [5, T])
    assert np.array_equal(vector[1, 0, :, 4], [1, 2, 3])
    each = target(loss_of("mse", target=[[1, 2, 3], [4, 5, 6]]), [5, T])
    assert np.array_equal(each[:, 1, :, 2], [[1, 2, 3], [4, 5, 6]])
    with pytest.raises(InitialiserError) as error:
        target(loss_of("mse", target=[1, 2]), [5, T])
    assert str(error.value) == "expected a list of 3 numbers, or 2 such lists; got a list of 2 numbers"


def test_drawn_classes_are_uniform_and_ten_unless_given():
    drawn = target(loss_of("cross_entropy"))
    counts = np.bincount(drawn.ravel(), minlength=10)
    assert len(counts) == 10
    assert np.all(np.abs(counts - drawn.size / 10) < 5 * np.sqrt(drawn.size / 10))
    assert target(loss_of("cross_entropy", classes=4)).max() == 3


def test_the_next_symbol_is_the_symbol_of_the_next_step():
    assert np.array_equal(target(loss_of("cross_entropy"), source=ONE_HOT), ONE_HOT.symbols(1, T + 1))
    assert np.array_equal(target(loss_of("cross_entropy"), [3, T], source=ONE_HOT)[0], ONE_HOT.symbols(3, 4)[0])


def test_the_next_symbol_of_a_text_is_its_next_character(tmp_path):
    (tmp_path / "book.txt").write_text("abcd" * 100, encoding="utf-8")
    source = inputs(TextInput(kind="text", path="book.txt"), tmp_path)
    assert class_count(loss_of("cross_entropy"), source) == 4
    following = target(loss_of("cross_entropy"), source=source)
    assert np.array_equal(following, (source.symbols(0, T) + 1) % 4)


def test_the_number_of_classes():
    plain, given = loss_of("cross_entropy"), loss_of("cross_entropy", classes=12)
    assert [class_count(plain, NORMAL), class_count(given, NORMAL)] == [10, 12]
    assert [class_count(plain, ONE_HOT), class_count(given, ONE_HOT)] == [7, 12]
    assert class_count(loss_of("cross_entropy", target="drawn"), ONE_HOT) == 10


def test_given_classes_are_one_or_one_for_each_step():
    assert np.array_equal(target(loss_of("cross_entropy", target=3), [5, T]), np.full((2, TRIALS, BATCH), 3))
    each = target(loss_of("cross_entropy", target=[3, 9]), [5, T])
    assert each[:, 1, 4].tolist() == [3, 9]


@pytest.mark.parametrize(
    ("loss", "source", "message"),
    [
        (
            CrossEntropyLoss(kind="cross_entropy", target=NextSymbol()),
            NORMAL,
            "target next needs an input of symbols: kind one_hot, text or tokens; for other inputs: drawn, class "
            "numbers, or a file of them",
        ),
        (
            loss_of("cross_entropy", classes=5),
            ONE_HOT,
            "the target is the next of 7 symbols, but classes is 5; leave classes out, or set it to at least 7",
        ),
        (
            loss_of("cross_entropy", target=10),
            NORMAL,
            "class 10 is out of range: with 10 classes they are 0 to 9",
        ),
        (
            loss_of("cross_entropy", target=[1, 4], classes=3),
            NORMAL,
            "class 4 is out of range: with 3 classes they are 0 to 2",
        ),
        (
            loss_of("cross_entropy", target=[1, 2, 0]),
            NORMAL,
            "expected one class, or one for each of the 2 steps of the loss; got 3",
        ),
    ],
)
def test_targets_that_do_not_fit_are_errors(loss, source, message):
    with pytest.raises(TargetError) as error:
        target(loss, [5, T], source=source)
    assert str(error.value) == message
    assert error.value.exit_code == 2


class TestProjection:
    def test_the_vector_is_a_unit_vector_for_each_trial(self):
        vectors = target(loss_of("projection"), [T], trials=50)
        assert vectors.shape == (50, OUTPUTS)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-15)
        assert np.array_equal(target(loss_of("projection"), EVERY, trials=2), vectors[:2])

    def test_its_direction_is_uniform(self):
        vectors = target(loss_of("projection"), [T], trials=4000)
        # On the unit sphere in n dimensions each component has mean 0 and variance 1/n.
        assert np.all(np.abs(vectors.mean(axis=0)) < 4 / np.sqrt(OUTPUTS * 4000))
        assert np.allclose(vectors.T @ vectors / 4000, np.eye(OUTPUTS) / OUTPUTS, atol=0.03)

    def test_a_given_vector_is_taken_as_it_is(self):
        vectors = target(loss_of("projection", vector=[3.0, 0.0, -4.0]), [T])
        assert np.array_equal(vectors, [[3, 0, -4]] * TRIALS)

    def test_a_vector_of_another_length_is_an_error(self):
        with pytest.raises(InitialiserError) as error:
            target(loss_of("projection", vector=[1.0, 2.0]), [T])
        assert str(error.value) == "expected a list of 3 numbers; got a list of 2 numbers"
