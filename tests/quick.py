"""Which tests are quick: see the marker of that name in pyproject.toml."""

from __future__ import annotations

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


def is_quick(path: Path) -> bool:
    """Tell whether a file or folder of the tests has quick ones."""
    here = path.relative_to(TESTS)
    named = [Path(name) for name in QUICK]
    return any(here.is_relative_to(name) or name.is_relative_to(here) for name in named)
