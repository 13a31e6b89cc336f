"""The engine against PyTorch, JAX and the unavoidable products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from benchmarks import reasons
from benchmarks.agreement import require_agreement
from benchmarks.cases import FRAMEWORK_CASES, QUICK_FRAMEWORK_CASES, Case, ours
from benchmarks.measurements.measurement import Measurement, Settings
from benchmarks.peers import peers_jax, peers_torch, products
from benchmarks.peers.peer import Peer, missing
from benchmarks.requirements import (
    Requirement,
    against_cell_loop,
    against_grad_of_all_h,
    against_products,
)
from benchmarks.rows import Missing, Preparation, Ratio, Row, in_milliseconds
from benchmarks.timing import alternate

_NORMS, _WITH_PARAMETERS = "norms", "norms and parameter gradients"


def measurements(settings: Settings) -> Iterator[Measurement]:
    """Yield for each case what parameter gradients cost, and each contestant."""
    for case in QUICK_FRAMEWORK_CASES if settings.quick else FRAMEWORK_CASES:
        label = f"frameworks {case.label} {case.dtype}"
        yield Measurement(f"{label} parameter gradients", partial(_parameter_gradients, settings, case))
        for name, norms_alone, requirement, reason in (
            (peers_torch.CELL_LOOP, True, against_cell_loop(case), reasons.against_cell_loop(case)),
            (peers_torch.CELL_LOOP, False, None, ""),
            (peers_torch.GRAD, True, against_grad_of_all_h(case), reasons.against_grad_of_all_h(case)),
            (peers_torch.FUSED, False, None, ""),
            (peers_jax.NAME, True, None, ""),
            (products.NAME, True, against_products(case), reasons.against_products(case)),
        ):
            work = _NORMS if norms_alone else _WITH_PARAMETERS
            measure = partial(_against, settings, case, name, norms_alone, settings.required(requirement), reason)
            yield Measurement(f"{label} {work} {name}", measure)


def _section(case: Case) -> str:
    return f"Against PyTorch, JAX and the matrix products alone, {case.dtype}"


def _parameter_gradients(settings: Settings, case: Case) -> Iterator[Row | Preparation]:
    engine = ours(case)
    yield Preparation(
        "gradcli: read the spec, draw the weights, compile the loops", _with_dtype(case), engine.build_seconds
    )
    times = alternate((engine.with_parameters, engine.norms_only), settings.effort)
    outcome = in_milliseconds(times, Ratio.SHARE)
    yield Row(_section(case), f"{case.label}: {_WITH_PARAMETERS}", "ours: norms", outcome)


def _against(
    settings: Settings, case: Case, name: str, norms_alone: bool, requirement: Requirement | None, reason: str
) -> Iterator[Row | Preparation]:
    what = f"{case.label}: {_NORMS if norms_alone else _WITH_PARAMETERS}"
    module, build = _BUILDERS[name]
    message = missing(module) if module else None
    if message is not None:
        yield Row(_section(case), what, name, Missing(message), requirement)
        return
    engine = ours(case)
    peer = build(case, settings)
    if peer.norms is not None and case.dtype == "float64":
        require_agreement(f"{name}, {case.label}", peer.norms(peer.run()), engine.norms())
    if peer.compile_seconds is not None:
        yield Preparation(name, _with_dtype(case), peer.compile_seconds)
    times = alternate((engine.norms_only if norms_alone else engine.with_parameters, peer.run), settings.effort)
    ratio = Ratio.SHARE if name == products.NAME else Ratio.TIMES_FASTER
    outcome = in_milliseconds(times, ratio)
    yield Row(_section(case), what, f"{name} (gives {peer.gives})", outcome, requirement, reason)


def _with_dtype(case: Case) -> str:
    return f"{case.label}, {case.dtype}"


def _torch(name: str, case: Case, settings: Settings) -> Peer:
    return peers_torch.torch_peer(name, case, ours(case).numbers, settings.threads)


def _jax(case: Case, settings: Settings) -> Peer:
    return peers_jax.jax_peer(case, ours(case).numbers)


def _products(case: Case, settings: Settings) -> Peer:
    return products.products_peer(case, ours(case).numbers)


#: By the contestant's name: the module that it needs, and what builds it.
_BUILDERS: dict[str, tuple[str | None, Callable[[Case, Settings], Peer]]] = {
    **{name: ("torch", partial(_torch, name)) for name in peers_torch.PEERS},
    peers_jax.NAME: ("jax", _jax),
    products.NAME: (None, _products),
}
