"""`gradcli schema`: the JSON Schema of the spec."""

from __future__ import annotations

from gradcli.cli import options as opt
from gradcli.cli.output import check_writable, emit_text

EXAMPLES = ("gradcli schema -o gradcli.schema.json",)


def run(output: opt.Output = None, quiet: opt.Quiet = False) -> None:
    """The JSON Schema of the spec, for editors."""
    if output is not None:
        check_writable(output)
    import json

    from gradcli.spec.schema import spec_schema

    emit_text([json.dumps(spec_schema(), indent=2), "\n"], output, quiet=quiet)
