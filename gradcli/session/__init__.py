"""From a spec to a result: what the commands of the command line call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gradcli.errors import UsageError
from gradcli.session.result import Result

if TYPE_CHECKING:
    from gradcli.engine.problem import Progress


def run_simulation(
    target: str,
    *,
    options: Mapping[str, object],
    overrides: Sequence[str],
    record: bool,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run the spec that `target` names, and judge it.

    Args:
        target: a YAML file, "-" for standard input, or the name of a built-in cell.
        options: command-line values of spec fields, which win over the file.
        overrides: ``PATH=VALUE`` of any spec field, likewise.
        record: whether the result will be saved.
        max_memory: bytes that the run may need; by default half of what is free.
        threads: for matrix products; by default as many as their size is worth.
        progress: called now and then while a run is under way.

    Raises:
        GradcliError: a bad spec, an unreadable file, or work beyond a limit.
    """
    from gradcli.network.build import parse
    from gradcli.session.simulate import simulate
    from gradcli.spec.reader import load_spec

    loaded = load_spec(target, options=options, overrides=overrides, examine_cell=parse)
    return simulate(loaded, record=record, max_memory=max_memory, threads=threads, progress=progress)


def run_comparison(
    targets: Sequence[str],
    *,
    options: Mapping[str, object],
    overrides: Sequence[str],
    match: str | None,
    record: bool,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run several specs on the same input, seed and loss, and rank them.

    Args:
        targets: as for `run_simulation`.
        options, overrides: apply to every spec.
        match: "params" chooses hidden sizes so that all have about as many parameters as the first.
        record, max_memory, threads, progress: as for `run_simulation`.

    Raises:
        GradcliError: as for `run_simulation`.
    """
    from gradcli.network.build import parse
    from gradcli.session.compare import compare
    from gradcli.spec.reader import STANDARD_INPUT, load_spec

    if list(targets).count(STANDARD_INPUT) > 1:
        raise UsageError(f"standard input ({STANDARD_INPUT}) can be read once only; write the other specs to files")
    specs = [load_spec(target, options=options, overrides=overrides, examine_cell=parse) for target in targets]
    return compare(specs, match=match, record=record, max_memory=max_memory, threads=threads, progress=progress)


def run_jacobian(
    target: str,
    *,
    options: Mapping[str, object],
    overrides: Sequence[str],
    layer: str | None = None,
    exponents: int | None = None,
    burn_in: int | None = None,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run the spec that `target` names, and look at the Jacobian of one of its layers.

    Args:
        target, options, overrides, max_memory, threads, progress: as for `run_simulation`.
        layer: its name or number; by default the top one.
        exponents: how many Lyapunov exponents; None for all.
        burn_in: steps at the start that the exponents do not count; by default a tenth of all.

    Raises:
        GradcliError: as for `run_simulation`, and for a layer that there is not.
    """
    from gradcli.network.build import parse
    from gradcli.session.jacobian import jacobian
    from gradcli.spec.reader import load_spec

    loaded = load_spec(target, options=options, overrides=overrides, examine_cell=parse)
    return jacobian(
        loaded,
        layer=layer,
        exponents=exponents,
        burn_in=burn_in,
        max_memory=max_memory,
        threads=threads,
        progress=progress,
    )
