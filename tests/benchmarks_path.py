"""Puts the repository's root, and with it `benchmarks`, on the path; import it before `benchmarks`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

# The last place to look in: gradcli comes from where it is installed.
sys.path.append(str(ROOT))
