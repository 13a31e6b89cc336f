"""The pages of the documentation: made by the commands that docs/report.md shows, and compared by what they say.

Two pages are the same where their words are and their numbers are close, whatever software made them: what they say of
versions does not count, nor do the last digits. After a change of the pages:

    python tests/doc_pages.py
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from math import isclose
from pathlib import Path

from doc_snippets import ROOT, Terminal, walk
from html_document import Element, read

PAGE = ROOT / "docs" / "report.md"
FOLDER = ROOT / "docs" / "pages"
#: Numbers of two digits, rounded on either side of a border, are so far apart.
CLOSE = 0.06
_OUTPUT = re.compile(r"gradcli report .*-o (\S+\.html)")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


def shown() -> set[str]:
    """Return the names of the pages that docs/report.md links."""
    return set(re.findall(r"\]\(pages/(\S+?)\)", PAGE.read_text(encoding="utf-8")))


def made(folder: Path) -> Iterator[tuple[str, str]]:
    """Run the commands of docs/report.md, and yield the name and the text of each page that it links."""
    terminal = Terminal(folder)
    for _, command, lines in walk(PAGE, terminal):
        found = _OUTPUT.search(command.line)
        if found is not None and found[1] in shown():
            if terminal.code:
                raise RuntimeError(f"{command.place}: $ {command.line}\n" + "\n".join(lines))
            yield found[1], (terminal.folder / found[1]).read_text(encoding="utf-8")


def differences(page: str, other: str) -> list[str]:
    """Return what two pages say differently."""
    texts, others = (list(_texts(read(each))) for each in (page, other))
    if len(texts) != len(others):
        return [f"{len(texts)} texts, and {len(others)}"]
    return [f"{a!r} is not {b!r}" for a, b in zip(texts, others, strict=True) if not _alike(a, b)]


def _texts(root: Element) -> Iterator[str]:
    """Yield what a page says, part by part: headings, sentences, cells, formulas, and what pictures are called."""
    for part in root.all("main")[0].walk():
        if part.tag == "section" and part.all("h2") and part.all("h2")[0].text == "Versions":
            return  # the last one
        if part.tag in (
            "h1",
            "h2",
            "h3",
            "dt",
            "dd",
            "p",
            "th",
            "td",
            "summary",
            "figcaption",
            "title",
            "desc",
            "code",
        ):
            yield part.text


def _alike(a: str, b: str) -> bool:
    if _NUMBER.sub("#", a) != _NUMBER.sub("#", b):
        return False
    numbers = ([float(number.replace(",", "")) for number in _NUMBER.findall(text)] for text in (a, b))
    return all(isclose(x, y, rel_tol=CLOSE, abs_tol=CLOSE) for x, y in zip(*numbers, strict=True))


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in made(Path(folder)):
            (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
