"""`gradcli contributions`: which steps a parameter's gradient comes from."""

from __future__ import annotations

from gradcli.cli import options as opt
from gradcli.cli.delivery import Delivery
from gradcli.cli.interrupt import answering_interrupts
from gradcli.cli.progress import progress_bar

EXAMPLES = (
    "gradcli contributions rnn -T 50",
    "gradcli contributions examples/configs/notes-three-steps.yaml",
    "gradcli contributions lstm --set init.b_f=3 -o terms.csv",
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
    """Which steps a parameter's gradient comes from, and what truncated BPTT would leave of it."""
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
        from gradcli.session import run_contributions

        with progress_bar(quiet) as bar:
            result = run_contributions(
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
