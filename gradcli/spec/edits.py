"""A spec with something changed as one more ``--set PATH=VALUE`` would change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gradcli import cells
from gradcli.errors import SpecError
from gradcli.spec.explain import check
from gradcli.spec.models import Spec
from gradcli.spec.overrides import apply_overrides
from gradcli.spec.reader import LoadedSpec


def edited(loaded: LoadedSpec, overrides: Sequence[str]) -> LoadedSpec:
    """Return a spec as it would be with more ``PATH=VALUE`` texts behind those that it was loaded with.

    Args:
        loaded: whose checkpoint, where it has one, stays the same: no text may name another.

    Raises:
        SpecError: texts that do not suit the spec.
    """
    positions = loaded.positions.copy()
    # What was left to the input or the checkpoint must stay so.
    data = loaded.spec.model_dump(exclude_unset=True, exclude_none=True)
    problems = apply_overrides(data, overrides, positions)
    spec, findings = check(Spec, data)
    problems += [positions.problem(*finding) for finding in findings]
    if spec is None or problems:
        raise SpecError(problems)
    if not isinstance(spec.cell, str):
        return replace(loaded, spec=spec, cell=spec.cell, positions=positions, built_in=None)
    built_in = cells.load(spec.cell)
    return replace(loaded, spec=spec, cell=built_in.cell, positions=positions, built_in=built_in)
