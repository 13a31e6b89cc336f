"""Arrays that Python gives to a run: what they are in a spec, and what they settle of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gradcli.errors import InputFileError, UsageError
from gradcli.prepare.sizing import parse
from gradcli.spec.given import Given, GivenArrays, Settled
from gradcli.spec.initialisers import Exact
from gradcli.spec.reader import LoadedSpec

_BY_STEP = "(batch, T, {})"
#: The fields that the axes of an array (batch, T, features) settle, and what they count.
_AXES = (("batch_size", "sequences"), ("seq_len", "steps"), ("input_size", "features"))


def given_arrays(options: Mapping[str, Any]) -> GivenArrays:
    """Return the arrays among the options of a command, but for one that is an initial state without a name.

    Raises:
        UsageError: what is no array of real numbers, or has not the axes that it should.
    """
    found = GivenArrays()
    if options.get("inputs") is not None:
        inputs = _by_step("inputs", options["inputs"], "features")
        found.put(("input",), inputs.name, {"kind": "file", "path": inputs})
        found.settle(_settled(inputs, len(_AXES)))
    if options.get("output_gradient") is not None:
        gradient = _by_step("output_gradient", options["output_gradient"], "output size")
        found.put(("loss",), gradient.name, {"kind": "given", "file": gradient})
        found.settle(_settled(gradient, 2))
    for parameter, value in (options.get("params") or {}).items():
        array = _array(f"params[{parameter!r}]", value)
        found.put(("params", str(parameter)), array.name, array)
    if isinstance(initial := options.get("h_0"), Mapping):
        for state, value in initial.items():
            array = _array(f"h_0[{state!r}]", value)
            found.put((f"{state}_0",), array.name, array)
    return found


def with_initial_state(loaded: LoadedSpec, options: Mapping[str, Any]) -> LoadedSpec:
    """Return a spec with `h_0` as the initial state of its output, whatever that is called, where it is one array.

    Raises:
        UsageError: it is no array of real numbers. SpecError: equations with mistakes.
    """
    value = options.get("h_0")
    if value is None or isinstance(value, Mapping):
        return loaded
    given, output = _array("h_0", value), parse(loaded).output
    positions = loaded.positions.copy()
    positions.override((f"{output}_0",), given.name)
    states = {**loaded.spec.initial_states, output: Exact(values=given)}
    return replace(loaded, spec=loaded.spec.model_copy(update={"initial_states": states}), positions=positions)


def _by_step(name: str, value: Any, last: str) -> Given:
    """Return an array (batch, T, ...)."""
    found = _array(name, value)
    if found.values.ndim != 3:
        hint = f"; of a single sequence give {name}[None]" if found.values.ndim == 2 else ""
        raise UsageError(f"{name}: expected an array {_BY_STEP.format(last)}; got shape {found.values.shape}{hint}")
    return found


def _array(name: str, value: Any) -> Given:
    """Return real numbers as an array, which is no copy where they are one already."""
    import numpy as np

    from gradcli.sources.npz import Header, require_numbers

    # A tensor of PyTorch that requires a gradient, or is on a device, gives itself out as an array only when told so.
    for step in ("detach", "cpu"):
        if callable(told := getattr(value, step, None)):
            value = told()
    try:
        array = np.asarray(value)
        require_numbers(Header(array.shape, False, array.dtype), name)
    except InputFileError as error:
        raise UsageError(str(error)) from None
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise UsageError(f"{name}: expected an array of real numbers: {error}") from None
    return Given(name, array)


def _settled(given: Given, axes: int) -> list[Settled]:
    sizes = zip(_AXES[:axes], given.values.shape, strict=False)
    return [Settled(field, size, f"{given!r} has {size} {what}", given.name) for (field, what), size in sizes]
