"""`gradcli schema`: the JSON Schema of the spec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradcli.commands.command import command

if TYPE_CHECKING:
    from gradcli.results.result import Text


@command("gradcli schema -o gradcli.schema.json", name="schema", formats=())
def show_schema() -> Text:
    """The JSON Schema of the spec, for editors."""
    import json

    from gradcli.results.result import Text
    from gradcli.spec.schema import spec_schema

    return Text(json.dumps(spec_schema(), indent=2) + "\n")
