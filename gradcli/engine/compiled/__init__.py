"""The compiled interpreter of step programs: an extension in C, built on installation where there is a compiler.

`gradcli.engine.compiled.table` makes its programs. Nothing is imported here that takes time: `gradcli --version` asks.
"""

from __future__ import annotations

from importlib.util import find_spec


def why_not() -> str | None:
    """Return why the interpreter is not there, in a few words; None where it is."""
    try:
        from gradcli.engine.compiled import _interpreter  # noqa: F401
    except ImportError as error:
        built = find_spec("gradcli.engine.compiled._interpreter") is not None
        return f"it cannot be loaded: {error}" if built else "it was not built, for want of a C compiler"
    return None
