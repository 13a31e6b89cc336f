"""`gradcli simulate`: one cell, its gradient curve and the verdict on it."""

from __future__ import annotations

from gradcli.cli import options as opt
from gradcli.cli.delivery import Delivery
from gradcli.cli.interrupt import answering_interrupts
from gradcli.cli.progress import progress_bar

EXAMPLES = (
    "gradcli simulate lstm -T 200",
    "gradcli simulate rnn --set init.W_hh=orthogonal --clip step_norm=0.1",
    "gradcli simulate my.yaml -o run.json --fail-on vanishing,exploding",
)


def run(
    target: opt.Target,
    seq_len: opt.SeqLen = None,
    hidden_size: opt.HiddenSize = None,
    input_size: opt.InputSize = None,
    batch_size: opt.BatchSize = None,
    trials: opt.Trials = None,
    seed: opt.Seed = None,
    clip: opt.Clips = None,
    overrides: opt.Overrides = None,
    layer: opt.CheckpointLayer = None,
    format: opt.Format = None,  # noqa: A002
    output: opt.Output = None,
    save: opt.Save = None,
    fail_on: opt.FailOn = None,
    max_memory: opt.MaxMemory = None,
    threads: opt.Threads = None,
    full: opt.Full = False,
    quiet: opt.Quiet = False,
) -> None:
    """How far back the gradient reaches: forward, exact BPTT, the curve, a verdict, and what clipping would do."""
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
        from gradcli.session import run_simulation

        with progress_bar(quiet) as bar:
            result = run_simulation(
                target,
                options=options,
                overrides=overrides or [],
                checkpoint_layer=layer,
                record=save is not None,
                remedies=format != "csv",  # the rows of the curve have no place for them
                max_memory=max_memory,
                threads=threads,
                progress=bar,
                outputs=delivery.outputs,
            )
        delivery.hand_over(result)
