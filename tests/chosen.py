"""Which tests the markers `quick` and `engine` choose: see pyproject.toml."""

from __future__ import annotations

from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
#: Folders and files beside this one that tell most in little time: what `pytest -m quick` runs, but for slow tests and
#: those that need PyTorch.
QUICK = (
    "formats",
    "language",
    "spec",
    "diagnostics/test_curve.py",
    "diagnostics/test_spectra.py",
    "diagnostics/test_verdict.py",
    "diagnostics/test_verdict_words.py",
    "prepare/test_chrono.py",
    "sources/test_exact_values.py",
    "sources/test_streams.py",
    "test_architecture.py",
    "test_known_answers.py",
    "test_stored_runs.py",
    "test_zoo_closed_forms.py",
)
#: Those that say whether the numbers are right, whichever engine they come from: .ci/run has them once more with the
#: one in NumPy, those that need PyTorch when it is there. What is concluded from the numbers is not among them.
ENGINE = (
    "diagnostics",
    "step",
    "test_across.py",
    "test_activation.py",
    "test_against_torch.py",
    "test_bidirectional.py",
    "test_bidirectional_runs.py",
    "test_clipping_against_torch.py",
    "test_draws.py",
    "test_engine_properties.py",
    "test_engines_agree.py",
    "test_exact_zeros.py",
    "test_final_states.py",
    "test_given_loss.py",
    "test_jacobian_against_torch.py",
    "test_jacobian_known_answers.py",
    "test_known_answers.py",
    "test_known_answers_cells.py",
    "test_known_answers_depth.py",
    "test_lengths.py",
    "test_lengths_against_torch.py",
    "test_lengths_of_every_cell.py",
    "test_losses_in_turn.py",
    "test_nonfinite.py",
    "test_random_cells.py",
    "test_range_of_blocks.py",
    "test_real_data.py",
    "test_reproductions.py",
    "test_stored_runs.py",
    "test_walks_after_runs.py",
    "test_zoo.py",
    "test_zoo_by_hand.py",
    "test_zoo_closed_forms.py",
)
CHOSEN = {"quick": QUICK, "engine": ENGINE}


@cache
def is_chosen(path: Path, marker: str) -> bool:
    """Tell whether a file or folder of the tests has some that a marker chooses."""
    here = path.relative_to(TESTS)
    named = [Path(name) for name in CHOSEN[marker]]
    return any(here.is_relative_to(name) or name.is_relative_to(here) for name in named)
