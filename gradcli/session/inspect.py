"""`gradcli inspect`: what recurrent layers a checkpoint holds, and a spec for one of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from gradcli.diagnostics.weights import inspect_checkpoint, memory_needed
from gradcli.engine.problem import Progress
from gradcli.errors import UsageError
from gradcli.prepare.limits import memory_limit, require_memory_for
from gradcli.prepare.threads import blas_threads
from gradcli.results.inspect import inspect_report
from gradcli.session.result import Result
from gradcli.spec.files import Read, require_apart
from gradcli.spec.shown import printable
from gradcli.weights.checkpoint import Checkpoint
from gradcli.weights.choice import choose_layer
from gradcli.weights.formats import open_checkpoint
from gradcli.weights.layers import Contents
from gradcli.weights.layouts import find_layers
from gradcli.weights.starter import layer_spec


def inspection(
    target: str,
    *,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    outputs: Mapping[str, Path] = MappingProxyType({}),
) -> Result:
    """Report on a checkpoint; the arguments are those of `gradcli.session.run_inspection`."""
    with _opened(target, outputs) as (checkpoint, contents):
        for layer in contents.layers:
            require_memory_for(
                memory_needed(checkpoint, layer),
                f"reading the recurrent weights of {printable(layer.name)} in {target}",
                "the matrices",
                max_memory=max_memory,
            )
        with blas_threads(threads):
            found = inspect_checkpoint(
                checkpoint, contents, Path(target).stat().st_size, progress, largest=memory_limit(max_memory)
            )
    return Result(inspect_report(found), [])


def spec_of_layer(
    target: str, name: str, *, output: Path | None = None, outputs: Mapping[str, Path] = MappingProxyType({})
) -> str:
    """Return a spec for a layer of a checkpoint; the arguments are those of `gradcli.session.run_layer_spec`."""
    with _opened(target, outputs) as (checkpoint, contents):
        try:
            layer = choose_layer(checkpoint, contents, name)
        except UsageError as error:
            raise UsageError(f"--spec: {error}") from None
        return layer_spec(_seen_from(target, output), layer, contents)


@contextmanager
def _opened(target: str, outputs: Mapping[str, Path]) -> Iterator[tuple[Checkpoint, Contents]]:
    with open_checkpoint(Path(target), target) as checkpoint:
        files = (Path(target), *checkpoint.beside)
        require_apart(outputs, [Read(str(file), "the checkpoint", file) for file in files])
        yield checkpoint, find_layers(checkpoint)


def _seen_from(target: str, output: Path | None) -> str:
    """Return the checkpoint's path as the spec's folder sees it: that of `output`, else the one where we are."""
    if output is None or os.path.isabs(target):
        return target
    try:
        # Of a folder that is a link, ".." is above where it leads.
        return Path(os.path.relpath(os.path.abspath(target), os.path.realpath(output.parent))).as_posix()
    except ValueError:  # on another drive
        return os.path.abspath(target)
