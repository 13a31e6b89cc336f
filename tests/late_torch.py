"""PyTorch, imported when something of it is first used.

Modules of tests and of the reference can then be loaded where it is not installed, and quickly where it is. A test that
comes to use it carries the marker `torch` (see conftest.py).
"""

from __future__ import annotations

import importlib
from typing import Any


class _Late:
    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("torch"), name)


torch: Any = _Late()
