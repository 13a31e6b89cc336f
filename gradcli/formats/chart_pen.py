"""The pen of charts in the terminal: how wide it may draw, with which characters and colours."""

from __future__ import annotations

from typing import ClassVar

from gradcli.formats.text import display_width, printable, wrap
from gradcli.frozen import frozen


@frozen
class Signs:
    """The characters of a chart: of the series, of lines across and down, of the axes, and what stands for a gap."""

    marks: str
    level: str
    mark: str
    side: str
    tick: str
    corner: str
    bottom: str
    shades: str
    gap: str


_UNICODE = Signs("●○▲△■□◆◇", "╌", "┊", "│", "┤", "└", "─", "░▒▓█", "…")
_ASCII = Signs("*ox+#@%&", "-", ":", "|", "+", "+", "-", ".:*#", "~")


@frozen
class Pen:
    """What the screen can show."""

    width: int
    color: bool
    unicode: bool

    DIM: ClassVar[str] = "2"
    BOLD: ClassVar[str] = "1"

    @property
    def signs(self) -> Signs:
        return _UNICODE if self.unicode else _ASCII

    def plain(self, text: str) -> str:
        """Return text that the screen can show, on one line."""
        return printable(text, unicode=self.unicode)

    def wrapped(self, text: str) -> list[str]:
        """Return text as lines that fit."""
        return wrap(self.plain(text), self.width, break_words=True)

    def shortened(self, text: str, width: int) -> str:
        """Return plain text of at most so many columns, its end left out where it has more."""
        if display_width(text) <= width:
            return text
        while text and display_width(text) > width - 1:
            text = text[:-1]
        return text + self.signs.gap

    def styled(self, text: str, code: str) -> str:
        """Return text in a colour or style, where there are any."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.color and text.strip() else text
