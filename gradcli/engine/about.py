"""What `gradcli --version` says: nothing is imported for it that takes time."""

from __future__ import annotations

from gradcli import __version__
from gradcli.engine.compiled import why_not


def version_text() -> str:
    """Return the version, and which engine this installation has."""
    reason = why_not()
    engine = "compiled" if reason is None else f"numpy; the compiled one is not there: {reason}"
    return f"gradcli {__version__}\nengine: {engine}"
