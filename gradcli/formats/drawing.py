"""Pictures as files: which endings there are, and that matplotlib is there, before anything is computed."""

from __future__ import annotations

from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from gradcli.errors import UsageError
from gradcli.formats import PICTURE_ENDINGS
from gradcli.output_files import replacing
from gradcli.results.pictures import Picture
from gradcli.results.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def picture_ending(path: Path) -> str:
    """Return what kind of picture a file is to hold, one of `PICTURE_ENDINGS`, by its name.

    Raises:
        UsageError: its name does not tell, or matplotlib is not installed.
    """
    ending = path.suffix.lower()
    if ending not in PICTURE_ENDINGS:
        raise UsageError(f"--plot {path}: the name of a picture ends in {_or(PICTURE_ENDINGS)}")
    require_matplotlib()
    return ending


def require_matplotlib() -> None:
    """Check that there is what draws pictures.

    Raises:
        UsageError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise UsageError("pictures are drawn by matplotlib, which is not installed: pip install 'gradcli[plot]'")


def plot(result: Result, file: str | PathLike[str] | None, name: str | None) -> Figure:
    """Draw a picture of a result, and write it to a file; see `gradcli.results.result.Result.plot`."""
    if file is not None:
        picture_ending(Path(file))
    picture = result.picture(name)
    if file is not None:
        write_picture(picture, Path(file))
    return draw(picture)


def write_picture(picture: Picture, path: Path) -> None:
    """Write a picture to a file, whose ending says what kind; see `render_picture`.

    Raises:
        UsageError: as for `picture_ending`. OutputError: it cannot be written.
    """
    found = render_picture(picture, picture_ending(path))
    with replacing(path) as file:
        file.write(found)


def draw(picture: Picture) -> Figure:
    """Return a picture as matplotlib's `Figure`, which belongs to no window and no global state."""
    require_matplotlib()
    from gradcli.formats.figure import figure_of

    return figure_of(picture)


def render_picture(picture: Picture, ending: str) -> bytes:
    """Return a picture as a file of one of `PICTURE_ENDINGS`, the same bytes each time."""
    require_matplotlib()
    from gradcli.formats.figure import rendered

    return rendered(picture, ending.removeprefix("."))


def _or(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
