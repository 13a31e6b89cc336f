"""Some random programs; many more are tried by hand: see tests/fuzz/fuzz_interpreter.py."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from compiled_programs import NEEDED
from random_programs import attempt

pytestmark = NEEDED


@pytest.mark.parametrize("part", range(4))
def test_random_programs_are_refused_or_right(part: int) -> None:
    outcomes = Counter(attempt(np.random.default_rng([1, part, number])) for number in range(400))
    assert outcomes["accepted"] > 180
    assert outcomes["refused"] > 50
