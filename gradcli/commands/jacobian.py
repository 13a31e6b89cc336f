"""`gradcli jacobian`: the Jacobian of one layer over many steps, its Lyapunov exponents, and what its weights prove."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Unpack

from gradcli.commands.command import command
from gradcli.commands.options import Layer, Option, RunOptions, Target
from gradcli.errors import ResourceError, UsageError
from gradcli.spec import defaults

if TYPE_CHECKING:
    from gradcli.diagnostics.layer_jacobian import JacobianFindings
    from gradcli.diagnostics.verdict import Verdict
    from gradcli.engine.step.plan import LayerPlan
    from gradcli.prepare.build import Network
    from gradcli.prepare.resources import Resources
    from gradcli.results.jacobian import JacobianOfLayer
    from gradcli.results.pictures import Gallery
    from gradcli.spec.models import Spec
    from gradcli.spec.reader import LoadedSpec

ALL = "all"
#: Matrices of N x N float64 alive at once for each trial: the product, its peak, a step's result, and those of a SVD.
_MATRICES = 6
#: Entries of the joint state of coupled sequences.
_LARGEST_COUPLED = 512
#: Entries of a state with matrices in it, which has them soon: up to here it is a matter of a minute.
_LARGEST_OF_MATRICES = 1100
_PICTURES = ("curve", "lyapunov")


def _count(text: str) -> str:
    if text != ALL and not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise UsageError(f"--exponents: expected a whole number from 1 on, or {ALL}; got {text!r}")
    return text


@command(
    "gradcli jacobian lstm -T 200",
    "gradcli jacobian rnn --set init.W_hh=orthogonal",
    "gradcli jacobian my.yaml --exponents all -o spectrum.json",
    judged=True,
    pictures=_PICTURES,
)
def jacobian(
    spec: Target,
    *,
    layer: Layer = None,
    exponents: Annotated[
        int | str,
        Option(metavar=f"K|{ALL}", help="How many Lyapunov exponents: the leading K, or all.", typed=str, read=_count),
    ] = defaults.LYAPUNOV_EXPONENTS,
    burn_in: Annotated[
        int | None,
        Option(
            metavar="N", help="Steps at the start that the exponents do not count.", default="a tenth of all", least=0
        ),
    ] = None,
    **options: Unpack[RunOptions],
) -> JacobianOfLayer:
    """Which directions survive: singular values of dS[T]/dS[T-d], Lyapunov exponents, and what the weights prove.

    Args:
        spec, options: as for `gradcli.simulate`.
        layer: its name or number, or a layer of the checkpoint; by default the top one.
        exponents: how many Lyapunov exponents, or "all".
        burn_in: steps at the start that the exponents do not count; by default a tenth of all.

    Raises:
        GradcliError: as for `gradcli.simulate`, and for a layer that there is not.
    """
    from gradcli.commands.layers import choose_layer
    from gradcli.commands.loading import load_for_layer
    from gradcli.diagnostics.verdict import Verdict
    from gradcli.prepare.resources import Resources
    from gradcli.results.jacobian_report import jacobian_not_finite, jacobian_of_layer

    count = None if _count(str(exponents)) == ALL else int(exponents)
    loaded, layer = load_for_layer(spec, options, layer=layer)
    network, found = jacobian_of(loaded, layer, Resources.of(options), exponents=count, burn_in=burn_in)
    result = (
        jacobian_not_finite(network, choose_layer(network, layer), found)
        if isinstance(found, Verdict)
        else jacobian_of_layer(found)
    )
    return result.with_gallery(partial(_pictures, network, found))


def jacobian_of(
    loaded: LoadedSpec,
    layer: str | None,
    may: Resources,
    *,
    exponents: int | None = defaults.LYAPUNOV_EXPONENTS,
    burn_in: int | None = None,
) -> tuple[Network, JacobianFindings | Verdict]:
    """Return what `jacobian` finds of a spec, with the network; raises as it does. exponents: None for all."""
    from gradcli.commands.layers import choose_layer
    from gradcli.diagnostics.layer_jacobian import measure_jacobian
    from gradcli.prepare.build import build
    from gradcli.prepare.limits import Beside
    from gradcli.results.curves import shown_distances

    with may.computing_threads():
        beside = Beside(partial(_matrix_bytes, layer=layer), "the products of Jacobians")
        network = build(loaded, max_memory=may.max_memory, beside=beside)
        index = choose_layer(network, layer)
        found = measure_jacobian(
            network,
            index,
            shown_distances(network.spec.seq_len),
            exponents=exponents,
            burn_in=burn_in,
            progress=may.progress,
        )
    return network, found


def _pictures(network: Network, found: JacobianFindings | Verdict) -> Gallery:
    from gradcli.diagnostics.verdict import Verdict
    from gradcli.results.pictures_of_jacobian import pictures_of_jacobian
    from gradcli.results.pictures_of_run import pictures_without_curve

    if isinstance(found, Verdict):
        return pictures_without_curve(_PICTURES, network, found)
    return pictures_of_jacobian(found)


def _matrix_bytes(spec: Spec, plans: Sequence[LayerPlan], *, layer: str | None) -> int:
    """Return the bytes of the matrices that are there at once.

    Raises:
        ResourceError: their singular values would take too long.
    """
    from gradcli.commands.layers import index_of_layer
    from gradcli.engine.linearised import full_state_size

    plan = plans[index_of_layer(spec, layer)]
    size = full_state_size(plan, spec.batch_size)
    if plan.couples_sequences and size > _LARGEST_COUPLED:
        raise ResourceError(
            f"batch_norm couples the {spec.batch_size} sequences of a batch: their joint Jacobian has {size} x {size}"
            " entries, and its singular values would take many minutes. Make batch_size"
            f" ({spec.batch_size}) or hidden_size ({spec.hidden_size}) smaller, until their product with the number of"
            f" states is at most {_LARGEST_COUPLED}"
        )
    matrices = [name for name, shape in plan.cell.shapes.of_states.items() if len(shape) > 1]
    if matrices and size > _LARGEST_OF_MATRICES:
        rows, columns = plan.cell.shapes.of_states[matrices[0]]
        raise ResourceError(
            f"{matrices[0]} is a matrix of {rows} x {columns}: the Jacobian of the state has {size} x {size} entries,"
            f" and its singular values would take many minutes. Make hidden_size ({spec.hidden_size}) smaller, until"
            f" the state has at most {_LARGEST_OF_MATRICES} numbers; gradcli gates and gradcli paths need no Jacobian"
        )
    return 8 * spec.trials * _MATRICES * size**2
