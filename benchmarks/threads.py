"""The number of threads of every library, which most read from the environment once, when they are imported."""

from __future__ import annotations

import os

from gradcli.engine.threads import ALLOWED

#: The variables by which BLAS and OpenMP libraries are told.
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def limit_threads(count: int) -> None:
    """Let every numerical library and the engine use so many threads; call it before any of them is imported."""
    ALLOWED.set(count)
    for name in THREAD_VARIABLES:
        os.environ[name] = str(count)
    # XLA sizes its pools by NPROC, and has only on and off for the threads of its matrix products.
    os.environ["NPROC"] = str(count)
    flags = f"--xla_cpu_multi_thread_eigen={'true' if count > 1 else 'false'} intra_op_parallelism_threads={count}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
