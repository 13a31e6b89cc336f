"""Both engines against PyTorch, JAX and the unavoidable products, all in turn in one run for each case."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from benchmarks import reasons, requirements
from benchmarks.agreement import largest_difference, require_agreement
from benchmarks.cases import FRAMEWORK_CASES, QUICK_FRAMEWORK_CASES, Case, Ours, engines_on
from benchmarks.engines import COMPILED, NUMPY, TITLES, missing, there
from benchmarks.measurements.measurement import Measurement, Settings
from benchmarks.peers import peers_jax, peers_torch, products
from benchmarks.peers.peer import Array, Peer
from benchmarks.peers.peer import missing as missing_peer
from benchmarks.requirements import Requirement
from benchmarks.rows import Compared, Figure, Missing, Preparation, Ratio, Row, Values, in_milliseconds
from benchmarks.timing import alternate

_NORMS, _WITH_PARAMETERS = "norms", "norms and parameter gradients"
#: A row for each: the contestant, whether ours gives the norms alone, and its requirement and reason.
_AGAINST: tuple[tuple[str, bool, Callable[[Case], Requirement | None] | None, Callable[[Case], str] | None], ...] = (
    (peers_torch.CELL_LOOP, True, requirements.against_cell_loop, reasons.against_cell_loop),
    (peers_torch.CELL_LOOP, False, None, None),
    (peers_torch.GRAD, True, None, None),
    (peers_torch.FUSED, False, None, None),
    (peers_jax.NAME, True, requirements.against_jax, reasons.against_jax),
    (products.NAME, True, requirements.against_products, reasons.against_products),
)

#: The seconds of every round, by contestant: an engine with its work, or a peer's name.
_Times = Mapping[str | tuple[str, str], Values]


def measurements(settings: Settings) -> Iterator[Measurement]:
    """Yield each case with all its contestants."""
    for case in QUICK_FRAMEWORK_CASES if settings.quick else FRAMEWORK_CASES:
        names = " ".join(dict.fromkeys(name for name, *_ in _AGAINST))
        yield Measurement(f"frameworks {case.label} {case.dtype} {names}", partial(_case, settings, case))


def _section(case: Case) -> str:
    return f"Against PyTorch, JAX and the matrix products alone, {case.dtype}"


def _case(settings: Settings, case: Case) -> Iterator[Row | Preparation]:
    engines = engines_on(case)
    for name, one in engines.items():
        what = f"gradcli, {TITLES[name]} engine: read the spec, draw the weights, make the programs"
        yield Preparation(what, _with_dtype(case), one.build_seconds)
    norms = {name: one.norms() for name, one in engines.items()} if case.dtype == "float64" else {}
    peers: dict[str, Peer] = {}
    for name, (module, build) in _BUILDERS.items():
        if module is None or missing_peer(module) is None:
            peers[name] = peer = build(case, settings, next(iter(engines.values())))
            _require_agreement(case, peer, norms)
            if peer.compile_seconds is not None:
                yield Preparation(name, _with_dtype(case), peer.compile_seconds)
    contestants: dict[str | tuple[str, str], Callable[[], object]] = {}
    for name, one in engines.items():
        contestants |= {(name, _NORMS): one.norms_only, (name, _WITH_PARAMETERS): one.with_parameters}
    contestants |= {name: peer.run for name, peer in peers.items()}
    found = alternate(list(contestants.values()), settings.effort_of_many(case.dtype == "float64"))
    times = dict(zip(contestants, found, strict=True))
    yield from _of_ours(settings, case, engines, times)
    yield from _of_peers(settings, case, peers, times)


def _require_agreement(case: Case, peer: Peer, norms: Mapping[str, Mapping[str, Array]]) -> None:
    """Hold a peer's norms against those of each engine."""
    if peer.norms is None or not norms:
        return
    theirs = peer.norms(peer.run())
    for name, ours in norms.items():
        require_agreement(f"{peer.name}, {case.label}, {TITLES[name]} engine", theirs, ours)


def _of_ours(settings: Settings, case: Case, engines: Mapping[str, Ours], times: _Times) -> Iterator[Row]:
    """Yield the rows of the engines alone: that they agree, which is faster, and what parameter gradients cost."""
    row = partial(Row, _section(case))
    if case.dtype == "float64":
        yield agreement_row(settings, _section(case), case, engines)
    what = f"{case.label}: {_NORMS}"
    absent = missing()
    faster: Compared | Missing = (
        in_milliseconds({COMPILED: (times[COMPILED, _NORMS], times[NUMPY, _NORMS])}, Ratio.TIMES_FASTER)
        if absent is None
        else Missing(absent)
    )
    yield row(what, "the NumPy engine", faster)
    outcome = in_milliseconds(
        {name: (times[name, _WITH_PARAMETERS], times[name, _NORMS]) for name in engines}, Ratio.SHARE
    )
    requirement, reason = settings.required(requirements.parameter_gradients(case)), reasons.parameter_gradients(case)
    yield row(f"{case.label}: {_WITH_PARAMETERS}", "ours: norms", outcome, requirement, reason)


def agreement_row(settings: Settings, section: str, case: Case, engines: Mapping[str, Ours]) -> Row:
    """Return the row of what the compiled engine's norms differ by from the NumPy engine's."""
    reason = missing()
    if reason is None:
        compiled, numpy = (engines[name].log2_norms() for name in (COMPILED, NUMPY))
        outcome: Figure | Missing = Figure({COMPILED: [largest_difference(compiled, numpy)]}, "")
    else:
        outcome = Missing(reason)
    return Row(
        section,
        f"{case.label}: log10 norms, largest difference at any distance",
        "the NumPy engine",
        outcome,
        settings.required(requirements.AGREEMENT),
        reasons.AGREEMENT,
    )


def _of_peers(settings: Settings, case: Case, peers: Mapping[str, Peer], times: _Times) -> Iterator[Row]:
    """Yield the rows against each peer, or what is missing for it."""
    for name, norms_alone, bound, reason in _AGAINST:
        work = _NORMS if norms_alone else _WITH_PARAMETERS
        row = partial(Row, _section(case), f"{case.label}: {work}")
        requirement = settings.required(bound(case)) if bound else None
        module, _ = _BUILDERS[name]
        message = missing_peer(module) if module else None
        if message is not None:
            yield row(name, Missing(message), requirement)
            continue
        pairs = {engine: (times[engine, work], times[name]) for engine in there()}
        outcome = in_milliseconds(pairs, Ratio.SHARE if name == products.NAME else Ratio.TIMES_FASTER)
        against = f"{name} (gives {peers[name].gives})"
        yield row(against, outcome, requirement, reason(case) if reason else "")


def _with_dtype(case: Case) -> str:
    return f"{case.label}, {case.dtype}"


def _torch(name: str, case: Case, settings: Settings, one: Ours) -> Peer:
    return peers_torch.torch_peer(name, case, one.numbers, settings.threads)


def _jax(case: Case, settings: Settings, one: Ours) -> Peer:
    return peers_jax.jax_peer(case, one.numbers)


def _products(case: Case, settings: Settings, one: Ours) -> Peer:
    return products.products_peer(case, one.numbers)


#: By the contestant's name: the module that it needs, and what builds it.
_BUILDERS: dict[str, tuple[str | None, Callable[[Case, Settings, Ours], Peer]]] = {
    **{name: ("torch", partial(_torch, name)) for name in peers_torch.PEERS},
    peers_jax.NAME: ("jax", _jax),
    products.NAME: (None, _products),
}
