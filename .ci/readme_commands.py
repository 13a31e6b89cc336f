"""Print the commands with which the README has its reader install, try and test gradcli: the lines that install.

They are the lines of its code blocks that begin with `pip install`, with or without a `$ ` before them; continued lines
are joined. CI runs them as they are printed, so that what stands there works.
"""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def commands(text: str) -> list[str]:
    """Return the commands that install, in the order of the page, each once."""
    blocks = re.findall(r"(?ms)^```\w*\n(.*?)^```$", text)
    lines = [line for block in blocks for line in re.sub(r" *\\\n *", " ", block).splitlines()]
    found = [match[1] for line in lines if (match := re.match(r"(?:\$ )?(pip install .*\S)", line))]
    return list(dict.fromkeys(found))


def main() -> None:
    """Print them, one a line."""
    for line in commands(README.read_text(encoding="utf-8")):
        print(line)  # noqa: T201 - it is what this script is for


if __name__ == "__main__":
    main()
