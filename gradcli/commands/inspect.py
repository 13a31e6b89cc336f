"""`gradcli inspect`: what recurrent layers a checkpoint holds, and a spec for one of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Unpack, overload

from gradcli.commands.command import command
from gradcli.commands.completions import checkpoint_layers
from gradcli.commands.options import OUTPUT, Argument, Option, Resources
from gradcli.errors import UsageError
from gradcli.output_files import require_unwritten, written

if TYPE_CHECKING:
    from gradcli.diagnostics.weights import Inspection
    from gradcli.prepare.resources import Resources as May
    from gradcli.results.inspect import CheckpointContents
    from gradcli.results.result import Text
    from gradcli.weights.checkpoint import Checkpoint
    from gradcli.weights.layers import Contents

File = Annotated[
    str | PathLike[str],
    Argument(
        metavar="FILE", help="A checkpoint, such as a .safetensors, .pt, .npz, .onnx, .keras or .h5 file.", typed=str
    ),
]
SpecOfLayer = Annotated[
    str | None,
    Option(
        metavar="LAYER",
        help="In place of the report, a commented spec with this layer's weights.",
        panel=OUTPUT,
        complete_for=checkpoint_layers,
    ),
]


@overload
def inspect(file: File, *, spec: None = None, **options: Unpack[Resources]) -> CheckpointContents: ...


@overload
def inspect(file: File, *, spec: str, **options: Unpack[Resources]) -> Text: ...


@command(
    "gradcli inspect model.safetensors",
    "gradcli inspect model.safetensors --spec encoder.rnn -o my.yaml",
    "gradcli inspect model.keras -o layers.json",
    shared=Resources,
)
def inspect(file: File, *, spec: SpecOfLayer = None, **options: Unpack[Resources]) -> CheckpointContents | Text:
    """The recurrent layers of a checkpoint: their cells and sizes, what the weights say, and a spec for one of them.

    Args:
        file: the checkpoint.
        spec: a layer; what comes back is then a commented YAML spec that runs it.
        options: `max_memory` is for reading a layer's recurrent matrices.

    Raises:
        GradcliError: a file that cannot be read or was refused, a missing package, work beyond a limit, or a layer
            that there is not.
    """
    from gradcli.prepare.resources import Resources as May
    from gradcli.results.inspect_report import contents_of
    from gradcli.results.result import Text

    target = os.fspath(file)
    if spec is not None:
        with _opened(target) as (checkpoint, contents):
            return Text(_spec_of_layer(target, checkpoint, contents, spec))
    found = inspection_of(target, May.of(options))
    return contents_of(found)


def inspection_of(target: str, may: May) -> Inspection:
    """Return what `inspect` finds of a checkpoint; raises as it does."""
    from gradcli.diagnostics.weights import inspect_checkpoint, memory_needed
    from gradcli.prepare.limits import memory_limit, require_memory_for
    from gradcli.spec.shown import printable

    with _opened(target) as (checkpoint, contents):
        for layer in contents.layers:
            require_memory_for(
                memory_needed(checkpoint, layer),
                f"reading the recurrent weights of {printable(layer.name)} in {target}",
                "the matrices",
                max_memory=may.max_memory,
            )
        with may.computing_threads():
            return inspect_checkpoint(
                checkpoint, contents, Path(target).stat().st_size, may.progress, largest=memory_limit(may.max_memory)
            )


def _spec_of_layer(target: str, checkpoint: Checkpoint, contents: Contents, name: str) -> str:
    """Return a commented spec for a layer of a checkpoint; its paths start from the folder where it is written."""
    from gradcli.weights.choice import choose_layer
    from gradcli.weights.starter import layer_spec

    try:
        layer = choose_layer(checkpoint, contents, name)
    except UsageError as error:
        raise UsageError(f"--spec: {error}") from None
    return layer_spec(_seen_from(target, written("-o")), layer, contents)


@contextmanager
def _opened(target: str) -> Iterator[tuple[Checkpoint, Contents]]:
    from gradcli.spec.files import Read
    from gradcli.weights.formats import open_checkpoint
    from gradcli.weights.layouts import find_layers

    with open_checkpoint(Path(target), target) as checkpoint:
        files = (Path(target), *checkpoint.beside)
        require_unwritten([Read(str(file), "the checkpoint", file) for file in files])
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
