"""`gradcli compare`: several specs side by side, each as `simulate` runs it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, Unpack

from gradcli.commands.command import command
from gradcli.commands.options import SPEC, CheckpointLayer, Clip, Option, RunOptions, Save, SpecLike, Targets
from gradcli.commands.saving import saved
from gradcli.errors import UsageError

if TYPE_CHECKING:
    from gradcli.diagnostics.measure import Measured
    from gradcli.diagnostics.training import WeightsOfRun
    from gradcli.prepare.resources import Resources
    from gradcli.results.compare import Comparison
    from gradcli.results.pictures import Gallery
    from gradcli.spec.reader import LoadedSpec


@command(
    "gradcli compare lstm gru rnn -T 100",
    "gradcli compare lstm rnn --match params --format markdown",
    "gradcli compare normalised.yaml raw.yaml",
    judged=True,
    pictures=("curve",),
)
def compare(
    specs: Targets,
    *,
    clip: Clip = None,
    layer: CheckpointLayer = None,
    match: Annotated[
        Literal["params"] | None,
        Option(
            help="Choose each hidden size so that all cells have about as many parameters as the first.", panel=SPEC
        ),
    ] = None,
    save: Save = None,
    record: bool = False,
    **options: Unpack[RunOptions],
) -> Comparison:
    """The same for several cells side by side, with a summary and a ranking.

    A file is run on its own input and loss, as `simulate` runs it; a bare name on those of the first file.

    Args:
        specs: as for `gradcli.simulate`, two at least.
        clip, save, record, options: as for `gradcli.simulate`; they apply to every spec.
        layer: the recurrent layer of those with trained weights.
        match: "params" chooses hidden sizes so that all have about as many parameters as the first.

    Raises:
        GradcliError: as for `gradcli.simulate`.
    """
    from gradcli.commands.loading import load_all
    from gradcli.prepare.resources import Resources
    from gradcli.results.compare import comparison
    from gradcli.results.saved_arrays import saved_arrays

    require_one_from_standard_input(specs)
    with saved(save) as keep:
        loaded = load_all(specs, options, clip=clip, checkpoint_layer=layer)
        measured, notes, weights = side_by_side(
            loaded, Resources.of(options), match=match, record=record or keep.wanted
        )
        arrays = {f"{arm.label}/{name}": array for arm in measured for name, array in saved_arrays(arm).items()}
        result = comparison(measured, notes, weights, arrays)
        return keep.all_of(result.with_gallery(partial(_pictures, measured)))


def require_one_from_standard_input(specs: Sequence[SpecLike]) -> None:
    """Check that standard input is read once at most.

    Raises:
        UsageError: several specs are to come from there.
    """
    from gradcli.spec.reader import STANDARD_INPUT

    if [spec for spec in specs if isinstance(spec, str)].count(STANDARD_INPUT) > 1:
        raise UsageError(f"standard input ({STANDARD_INPUT}) can be read once only; write the other specs to files")


def side_by_side(
    loaded: Sequence[LoadedSpec], may: Resources, *, match: str | None = None, record: bool = False
) -> tuple[list[Measured], list[str], Sequence[WeightsOfRun]]:
    """Return the runs of `compare`, what was made equal or borrowed, and what trained weights are like."""
    from gradcli.diagnostics.side_by_side import measure_all
    from gradcli.diagnostics.training import compare_weights
    from gradcli.prepare.arms import arms_of, build_all, notes_by_arm

    arms = arms_of(loaded, match=match, max_memory=may.max_memory)
    with may.computing_threads():
        networks = build_all(arms, record=record, max_memory=may.max_memory)
    measured = measure_all(networks, record=record, may=may)
    with may.computing_threads():
        weights = compare_weights(measured, max_memory=may.max_memory)
    return measured, [*arms.notes, *notes_by_arm(networks)], weights


def _pictures(measured: Sequence[Measured]) -> Gallery:
    from gradcli.results.pictures_of_run import pictures_of_comparison

    return pictures_of_comparison(measured)
