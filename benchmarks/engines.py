"""The two engines side by side: which of them are there, and which one runs next.

The engine is chosen by an environment variable, which it reads when its programs are made and again while they run.
"""

from __future__ import annotations

import os

from gradcli.engine.compiled import why_not
from gradcli.engine.executor import COMPILED, NUMPY, VARIABLE

__all__ = ["COMPILED", "ENGINES", "NUMPY", "TITLES", "VARIABLE", "missing", "there", "use"]

#: In the order of the tables.
ENGINES = (COMPILED, NUMPY)
#: What the tables call them.
TITLES = {COMPILED: "compiled", NUMPY: "NumPy"}


def missing() -> str | None:
    """Return why the compiled engine is not there, and None where it is."""
    reason = why_not()
    return None if reason is None else f"the compiled engine: {reason}"


def there() -> tuple[str, ...]:
    """Return the engines that can run."""
    return ENGINES if missing() is None else (NUMPY,)


def use(engine: str) -> None:
    """Let an engine run what is made and run in this process from now on; it costs nothing where it is the one."""
    if os.environ.get(VARIABLE) != engine:
        os.environ[VARIABLE] = engine
