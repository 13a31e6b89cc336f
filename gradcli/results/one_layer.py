"""What the commands that look at one layer have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradcli.frozen import frozen
from gradcli.prepare.build import Network
from gradcli.results.declared import key
from gradcli.results.result import OneRun
from gradcli.results.run import resolved_spec


@frozen(kw_only=True, repr=False, eq=False)
class OfOneSpec(OneRun):
    """What was found of one spec."""

    label: str = key("the file's name without its ending, or the cell's")
    cell: str = key("the name of its cell")
    status: str = key("`ok`, or `nonfinite` where there is no gradient")
    seq_len: int = key("T")
    spec: Mapping[str, Any] = key("the spec with every default filled in; read again, it gives the same run")


@frozen(kw_only=True, repr=False, eq=False)
class OfOneLayer(OfOneSpec):
    """What was found of one layer."""

    layer: str = key("which one, such as `layer0`")


def spec_fields(network: Network, *, finite: bool) -> dict[str, Any]:
    """Return the fields of `OfOneSpec`; `finite`: whether all numbers were."""
    return {
        "label": network.loaded.label,
        "cell": network.loaded.cell.name,
        "status": "ok" if finite else "nonfinite",
        "seq_len": network.spec.seq_len,
        "spec": resolved_spec(network),
    }
