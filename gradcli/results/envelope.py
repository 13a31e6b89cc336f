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


def envelope(command: str) -> dict[str, Any]:
    """Return the keys that open every command's document."""
    found: dict[str, Any] = data_of(
        Envelope(schema_version=SCHEMA_VERSION, command=command, gradcli_version=__version__)
    )
    return found
