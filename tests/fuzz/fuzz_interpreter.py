"""Fuzz the compiled interpreter: python -m tests.fuzz.fuzz_interpreter --programs 100000 --seed 0

Every program is made of random calls on random views, four in ten with one thing changed into what is mostly not
allowed. tests/random_programs.py says what passes; anything else ends the run with status 1. A program depends on
--seed and its number alone: --only N runs that one.

Result on 2026-11-30, --programs 60000 with --seed 0 and with --seed 1:
    75,266 programs accepted and right, 32,523 refused, 12,211 runs over steps that there are not refused; no faults
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections import Counter

import numpy as np

from tests.random_programs import attempt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this program alone")
    options = parser.parse_args()
    outcomes: Counter[str] = Counter()
    for number in range(options.programs) if options.only is None else [options.only]:
        try:
            outcome = attempt(np.random.default_rng([options.seed, number]))
        except Exception:
            outcome = "fault"
            print(f"program {number}:\n{traceback.format_exc()}", file=sys.stderr)  # noqa: T201
        outcomes[outcome] += 1
        if number % 10_000 == 9_999:
            print(number + 1, dict(outcomes), flush=True)  # noqa: T201
    print(dict(outcomes))  # noqa: T201
    return int(outcomes["fault"] > 0)


if __name__ == "__main__":
    sys.exit(main())
