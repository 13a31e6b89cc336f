"""`gradcli jacobian`: which directions of the state survive, and what the weights alone prove."""

from __future__ import annotations

from typing import Annotated

import typer

from gradcli.cli import options as opt
from gradcli.cli.delivery import Delivery
from gradcli.cli.interrupt import answering_interrupts
from gradcli.cli.progress import progress_bar
from gradcli.errors import UsageError

EXAMPLES = (
    "gradcli jacobian lstm -T 200",
    "gradcli jacobian rnn --set init.W_hh=orthogonal",
    "gradcli jacobian my.yaml --exponents all -o spectrum.json",
)

_ALL = "all"


def _count(text: str) -> str:
    if text != _ALL and not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise UsageError(f"--exponents: expected a whole number from 1 on, or {_ALL}; got {text!r}")
    return text


def run(
    target: opt.Target,
    seq_len: opt.SeqLen = None,
    hidden_size: opt.HiddenSize = None,
    input_size: opt.InputSize = None,
    batch_size: opt.BatchSize = None,
    trials: opt.Trials = None,
    seed: opt.Seed = None,
    overrides: opt.Overrides = None,
    layer: opt.Layer = None,
    exponents: Annotated[
        str,
        typer.Option(
            "--exponents",
            metavar="K|all",
            help="How many Lyapunov exponents: the leading K, or all.",
            callback=_count,
            rich_help_panel="What to look at",
        ),
    ] = "8",
    burn_in: Annotated[
        int | None,
        typer.Option(
            "--burn-in",
            metavar="N",
            help="Steps at the start that the exponents do not count.",
            min=0,
            show_default="a tenth of all",
            rich_help_panel="What to look at",
        ),
    ] = None,
    format: opt.Format = None,  # noqa: A002
    output: opt.Output = None,
    full: opt.Full = False,
    fail_on: opt.FailOn = None,
    max_memory: opt.MaxMemory = None,
    threads: opt.Threads = None,
    quiet: opt.Quiet = False,
) -> None:
    """Which directions survive: singular values of dS[T]/dS[T-d], Lyapunov exponents, and what the weights prove."""
    delivery = Delivery(format, output, None, opt.verdict_kinds(fail_on), quiet, full)
    options = opt.given(
        seq_len=seq_len,
        hidden_size=hidden_size,
        input_size=input_size,
        batch_size=batch_size,
        trials=trials,
        seed=seed,
    )
    with answering_interrupts():
        from gradcli.session import run_jacobian

        with progress_bar(quiet) as bar:
            result = run_jacobian(
                target,
                options=options,
                overrides=overrides or [],
                layer=layer,
                exponents=None if exponents == _ALL else int(exponents),
                burn_in=burn_in,
                max_memory=max_memory,
                threads=threads,
                progress=bar,
                outputs=delivery.outputs,
            )
        delivery.hand_over(result)
