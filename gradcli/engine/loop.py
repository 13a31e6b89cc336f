"""Loops and blocks: one NumPy call after another into buffers that exist already, as straight-line Python.

The source is made from the plan alone. Nothing of the user's text enters it: names are v0, v1, ... and numbers, arrays
and functions are bound as objects, so there is nothing in it that a spec could execute.

A loop names what it works on by `Key`s, which the layer resolves to arrays:

* columns, one view a step: ``("state", name, lag)``, ``("window", name, lags)``, ``("tape", buffer, rows)``,
  ``("hoisted", node)``, ``("addend", group, rows)``, ``("adjoint", name, lag)``, ``("coefficient", target, run)``,
  ``("lanes", group, rows)``, ``("across", node)``, ``("value", node)``, ``("slope", node)``;
* fixed, the same array at every step: ``("matrix", group)``, ``("transposed", group)``, each of them also of a window,
  ``("scratch", ...)``, ``("number", value, rows)``, ``("leaf", node)``, ``("rescale", frame, frame)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcli.language.functions import FUNCTIONS

Key = tuple[Any, ...]
Rows = tuple[int, int]


@dataclass(frozen=True)
class Loop:
    """A compiled time loop, ``run(columns, fixed)`` with a sequence of views for each column key, in order.

    Or a compiled block of steps, which takes one array for each column key.
    """

    source: str
    columns: tuple[Key, ...]
    fixed: tuple[Key, ...]
    run: Callable[[Any, Any], None]


class LoopWriter:
    """Collects the lines of one loop and the keys that they use."""

    def __init__(self, batched_trials: bool) -> None:
        self.lines: list[str] = []
        self.columns: dict[Key, str] = {}
        self.fixed: dict[Key, str] = {}
        self.names: dict[str, Any] = {}
        self.product = "matmul" if batched_trials else "dot"
        #: The axis of a vector's entries in a loop's arrays; that of the sequences, if there are several, is the next.
        self.features_axis = 1 if batched_trials else 0

    def column(self, *key: Any) -> str:
        return self.columns.setdefault(key, f"v{len(self.columns)}")

    def constant(self, *key: Any) -> str:
        return self.fixed.setdefault(key, f"p{len(self.fixed)}")

    def call(self, function: str, *args: str) -> None:
        """Write the call of a NumPy function, or of an elementwise one of the language; its output comes last."""
        *operands, out = args
        if function == "dot":
            # As a method it is a third faster than as a function, which looks for overrides first.
            self.lines.append(f"{operands[0]}.dot({operands[1]}, {out})")
            return
        self.names.setdefault(function, getattr(np, function, None) or FUNCTIONS[function].evaluate)
        # NumPy wants the output of these two by name; by position, where it may be, it is a little faster.
        named = "out=" if function in ("maximum", "minimum") else ""
        self.lines.append(f"{function}({', '.join([*operands, named + out])})")

    def bound(self, name: str, function: Callable[..., Any], *args: str) -> None:
        """Write the call of a function that is bound to a name of its own."""
        self.names[name] = function
        self.lines.append(f"{name}({', '.join(args)})")

    def loop(self) -> Loop:
        """Return the calls as a loop over steps."""
        each = f"for [{', '.join(self.columns.values())}] in zip(*columns):" if self.columns else "if False:"
        return self._compiled("time loop", [each, *(f"    {line}" for line in self.lines or ["pass"])])

    def block(self) -> Loop:
        """Return the calls as a program for whole blocks of steps: a column is one array, not a view for each step."""
        arrays = [f"[{', '.join(self.columns.values())}] = columns"] if self.columns else []
        return self._compiled("block", [*arrays, *self.lines])

    def _compiled(self, kind: str, body: list[str]) -> Loop:
        fixed = f"[{', '.join(self.fixed.values())}] = fixed" if self.fixed else "pass"
        source = "\n".join(["def run(columns, fixed):", *(f"    {line}" for line in (fixed, *body))])
        namespace: dict[str, Any] = dict(self.names)
        exec(compile(source, f"<{kind}>", "exec"), namespace)  # the plan's own text, see the module's docstring
        return Loop(source, tuple(self.columns), tuple(self.fixed), namespace["run"])
