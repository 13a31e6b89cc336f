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
_OTHER_KERNELS = (
    "PyTorch multiplies with MKL, whose products may be faster than the interpreter's own. The products alone, as "
    "NumPy makes them, are the measure: see the row against the unavoidable products of the same case."
)
_ELEMENTWISE = (
    "Besides its products, a step of the LSTM moves dozens of arrays of hidden size x batch through the second-level "
    "cache, and the interpreter computes five exp and tanh for each unit."
)
_ONE_PROGRAM = (
    "XLA makes machine code of the whole step for its shape, in about half a second before the first run. "
    "The interpreter calls an operation for each instruction, and takes matrices and vectors through the cache alike."
)
_EXPONENTS = (
    "The range of float32 is so narrow that a run needs about three times as many blocks with exponents of their own. "
    "Each has a fixed cost, in Python: of a small cell's steps it is more than what their arithmetic saves."
)
_HALF_A_PRODUCT = (
    "A product in float32 is twice as fast, at most; what surrounds it (norms and exponents in float64) is not faster."
)
_WEIGHT_PRODUCTS = (
    "The gradients of W_h and W_x are products as large as the forward pass's. With H units and I inputs the norms "
    "need 2 H + I multiplications for each row of a matrix, and the gradients H + I more: 56 % more at 128 units and "
    "32 inputs, 52 % at 512. NumPy's BLAS makes them."
)
_FIXED_COST_OF_GRADIENTS = (
    "Gradients have a fixed cost (a product for each matrix, their exponents, sums over segments, in Python and NumPy) "
    "that so few small steps do not hide. The same cell at 1,000 steps is the measure of the rest."
)
_OTHER_MACHINE = (
    "The share of 0.1.0 was measured with it, on another machine; how NumPy's calls and its products compare differs "
    "from one processor to the next."
)

MATRIX_STATES = (
    "A step takes the memory's matrix through the cache once for each instruction; XLA makes one loop of all of them."
)
AGREEMENT = (
    "Both engines round differently. Where a gradient is chaotic or nearly cancels, the differences grow with the "
    "distance; where it is neither, this is a defect."
)
COMMAND_TIME = (
    "Imports take a large part: numpy, the standard library, and gradcli's own modules. The profile shows each, and "
    "what is left for the command."
)
COMMAND_MEMORY = (
    "Python with numpy and gradcli's own modules loaded takes about 40 MiB, two thirds of what is asked, before the "
    "run begins."
)
LONG_COMMAND_TIME = (
    "Imports take a large part of so short a run, and the command does more than the script: it judges the curve, "
    "clips, and runs up to five other specs to see what helps."
)
DIAGNOSTICS = (
    "What is looked at of every step is computed by NumPy, outside the compiled interpreter, whose runs it is held "
    "against."
)
USERS_FILE = "Both run the same operations, as a test compares, some of them in another order; the rest is disturbance."
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
    return _OTHER_KERNELS if case.batch_size >= 32 else _of_one_sequence(case)


def against_jax(case: Case) -> str:
    """Return the reason for the row against JAX."""
    return f"{_ONE_PROGRAM} {_FIXED_COST}" if _is_short(case) else _ONE_PROGRAM


def against_products(case: Case) -> str:
    """Return the reason for the row against the unavoidable products."""
    return _ELEMENTWISE


def parameter_gradients(case: Case) -> str:
    """Return the reason for the row of parameter gradients against norms alone."""
    return _FIXED_COST_OF_GRADIENTS if _is_short(case) else _WEIGHT_PRODUCTS


def float32(case: Case) -> str:
    """Return the reason for the row of float32 against float64."""
    return _HALF_A_PRODUCT if case.batch_size >= 32 else _EXPONENTS


def hand_written(case: Case) -> str:
    """Return the reason for a row of the NumPy engine against a loop written by hand."""
    return f"{_FIXED_COST} {_OTHER_MACHINE}" if _is_short(case) else _OTHER_MACHINE


def _of_one_sequence(case: Case) -> str:
    return _FIXED_COST if _is_short(case) else NONE_KNOWN


def _is_short(case: Case) -> bool:
    return case.batch_size == 1 and case.seq_len <= _FEW_STEPS
