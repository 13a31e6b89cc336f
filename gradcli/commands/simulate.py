"""`gradcli simulate`: one spec, its gradient curve and the verdict on it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Unpack

from gradcli.commands.command import command
from gradcli.commands.options import ByFormat, CheckpointLayer, Clip, RunOptions, Save, Target
from gradcli.commands.saving import saved

if TYPE_CHECKING:
    from gradcli.diagnostics.measure import Measured
    from gradcli.prepare.resources import Resources
    from gradcli.results.pictures import Gallery
    from gradcli.results.simulate import Simulation


@command(
    "gradcli simulate lstm -T 200",
    "gradcli simulate rnn --set init.W_hh=orthogonal --clip step_norm=0.1",
    "gradcli simulate my.yaml -o run.json --fail-on vanishing,exploding",
    judged=True,
    pictures=("curve", "states", "clip", "matrix"),
)
def simulate(
    spec: Target,
    *,
    clip: Clip = None,
    layer: CheckpointLayer = None,
    save: Save = None,
    record: bool = False,
    remedies: Annotated[bool, ByFormat(lambda name: name != "csv")] = True,  # its rows have no place for them
    **options: Unpack[RunOptions],
) -> Simulation:
    """How far back the gradient reaches: forward, exact BPTT, the curve, a verdict, and what clipping would do.

    Args:
        spec: a YAML file, "-" for standard input, the name of a built-in cell, a checkpoint, or a spec as a mapping.
        clip: methods of clipping with their thresholds: "norm=1", {"norm": 1}, or several of them.
        layer: the recurrent layer, where trained weights are read from a checkpoint.
        save: an .npz file for the arrays that redo the run elsewhere. record: keep them in the result, without a file.
        remedies: whether to run what might help a gradient that fades or grows.
        options: in place of the spec's values, and what the run may take; see `gradcli.commands.options`.

    Raises:
        GradcliError: a bad spec, an unreadable file, or work beyond a limit.
    """
    from gradcli.commands.loading import load
    from gradcli.diagnostics.measure import measure
    from gradcli.diagnostics.remedies import NO_REMEDIES, find_remedies
    from gradcli.prepare.build import build
    from gradcli.prepare.resources import Resources
    from gradcli.results.saved_arrays import saved_arrays
    from gradcli.results.simulate import simulation

    with saved(save) as keep:
        may = Resources.of(options)
        loaded = load(spec, options, clip=clip, checkpoint_layer=layer)
        with may.computing_threads():
            network = build(loaded, record=record or keep.wanted, max_memory=may.max_memory)
        with may.computing_threads(network.problem):
            measured = measure(network, record=record or keep.wanted, progress=may.progress)
            found = find_remedies(measured, max_memory=may.max_memory) if remedies else NO_REMEDIES
        result = simulation(measured, found, saved_arrays(measured))
        return keep.all_of(result.with_gallery(partial(_pictures, measured, may)))


def _pictures(measured: Measured, may: Resources) -> Gallery:
    from gradcli.diagnostics.gradient_matrix import GradientMatrix, measure_gradient_matrix
    from gradcli.results.pictures_of_run import pictures_of_run

    def matrix() -> GradientMatrix:
        with may.computing_threads(measured.network.problem):
            return measure_gradient_matrix(measured.network, progress=may.progress)

    return pictures_of_run(measured, matrix)
