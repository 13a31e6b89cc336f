"""What people write in PyTorch in the place of `gradcli simulate lstm`: the same sizes, the same figures, a table.

Four draws of the weights, 16 sequences each, unless other sizes are asked for; half the squared error at the last step;
the norm of dL/dh_k joined with dL/dc_k at every distance, its median, the quantiles, and the norms of the parameter
gradients.
"""

import argparse
import sys
from importlib import import_module
from typing import Any

torch: Any = import_module("torch")  # so that the types can be checked where it is not installed

INPUT_SIZE = 32


def main() -> None:
    """Run all draws and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-T", "--seq-len", type=int, default=100)
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--trials", type=int, default=4)
    options = parser.parse_args()
    seq_len, hidden_size, batch_size = options.seq_len, options.hidden_size, options.batch_size
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    curves, parameters = [], []
    for trial in range(options.trials):
        torch.manual_seed(trial)
        cell = torch.nn.LSTMCell(INPUT_SIZE, hidden_size)
        x = torch.randn(seq_len, batch_size, INPUT_SIZE)
        target = torch.randn(batch_size, hidden_size)
        state = tuple(torch.zeros(batch_size, hidden_size, requires_grad=True) for _ in range(2))
        states = [state]
        for x_t in x:
            state = cell(x_t, state)
            for s in state:
                s.retain_grad()
            states.append(state)
        loss = 0.5 * (state[0] - target).square().sum()
        loss.backward()
        joined = torch.stack([torch.cat([s.grad for s in state], dim=1) for state in reversed(states)])
        curves.append(torch.linalg.vector_norm(joined, dim=2))
        parameters.append({name: p.grad.norm() / batch_size for name, p in cell.named_parameters()})
    norms = torch.cat(curves, dim=1).log10()
    low, median, high = norms.quantile(torch.tensor([0.1, 0.5, 0.9]), dim=1)
    lines = [f"{'distance':>9} {'log10 norm':>11} {'10-90 %':>17}"]
    for d in sorted({0, 1, 2, 5, 10, 20, 50, seq_len // 2, seq_len} & set(range(seq_len + 1))):
        lines.append(f"{d:9d} {median[d]:11.2f} {low[d]:8.2f} {high[d]:8.2f}")
    for name in parameters[0]:
        lines.append(f"{name:>12} {torch.stack([trial[name] for trial in parameters]).median():.3g}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
