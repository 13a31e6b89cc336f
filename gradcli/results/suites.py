"""What a command that tests has to say of each file, for the formats of continuous integration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Literal

from gradcli.frozen import frozen


@frozen
class Finding:
    """Why a case did not pass: a message, and where in the file; 0 where that is not known."""

    message: str
    line: int = 0
    column: int = 0


@frozen
class Case:
    """One test of a file.

    Args:
        name: the same in every run.
        findings: why it did not pass; none where it did.
        text: what there is to say where it passed.
        line: of the file, from 1, that asks for it; 0 where that is not known.
    """

    name: str
    status: Literal["passed", "failed", "error"]
    findings: Sequence[Finding] = ()
    text: str = ""
    line: int = 0


@frozen
class Suite:
    """The cases of one file, and how many seconds they took together."""

    file: str
    cases: Sequence[Case]
    seconds: float = 0.0


@frozen
class Suites:
    """All files, and what it comes to in a line. warnings: what is to be told beside."""

    name: str
    conclusion: str
    suites: Sequence[Suite] = ()
    warnings: Sequence[str] = field(default=())
