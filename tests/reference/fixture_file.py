"""The files of tests/fixtures: one run of one trial each with its spec, read without PyTorch.

An .npz entry costs some 250 bytes beside its numbers, as much as the small arrays themselves; so all arrays of a run
are one array `values` here, and `about` says as JSON what is in it: the spec, and a list of [name, dtype, shape].
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent.parent / "fixtures"


def write_fixture(path: Path, spec: Mapping[str, Any], run: Mapping[str, NDArray[Any]]) -> None:
    """Write a spec and the arrays of its run."""
    layout = [[name, str(values.dtype), values.shape] for name, values in run.items()]
    about = json.dumps({"spec": spec, "layout": layout}).encode()
    values = np.concatenate([np.ravel(values).astype(np.float64) for values in run.values()])
    np.savez_compressed(path, about=np.frombuffer(about, dtype=np.uint8), values=values)


def read_fixture(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the spec, and its run in the layout that ``gradcli simulate --save`` writes, all binary exponents 0."""
    with np.load(path) as stored:
        about, values = json.loads(stored["about"].tobytes()), stored["values"]
    run, start = {}, 0
    for name, dtype, shape in about["layout"]:
        stop = start + math.prod(shape)
        run[name] = values[start:stop].reshape(shape).astype(dtype)
        start = stop
    for name in [name for name in run if name.startswith("grad_")]:
        of_state = name.startswith("grad_state.")
        run[name.replace("grad_", "log2_", 1)] = np.zeros(run[name].shape[: 3 if of_state else 1], dtype=np.int64)
    return about["spec"], run
