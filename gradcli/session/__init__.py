"""From a spec to a result: what the commands of the command line call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from gradcli.errors import UsageError
from gradcli.session.result import Result

if TYPE_CHECKING:
    from pathlib import Path

    from gradcli.engine.problem import Progress


def run_simulation(
    target: str,
    *,
    options: Mapping[str, object],
    overrides: Sequence[str],
    checkpoint_layer: str | None = None,
    record: bool,
    remedies: bool = True,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    outputs: Mapping[str, Path] = MappingProxyType({}),
) -> Result:
    """Run the spec that `target` names, and judge it.

    Args:
        target: a YAML file, "-" for standard input, the name of a built-in cell, or a checkpoint.
        options: command-line values of spec fields, which win over the file.
        overrides: ``PATH=VALUE`` of any spec field, likewise.
        checkpoint_layer: the recurrent layer, where trained weights are read from a checkpoint.
        record: whether the result will be saved.
        remedies: whether to run what might help a gradient that fades or grows.
        max_memory: bytes that the run may need; by default half of what is free.
        threads: for matrix products; by default as many as their size is worth.
        progress: called now and then while a run is under way.

    Raises:
        GradcliError: a bad spec, an unreadable file, or work beyond a limit.
    """
    from gradcli.session.loading import load
    from gradcli.session.simulate import simulate

    loaded = load(target, options=options, overrides=overrides, checkpoint_layer=checkpoint_layer, outputs=outputs)
    return simulate(loaded, record=record, remedies=remedies, max_memory=max_memory, threads=threads, progress=progress)


def run_comparison(
    targets: Sequence[str],
    *,
    options: Mapping[str, object],
    overrides: Sequence[str],
    checkpoint_layer: str | None = None,
    match: str | None,
    record: bool,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    outputs: Mapping[str, Path] = MappingProxyType({}),
) -> Result:
    """Run several specs, each as `run_simulation` would, and rank them.

    Args:
        targets: as for `run_simulation`.
        options, overrides, checkpoint_layer: apply to every spec, the last to those with trained weights.
        match: "params" chooses hidden sizes so that all have about as many parameters as the first.
        record, max_memory, threads, progress: as for `run_simulation`.

    Raises:
        GradcliError: as for `run_simulation`.
    """
    from gradcli.session.compare import compare
    from gradcli.session.loading import load_all
    from gradcli.spec.reader import STANDARD_INPUT

    if list(targets).count(STANDARD_INPUT) > 1:
        raise UsageError(f"standard input ({STANDARD_INPUT}) can be read once only; write the other specs to files")
    specs = load_all(targets, options=options, overrides=overrides, checkpoint_layer=checkpoint_layer, outputs=outputs)
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
    outputs: Mapping[str, Path] = MappingProxyType({}),
) -> Result:
    """Run the spec that `target` names, and look at the Jacobian of one of its layers.

    Args:
        target, options, overrides, max_memory, threads, progress: as for `run_simulation`.
        layer: its name or number, or a layer of the checkpoint; by default the top one.
        exponents: how many Lyapunov exponents; None for all.
        burn_in: steps at the start that the exponents do not count; by default a tenth of all.

    Raises:
        GradcliError: as for `run_simulation`, and for a layer that there is not.
    """
    from gradcli.session.jacobian import jacobian
    from gradcli.session.loading import load_for_layer

    loaded, layer = load_for_layer(target, options=options, overrides=overrides, layer=layer, outputs=outputs)
    return jacobian(
        loaded,
        layer=layer,
        exponents=exponents,
        burn_in=burn_in,
        max_memory=max_memory,
        threads=threads,
        progress=progress,
    )


def run_paths(
    target: str,
    *,
    distance: int,
    start: str | None,
    end: str | None,
    layer: str | None,
    options: Mapping[str, object],
    overrides: Sequence[str],
    formulas_only: bool = False,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    outputs: Mapping[str, Path] = MappingProxyType({}),
) -> Result:
    """Derive the routes of the gradient through a cell, and measure each.

    Args:
        target, options, overrides, max_memory, threads, progress: as for `run_simulation`.
        distance: how many steps back the routes lead.
        start: the state that they start from; the output unless given. end: that they lead to; all unless given.
        layer: its name or number, or a layer of the checkpoint; the top one unless given.
        formulas_only: derive, and measure nothing.

    Raises:
        GradcliError: as for `run_simulation`, and a state, layer or distance that there is not.
    """
    from gradcli.session.loading import load_for_layer
    from gradcli.session.paths import paths

    loaded, layer = load_for_layer(target, options=options, overrides=overrides, layer=layer, outputs=outputs)
    return paths(
        loaded,
        distance=distance,
        start=start,
        end=end,
        layer=layer,
        formulas_only=formulas_only,
        max_memory=max_memory,
        threads=threads,
        progress=progress,
    )


def run_contributions(
    target: str,
    *,
    options: Mapping[str, object],
    overrides: Sequence[str],
    layer: str | None = None,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    outputs: Mapping[str, Path] = MappingProxyType({}),
) -> Result:
    """Run the spec that `target` names, and take the gradient of a layer's parameters apart, step by step.

    Args:
        layer: its name or number, or a layer of the checkpoint; by default the top one.
        target, options, overrides, max_memory, threads, progress: as for `run_simulation`.

    Raises:
        GradcliError: as for `run_simulation`, and for a layer that there is not.
    """
    from gradcli.session.contributions import contributions
    from gradcli.session.loading import load_for_layer

    loaded, layer = load_for_layer(target, options=options, overrides=overrides, layer=layer, outputs=outputs)
    return contributions(loaded, layer=layer, max_memory=max_memory, threads=threads, progress=progress)


def run_gates(
    target: str,
    *,
    options: Mapping[str, object],
    overrides: Sequence[str],
    layer: str | None = None,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    outputs: Mapping[str, Path] = MappingProxyType({}),
) -> Result:
    """Run the spec that `target` names, and look at its gates and activations, and at what they do to the gradient.

    Args:
        layer: its name or number, or a layer of the checkpoint; by default the top one.
        target, options, overrides, max_memory, threads, progress: as for `run_simulation`.

    Raises:
        GradcliError: as for `run_simulation`, and for a layer that there is not.
    """
    from gradcli.session.gates import gates
    from gradcli.session.loading import load_for_layer

    loaded, layer = load_for_layer(target, options=options, overrides=overrides, layer=layer, outputs=outputs)
    return gates(loaded, layer=layer, max_memory=max_memory, threads=threads, progress=progress)


def run_inspection(
    target: str,
    *,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    outputs: Mapping[str, Path] = MappingProxyType({}),
) -> Result:
    """Find the recurrent layers of the checkpoint `target`, and what their weights say before anything runs.

    Args:
        target: a file.
        max_memory: bytes that reading a layer's recurrent matrices may need; by default half of what is free.
        threads, progress: as for `run_simulation`.

    Raises:
        GradcliError: a file that cannot be read or was refused, a missing package, or work beyond a limit.
    """
    from gradcli.session.inspect import inspection

    return inspection(target, max_memory=max_memory, threads=threads, progress=progress, outputs=outputs)


def run_layer_spec(
    target: str, layer: str, *, output: Path | None = None, outputs: Mapping[str, Path] = MappingProxyType({})
) -> str:
    """Return a commented YAML spec that runs a recurrent layer of the checkpoint `target`.

    Args:
        target: a file. layer: its name, as `run_inspection` gives it.
        output: the file that the spec will be written to, whose folder its paths start from; None for standard output.

    Raises:
        GradcliError: as for `run_inspection`, and for a layer that there is not.
    """
    from gradcli.session.inspect import spec_of_layer

    return spec_of_layer(target, layer, output=output, outputs=outputs)
