"""Why a requirement may not hold, printed where it does not; its row's profile shows where the time goes.

There is one for each name in `benchmarks.requirements`: a text, or a function that gives it for a case.
"""

from __future__ import annotations

from benchmarks.cases import Case

NONE_KNOWN = "No reason is known: a defect, or a disturbed measurement."

#: A run so short that what is done once for each run counts.
_FEW_STEPS = 200
_FIXED_COST = (
    "Every run has a fixed cost (exponents, norms, buffers brought in place: most of 'rest' in the profile) that so "
    "few small steps do not hide. The same cell at 1,000 steps is the measure of the loop itself."
)
_NEAR_THE_BOUND = (
    "The figure is near the bound, and moves across it from run to run on a shared machine. Most of the time is in "
    "calls on a few hundred numbers each, of which there are as many as the equations need."
)
_OTHER_KERNELS = (
    "PyTorch multiplies with MKL, NumPy with OpenBLAS. The products alone, as NumPy makes them, already take a large "
    "part of PyTorch's whole time: see the row against the unavoidable products of the same case."
)
_ELEMENTWISE = (
    "Besides its products, a step of the LSTM moves dozens of arrays of hidden size x batch through the second-level "
    "cache. A loop written by hand takes as long: see the hand-written loops of the LSTM at batch 32."
)
_FEW_PRODUCTS = {
    "indrnn": "The cell has no product, and a step is four calls: what is done for each block of steps (norms, "
    "exponents, copies to the tape) shows.",
    "rnn-lags": "A step has little besides its products: what is done for each block of steps (norms, exponents, "
    "copies to the tape) shows.",
}

DRAWS_AT_ONCE = (
    "Single runs became faster more than many at once did. The draws multiply one matrix with one vector each, by a "
    "batched product for which NumPy has no faster form; the profile shows its share."
)
COMMAND_TIME = (
    "Imports take a large part: numpy, the standard library, and gradcli's own modules. The profile shows each, and "
    "what is left for the command."
)
COMMAND_MEMORY = (
    "Python with numpy and gradcli's own modules loaded takes about 40 MiB, two thirds of what is asked, before the "
    "run begins."
)
USERS_FILE = NONE_KNOWN  # both run the same compiled calls
JACOBIANS = NONE_KNOWN
LONG_RUN_MEMORY_MIB = NONE_KNOWN
LONG_RUN_TIME = NONE_KNOWN
LINEARITY = (
    "A short tape is kept whole; where a long one would be, the forward pass is computed again, in stretches side by "
    "side, and what is drawn is drawn again. That costs little beside what every length needs, but not nothing."
)
LINEARITY_IN_SEGMENTS = NONE_KNOWN  # the same work a step at every length


def against_cell_loop(case: Case) -> str:
    """Return the reason for the row against PyTorch's cell loop with retain_grad."""
    if case.batch_size >= 32:
        return _OTHER_KERNELS
    return _FIXED_COST if _is_short(case) else _NEAR_THE_BOUND


def against_grad_of_all_h(case: Case) -> str:
    """Return the reason for the row against `torch.autograd.grad(loss, hs)`."""
    return _of_one_sequence(case)


def against_products(case: Case) -> str:
    """Return the reason for the row against the unavoidable products."""
    return _ELEMENTWISE


def log_scaled(case: Case) -> str:
    """Return the reason for the row of log-scaled norms."""
    return _of_one_sequence(case)


def hand_written(case: Case) -> str:
    """Return the reason for a row against a loop written by hand."""
    if case.cell in _FEW_PRODUCTS and not _is_short(case):
        return _FEW_PRODUCTS[case.cell]
    return _of_one_sequence(case)


def _of_one_sequence(case: Case) -> str:
    return _FIXED_COST if _is_short(case) else NONE_KNOWN


def _is_short(case: Case) -> bool:
    return case.batch_size == 1 and case.seq_len <= _FEW_STEPS
