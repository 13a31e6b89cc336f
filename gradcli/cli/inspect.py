"""`gradcli inspect`: what recurrent layers a checkpoint holds, and a spec for one of them."""

from __future__ import annotations

from typing import Annotated

import typer

from gradcli.cli import options as opt
from gradcli.cli.delivery import Delivery
from gradcli.cli.interrupt import answering_interrupts
from gradcli.cli.output import emit_text
from gradcli.cli.progress import progress_bar
from gradcli.errors import UsageError

EXAMPLES = (
    "gradcli inspect model.safetensors",
    "gradcli inspect model.safetensors --spec encoder.rnn -o my.yaml",
    "gradcli inspect model.keras -o layers.json",
)

File = Annotated[
    str,
    typer.Argument(metavar="FILE", help="A checkpoint, such as a .safetensors, .pt, .npz, .onnx, .keras or .h5 file."),
]
SpecOfLayer = Annotated[
    str | None,
    typer.Option(
        "--spec",
        metavar="LAYER",
        help="In place of the report, a commented spec with this layer's weights.",
        show_default=False,
        rich_help_panel="What comes out",
    ),
]


def run(
    file: File,
    spec: SpecOfLayer = None,
    format: opt.Format = None,  # noqa: A002
    output: opt.Output = None,
    max_memory: opt.MaxMemory = None,
    threads: opt.Threads = None,
    quiet: opt.Quiet = False,
) -> None:
    """The recurrent layers of a checkpoint: their cells and sizes, what the weights say, and a spec for one of them."""
    if spec is not None and format is not None:
        raise UsageError(f"--spec writes YAML; leave --format {format} out")
    delivery = Delivery(format, output, None, (), quiet)
    with answering_interrupts():
        from gradcli.session import run_inspection, run_layer_spec

        if spec is not None:
            emit_text([run_layer_spec(file, spec, output=output, outputs=delivery.outputs)], output, quiet=quiet)
            return
        with progress_bar(quiet) as bar:
            result = run_inspection(
                file, max_memory=max_memory, threads=threads, progress=bar, outputs=delivery.outputs
            )
        delivery.hand_over(result)
