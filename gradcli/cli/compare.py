"""`gradcli compare`: several cells side by side."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from gradcli.cli import options as opt
from gradcli.cli.delivery import Delivery
from gradcli.cli.interrupt import answering_interrupts
from gradcli.cli.progress import progress_bar

EXAMPLES = (
    "gradcli compare lstm gru rnn -T 100",
    "gradcli compare lstm rnn --match params --format markdown",
    "gradcli compare normalised.yaml raw.yaml",
)


class Match(StrEnum):
    """What may be made equal between the cells."""

    PARAMS = "params"


def run(
    targets: opt.Targets,
    seq_len: opt.SeqLen = None,
    hidden_size: opt.HiddenSize = None,
    input_size: opt.InputSize = None,
    batch_size: opt.BatchSize = None,
    trials: opt.Trials = None,
    seed: opt.Seed = None,
    clip: opt.Clips = None,
    overrides: opt.Overrides = None,
    layer: opt.CheckpointLayer = None,
    match: Annotated[
        Match | None,
        typer.Option(
            "--match",
            help="Choose each hidden size so that all cells have about as many parameters as the first.",
            show_default=False,
        ),
    ] = None,
    format: opt.Format = None,  # noqa: A002
    output: opt.Output = None,
    save: opt.Save = None,
    fail_on: opt.FailOn = None,
    max_memory: opt.MaxMemory = None,
    threads: opt.Threads = None,
    full: opt.Full = False,
    quiet: opt.Quiet = False,
) -> None:
    """The same for several cells side by side, with a summary and a ranking.

    A file is run on its own input and loss, as `simulate` runs it; a bare name on those of the first file.
    """
    delivery = Delivery(format, output, save, opt.verdict_kinds(fail_on), quiet, full)
    options = opt.given(
        seq_len=seq_len,
        hidden_size=hidden_size,
        input_size=input_size,
        batch_size=batch_size,
        trials=trials,
        seed=seed,
        clip=clip,
    )
    with answering_interrupts():
        from gradcli.session import run_comparison

        with progress_bar(quiet) as bar:
            result = run_comparison(
                targets,
                options=options,
                overrides=overrides or [],
                checkpoint_layer=layer,
                match=None if match is None else match.value,
                record=save is not None,
                max_memory=max_memory,
                threads=threads,
                progress=bar,
                outputs=delivery.outputs,
            )
        delivery.hand_over(result)
