"""The keys that open every JSON document."""

from __future__ import annotations

from typing import Any

from gradcli import __version__
from gradcli.frozen import frozen
from gradcli.results.declared import data_of, key

SCHEMA_VERSION = 1


@frozen(kw_only=True)
class Envelope:
    """What a document is."""

    schema_version: int = key(f"{SCHEMA_VERSION}; it goes up when a reader of the old layout would break")
    command: str = key("the command that wrote it")
    gradcli_version: str = key("the version that wrote it")
    engine: str | None = key(
        "which [engine](cost.md#engines) ran: `compiled`, or `numpy`; left out where none did", optional=True
    )


def envelope(command: str, engine: str | None = None) -> dict[str, Any]:
    """Return the keys that open every command's document.

    Args:
        engine: which one ran, for commands that run one.
    """
    found: dict[str, Any] = data_of(
        Envelope(schema_version=SCHEMA_VERSION, command=command, gradcli_version=__version__, engine=engine)
    )
    return found


def engine_that_ran() -> str:
    """Return which engine this process runs: all that equations may call is known to both."""
    from gradcli.engine.executor import wanted

    return wanted()
