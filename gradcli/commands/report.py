"""`gradcli report`: one page with all that the commands say of a run, or of several side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, TypeVar, Unpack

from gradcli.commands.command import command
from gradcli.commands.options import CheckpointLayer, Clip, OneOrMoreTargets, ReadSpec, RunOptions
from gradcli.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from gradcli.diagnostics.gradient_matrix import GradientMatrix
    from gradcli.diagnostics.measure import Measured
    from gradcli.prepare.resources import Resources
    from gradcli.results.page import Page
    from gradcli.results.page_of_run import RunFindings
    from gradcli.results.result import Html
    from gradcli.spec.reader import LoadedSpec

Found = TypeVar("Found")

_ROWS_OF_MATRIX, _LONGEST_OF_MATRIX = 24, 1000


@command(
    "gradcli report lstm -T 200 -o lstm.html",
    "gradcli report lstm gru rnn -o compared.html",
    "gradcli report model.safetensors --layer encoder.rnn -o model.html",
    formats=(),
    document=True,
)
def report(
    specs: OneOrMoreTargets, *, clip: Clip = None, layer: CheckpointLayer = None, **options: Unpack[RunOptions]
) -> Html:
    """One page to read in a browser: verdict, pictures, causes, remedies, equations, the spec; or several side by side.

    Args:
        specs: as for `gradcli.simulate`; one, or several to be compared.
        clip, layer, options: as for `gradcli.simulate`; they apply to every spec.

    Raises:
        GradcliError: as for `gradcli.simulate`, and where matplotlib is not installed.
    """
    from gradcli.formats.drawing import require_matplotlib

    require_matplotlib()  # before what imports it
    from gradcli.commands.compare import require_one_from_standard_input
    from gradcli.commands.loading import load_all
    from gradcli.formats.page import render
    from gradcli.formats.page_svg import draw
    from gradcli.prepare.resources import Resources
    from gradcli.results.result import Html

    given = [specs] if isinstance(specs, str | PathLike | Mapping | ReadSpec) else specs
    require_one_from_standard_input(given)
    loaded = load_all(given, options, clip=clip, checkpoint_layer=layer)
    may = Resources.of(options)
    page = _of_one(loaded[0], may) if len(loaded) == 1 else _of_several(loaded, may)
    return Html("".join(render(page, draw)))


def _of_one(loaded: LoadedSpec, may: Resources) -> Page:
    from gradcli.diagnostics.measure import measure
    from gradcli.prepare.build import build
    from gradcli.results.page_of_run import run_page

    with may.computing_threads():
        network = build(loaded, max_memory=may.max_memory)
    with may.computing_threads(network.problem):
        measured = measure(network, progress=may.progress)
    return run_page(_findings(measured, may, whole=True))


def _of_several(loaded: Sequence[LoadedSpec], may: Resources) -> Page:
    from gradcli.commands.compare import side_by_side
    from gradcli.results.compare import comparison
    from gradcli.results.page_of_comparison import comparison_page

    measured, notes, weights = side_by_side(loaded, may)
    shown = comparison(measured, notes, weights).shown
    return comparison_page(shown, [_findings(run, may, whole=False) for run in measured])


def _findings(measured: Measured, may: Resources, *, whole: bool) -> RunFindings:
    """Put the questions of the other commands to the spec of a run.

    Args:
        whole: all of them; else those about causes and remedies alone.
    """
    from gradcli.commands.contributions import contributions_of
    from gradcli.commands.gates import gates_of
    from gradcli.commands.inspect import inspection_of
    from gradcli.commands.jacobian import jacobian_of
    from gradcli.commands.paths import paths_of
    from gradcli.diagnostics.remedies import find_remedies
    from gradcli.diagnostics.verdict import Verdict
    from gradcli.results.page_of_run import RunFindings

    loaded = measured.network.loaded
    asked = _Asked()
    with may.computing_threads(measured.network.problem):
        remedies = find_remedies(measured, max_memory=may.max_memory)
    gates = asked(lambda: gates_of(loaded, None, may))
    paths = asked(lambda: paths_of(loaded, None, may))
    if not whole:
        return RunFindings(measured, remedies, gates, paths, refused=asked.refused)
    _, jacobian = asked(lambda: jacobian_of(loaded, None, may)) or (None, None)
    weights = loaded.spec.weights
    return RunFindings(
        measured,
        remedies,
        gates,
        paths,
        None if isinstance(jacobian, Verdict) else jacobian,
        asked(lambda: contributions_of(loaded, None, may)),
        asked(lambda: _matrix_of(measured, may)),
        None if weights is None else asked(lambda: inspection_of(str(loaded.folder / weights.file), may)),
        asked.refused,
    )


class _Asked:
    """Asks for findings. What a network has no answer to, or what would take too much, the page says instead."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def __call__(self, question: Callable[[], Found]) -> Found | None:
        try:
            return question()
        except (UsageError, ResourceError) as error:
            self.refused.append(str(error))
            return None


def _matrix_of(measured: Measured, may: Resources) -> GradientMatrix:
    """Return the matrix of gradient norms, with as many rows as a page has room for.

    Raises:
        ResourceError: the sequences are long, and each row takes a run.
    """
    from gradcli.diagnostics.gradient_matrix import measure_gradient_matrix

    seq_len = measured.network.spec.seq_len
    if seq_len > _LONGEST_OF_MATRIX:
        raise ResourceError(
            "the picture of the gradient from every step to every step takes a run for each of its rows: a page has it"
            f" up to {_LONGEST_OF_MATRIX:,} steps, and here are {seq_len:,}"
        )
    with may.computing_threads(measured.network.problem):
        return measure_gradient_matrix(measured.network, most=_ROWS_OF_MATRIX, progress=may.progress)
