"""`gradcli paths`: which routes through the cell the gradient takes, as formulas and in numbers."""

from __future__ import annotations

from typing import Annotated

import typer

from gradcli.cli import options as opt
from gradcli.cli.delivery import Delivery
from gradcli.cli.interrupt import answering_interrupts
from gradcli.cli.progress import progress_bar
from gradcli.formats import FORMULA_FORMATS

EXAMPLES = (
    "gradcli paths lstm",
    "gradcli paths lstm -T 3 --distance 2",
    "gradcli paths gru --to h --distance 50",
    "gradcli paths my.yaml --format latex",
)
_ROUTES = "What to look at"

Distance = Annotated[
    int,
    typer.Option(
        "--distance",
        metavar="D",
        help="Steps from the loss back to where the routes end.",
        min=1,
        rich_help_panel=_ROUTES,
    ),
]
Start = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="STATE",
        help="The state at the last step that the routes start from.",
        show_default="the output",
        rich_help_panel=_ROUTES,
    ),
]
End = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="STATE",
        help="The state that the routes lead back to.",
        show_default="all states",
        rich_help_panel=_ROUTES,
    ),
]


def run(
    target: opt.Target,
    distance: Distance = 1,
    start: Start = None,
    end: End = None,
    seq_len: opt.SeqLen = None,
    hidden_size: opt.HiddenSize = None,
    input_size: opt.InputSize = None,
    batch_size: opt.BatchSize = None,
    trials: opt.Trials = None,
    seed: opt.Seed = None,
    layer: opt.Layer = None,
    overrides: opt.Overrides = None,
    format: opt.FormulaFormat = None,  # noqa: A002
    output: opt.Output = None,
    full: opt.Full = False,
    max_memory: opt.MaxMemory = None,
    threads: opt.Threads = None,
    quiet: opt.Quiet = False,
) -> None:
    """Which routes through the cell the gradient takes: one step's Jacobian as formulas, and each route's share."""
    delivery = Delivery(format, output, None, (), quiet, full, formulas=True)
    options = opt.given(
        seq_len=seq_len,
        hidden_size=hidden_size,
        input_size=input_size,
        batch_size=batch_size,
        trials=trials,
        seed=seed,
    )
    with answering_interrupts():
        from gradcli.session import run_paths

        with progress_bar(quiet) as bar:
            result = run_paths(
                target,
                distance=distance,
                start=start,
                end=end,
                layer=layer,
                options=options,
                overrides=overrides or [],
                formulas_only=delivery.chosen_format in FORMULA_FORMATS,
                max_memory=max_memory,
                threads=threads,
                progress=bar,
                outputs=delivery.outputs,
            )
        delivery.hand_over(result)
