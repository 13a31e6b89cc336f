"""`gradcli gates`: how open and how steep the gates and activations are."""

from __future__ import annotations

from gradcli.cli import options as opt
from gradcli.cli.delivery import Delivery
from gradcli.cli.interrupt import answering_interrupts
from gradcli.cli.progress import progress_bar

EXAMPLES = (
    "gradcli gates lstm -T 100",
    "gradcli gates rnn --set init.W_hh=orthogonal",
    "gradcli gates gru --format json -o gates.json",
)


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
    format: opt.Format = None,  # noqa: A002
    output: opt.Output = None,
    full: opt.Full = False,
    max_memory: opt.MaxMemory = None,
    threads: opt.Threads = None,
    quiet: opt.Quiet = False,
) -> None:
    """How open and how steep gates and activations are, and what they and the weights do to the gradient."""
    delivery = Delivery(format, output, None, (), quiet, full)
    options = opt.given(
        seq_len=seq_len,
        hidden_size=hidden_size,
        input_size=input_size,
        batch_size=batch_size,
        trials=trials,
        seed=seed,
    )
    with answering_interrupts():
        from gradcli.session import run_gates

        with progress_bar(quiet) as bar:
            result = run_gates(
                target,
                options=options,
                overrides=overrides or [],
                layer=layer,
                max_memory=max_memory,
                threads=threads,
                progress=bar,
                outputs=delivery.outputs,
            )
        delivery.hand_over(result)
