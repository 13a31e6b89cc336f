"""The snippets of the documentation: found in the pages, run, compared with what the pages show, and refreshed.

How a page says what a snippet is; the comment stands on the line above the block:

    ```console                 every line that starts with "$ " is run, in the order of the page, in one folder that
                               holds the examples; what follows it is its output on a terminal of WIDTH columns. A line
                               "..." stands for any lines; a command that shows no output must succeed, no more.
    <!-- exits with 2 -->      above a console block: its last command exits with this code
    <!-- not run: why -->      above a console block: it is left alone
    ```yaml                    a whole spec: it is simulated, over a short sequence
    <!-- fragment of lstm -->  above a yaml block: a part of a spec, simulated with this cell
    <!-- file: my.yaml -->     above any block: it is written to this file, for the commands that follow; a spec is also
                               simulated, unless the comment goes on "; refused", or "; of another program" where it
                               is read by one
    <!-- not a spec -->        above a yaml block: only read

The lists of keys are made anew as well (see `tests/doc_keys.py`). After a change of the program's output:

    python -m tests.doc_snippets
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gradcli
from gradcli.diagnostics.verdict_words import KIND_WORDS
from gradcli.errors import ExitCode
from gradcli.numbers import power_of_ten
from gradcli.results.model import Line

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
CONFIGS = ROOT / "examples" / "configs"
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
WIDTH = 88
SHORT = 12
ELISION = "..."

_FENCE = re.compile(r"^```(\w*)$")
_NOTE = re.compile(r"^<!-- (.+) -->$")
_VERDICT = re.compile(r"^# Verdict: (.*(?:\n#  .*)*)$", re.MULTILINE)
_RATES = re.compile(r"^\| `(\w+)` \| `([^`]+)` \| \S+ \| ([\d.]+ \| [\d.]+ \|)$", re.MULTILINE)
#: A row of the table of remedies: what stands before its numbers, its example, and the numbers.
REMEDY = re.compile(r"^(\| \[`([\w-]+\.yaml)`\]\(\S+\) \| [^|]+ \| )(\S[^|]* \| \S+ \| \S+) \|", re.MULTILINE)
_LINE = 120


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the note above it, its lines, and the index of the first of them in the page."""

    page: str
    language: str
    note: str
    lines: tuple[str, ...]
    start: int

    @property
    def place(self) -> str:
        return f"{self.page}:{self.start + 1}"

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)

    @property
    def file(self) -> str | None:
        """The name of the file that the note asks for."""
        return self.note.removeprefix("file: ").partition(";")[0] if self.note.startswith("file: ") else None

    @property
    def is_run(self) -> bool:
        return self.language == "console" and not self.note.startswith("not run")

    @property
    def last_exit_code(self) -> int:
        return int(self.note.removeprefix("exits with ")) if self.note.startswith("exits with ") else 0


@dataclass(frozen=True)
class Command:
    """A command of a console block, and the lines that the page shows as its output."""

    line: str
    shown: tuple[str, ...]
    place: str


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    lines = page.read_text(encoding="utf-8").split("\n")
    found = []
    index = 0
    while index < len(lines):
        fence = _FENCE.match(lines[index])
        if fence is None:
            index += 1
            continue
        note = _NOTE.match(lines[index - 1]) if index else None
        end = lines.index("```", index + 1)
        body = tuple(lines[index + 1 : end])
        found.append(Block(page.name, fence.group(1), note.group(1) if note else "", body, index + 1))
        index = end + 1
    return found


def commands_of(block: Block) -> list[Command]:
    """Return the commands of a console block."""
    found: list[Command] = []
    lines = list(block.lines)
    index = 0
    while index < len(lines):
        if not lines[index].startswith("$ "):
            raise ValueError(f"{block.page}:{block.start + index + 1}: expected a line that starts with '$ '")
        place = f"{block.page}:{block.start + index + 1}"
        line = lines[index][2:]
        index += 1
        while line.endswith("\\"):
            line = line[:-1].rstrip() + " " + lines[index].strip()
            index += 1
        first = index
        while index < len(lines) and not lines[index].startswith("$ "):
            index += 1
        found.append(Command(line, tuple(lines[first:index]), place))
    return found


def matches(shown: tuple[str, ...], lines: tuple[str, ...]) -> bool:
    """Tell whether a page shows these lines of output; "..." stands for any number of them."""
    if ELISION not in shown:
        return shown == lines
    at = shown.index(ELISION)
    head, tail = shown[:at], shown[at + 1 :]
    return len(lines) >= len(head) + len(tail) and lines[:at] == head and lines[len(lines) - len(tail) :] == tail


def abridged(shown: tuple[str, ...], lines: tuple[str, ...]) -> tuple[str, ...]:
    """Return the output as a page shows it: as many lines before and after "..." as it has now."""
    if ELISION not in shown:
        return lines
    at = shown.index(ELISION)
    tail = len(shown) - at - 1
    return (*lines[:at], ELISION, *lines[len(lines) - tail :])


class Terminal:
    """A folder with the examples, and commands that run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self._programs = folder / "programs"
        self.folder.mkdir()
        self._programs.mkdir()
        shutil.copytree(ROOT / "examples", self.folder / "examples")
        shutil.copy(ROOT / "LICENSE", self.folder)
        self._program("gradcli", f'exec {shlex.quote(sys.executable)} -m gradcli "$@"')
        self._program("python", f'exec {shlex.quote(sys.executable)} "$@"')
        self.code = 0

    def _program(self, name: str, line: str) -> None:
        path = self._programs / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def run(self, line: str) -> tuple[str, ...]:
        """Run a line and return its output, standard error included, as lines without trailing blanks."""
        if line == "echo $?":
            return (str(self.code),)
        arguments = _arguments(line)
        if arguments is not None and arguments[0] == "gradcli":
            self.code, text = run_gradcli(arguments[1:], self.folder)
        else:
            self.code, text = self._shell(line)
        return tuple(part.rstrip() for part in text.rstrip("\n").split("\n")) if text else ()

    def _shell(self, line: str) -> tuple[int, str]:
        environment = os.environ | {
            "PATH": f"{self._programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1",
        }
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        return done.returncode, done.stdout


def _arguments(line: str) -> list[str] | None:
    """Return the words of a simple command; None where a shell has more to do than to split it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words = list(lexer)
    return None if any(set(word) <= set("();<>|&") for word in words) else shlex.split(line)


def run_gradcli(arguments: list[str], folder: Path) -> tuple[int, str]:
    """Run gradcli in this process as on a terminal of WIDTH columns without colour; return its exit code and output."""
    from gradcli.__main__ import main
    from gradcli.cli.output import Screen

    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    handler = signal.getsignal(signal.SIGTERM)
    with (
        _inside(folder),
        patch.object(sys, "argv", ["gradcli", *arguments]),
        patch.object(sys, "stdout", output),
        patch.object(sys, "stderr", output),
        patch.dict(os.environ, {"NO_COLOR": "1", "COLUMNS": str(WIDTH)}),
        patch("gradcli.cli.output.standard_screen", lambda: Screen(width=WIDTH)),
    ):
        try:
            code = main()
        finally:
            signal.signal(signal.SIGTERM, handler)
    return int(code), output.buffer.getvalue().decode("utf-8")


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def walk(page: Path, terminal: Terminal) -> Iterator[tuple[Block, Command, tuple[str, ...]]]:
    """Write the files of a page and run its commands, in order; yield each command with its output."""
    for block in blocks_of(page):
        if block.file is not None:
            file = terminal.folder / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        if block.is_run:
            for command in commands_of(block):
                yield block, command, terminal.run(command.line)


def verdict_line(path: Path) -> str:
    """Return the verdict on a spec file as the header of an example states it: its word, and how the curve moves."""
    report = gradcli.simulate(path).report
    words = [word.upper() for word in KIND_WORDS.values()]
    lines = [block for group in report.blocks for block in group if isinstance(block, Line)]
    verdict = next(line for line in lines if line.label in words)
    # Where the beginning is reached, the first line says what is left there.
    shown = verdict.text.split("\n")[: 2 if verdict.label == KIND_WORDS["stable"].upper() else 1]
    return ", ".join([verdict.label, *(line.partition(";")[0] for line in shown)])


def stated_verdict(path: Path) -> str:
    """Return the verdict that the header of an example states."""
    found = _VERDICT.search(path.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{path.name}: expected a header line '# Verdict: ...'")
    return re.sub(r"\n# +", " ", found.group(1))


def refresh_page(page: Path, terminal: Terminal) -> None:
    """Write the program's present output into a page."""
    outputs: dict[int, list[str]] = {}
    for block, command, lines in walk(page, terminal):
        if terminal.code == ExitCode.INTERNAL:
            raise RuntimeError(f"{command.place}: $ {command.line}\n" + "\n".join(lines))
        shown = abridged(command.shown, lines) if command.shown else ()
        outputs.setdefault(block.start, []).extend([*_as_written(block, command), *shown])
    text = page.read_text(encoding="utf-8").split("\n")
    for block in reversed([block for block in blocks_of(page) if block.start in outputs]):
        text[block.start : block.start + len(block.lines)] = outputs[block.start]
    page.write_text("\n".join(text), encoding="utf-8")


def _as_written(block: Block, command: Command) -> list[str]:
    """Return the lines of a command itself, continued lines included."""
    first = int(command.place.rpartition(":")[2]) - 1 - block.start
    last = first
    while block.lines[last].endswith("\\"):
        last += 1
    return list(block.lines[first : last + 1])


def refresh_config(path: Path) -> None:
    """Write the present verdict into the header of an example."""
    text = path.read_text(encoding="utf-8")
    line = textwrap.fill(f"# Verdict: {verdict_line(path)}", _LINE, subsequent_indent="#          ")
    path.write_text(_VERDICT.sub(lambda _: line, text, count=1), encoding="utf-8")


def measured_remedy(path: Path) -> tuple[str, str, str]:
    """Return reach, rate a step, and what is left at 100 steps, as the table of docs/remedies.md gives them."""
    report = gradcli.simulate(path, seq_len=100).report
    verdict = report.data["runs"][0]["verdict"]
    horizon = verdict["horizon"]["threshold"]
    reach = ">= 100" if horizon is None else str(horizon)
    return reach, f"{verdict['rate_per_step']:.3f}", power_of_ten(verdict["end"]["log10_ratio"])


def refresh_remedies(page: Path) -> None:
    """Write the present numbers into the table of docs/remedies.md."""

    def row(found: re.Match[str]) -> str:
        return f"{found.group(1)}{' | '.join(measured_remedy(CONFIGS / found.group(2)))} |"

    page.write_text(REMEDY.sub(row, page.read_text(encoding="utf-8")), encoding="utf-8")


def measured_rates(cell: str, init: str) -> tuple[str, str]:
    """Return the rates a step, without and with input, as the table of docs/initialisation.md gives them."""

    def rate(kind: str) -> str:
        options = ["hidden_size=128", "batch_size=4", f"input={kind}", "clip=[]"]
        report = gradcli.simulate(cell, set=[f'init={{"*": {init}}}', *options]).report
        return f"{report.data['runs'][0]['verdict']['rate_per_step']:.3f}"

    return rate("zeros"), rate("normal")


def refresh_rates(page: Path) -> None:
    """Write the present rates into the table of docs/initialisation.md."""

    def row(found: re.Match[str]) -> str:
        return f"{found.group(0)[: found.start(3) - found.start()]}{' | '.join(measured_rates(*found.group(1, 2)))} |"

    text = page.read_text(encoding="utf-8")
    page.write_text(_RATES.sub(row, text), encoding="utf-8")


def executed(path: Path) -> Any:
    """Return a notebook as it stands after all of its cells ran, in a kernel of its own on this gradcli."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(paths)}):
        NotebookClient(notebook, timeout=300, kernel_name="python3", record_timing=False).execute()
    return notebook


def refresh_notebook(path: Path) -> None:
    """Write what the cells of a notebook show now into it."""
    import nbformat

    nbformat.write(executed(path), path)


def main() -> None:
    """Refresh all pages and examples."""
    from tests.doc_keys import refresh

    refresh_rates(ROOT / "docs" / "initialisation.md")
    refresh_remedies(ROOT / "docs" / "remedies.md")
    for path in sorted(CONFIGS.glob("*.yaml")):
        refresh_config(path)
    for path in NOTEBOOKS:
        refresh_notebook(path)
    for page in PAGES:
        refresh(page)
        with tempfile.TemporaryDirectory() as folder:
            refresh_page(page, Terminal(Path(folder)))


if __name__ == "__main__":
    main()
