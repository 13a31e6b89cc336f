"""One run of the LSTM over many steps, its time and memory printed as JSON; `processes.run_long` starts it."""

from __future__ import annotations

import argparse
import json
import resource
import sys
from pathlib import Path
from time import perf_counter

from benchmarks.cases import Case
from gradcli.engine.run import Engine


def peak_bytes() -> int:
    """Return the peak of this process's resident memory."""
    try:
        # Of this program alone; getrusage counts from the process that started it.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """Build the problem, run it once for the norms at every distance, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seq-len", type=int, required=True)
    parser.add_argument("--segment", type=int)
    arguments = parser.parse_args()
    # A short run first: it loads what is loaded late, and the libraries' own buffers are then part of the start-up.
    Engine(Case("lstm", 1, 32, 10).problem()).run(parameters=False)
    start_up = peak_bytes()
    problem = Case("lstm", 1, 32, arguments.seq_len).problem()
    start = perf_counter()
    run = Engine(problem, segment=arguments.segment).run(parameters=False)
    figures = {
        "seconds": perf_counter() - start,
        "start_up_bytes": start_up,
        "peak_bytes": peak_bytes(),
        "curve_bytes": sum(norms.nbytes for norms in run.log2_norm.values()),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
