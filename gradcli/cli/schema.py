"""`gradcli schema`: the JSON Schema of the spec."""

from __future__ import annotations

from gradcli.cli.output import write_standard_output

EXAMPLES = ("gradcli schema > gradcli.schema.json",)


def run() -> None:
    """The JSON Schema of the spec on standard output, for editors."""
    import json

    from gradcli.spec.schema import spec_schema

    write_standard_output([json.dumps(spec_schema(), indent=2), "\n"])
