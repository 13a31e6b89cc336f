"""A result in a file, whose ending says in which form."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from gradcli.errors import UsageError, did_you_mean
from gradcli.formats import FORMAT_OF_ENDING, PICTURE_ENDINGS, render_pieces
from gradcli.formats.drawing import write_picture
from gradcli.output_files import replacing
from gradcli.results.result import Result

_ARRAYS = ".npz"


def save(result: Result, file: str | PathLike[str]) -> None:
    """Write a result to a file; see `gradcli.results.result.Result.save`."""
    path = Path(file)
    endings = [*FORMAT_OF_ENDING, _ARRAYS, *PICTURE_ENDINGS]
    if path.suffix.lower() not in endings:
        raise UsageError(
            f"{path}: the ending says what is written: {', '.join(endings)}{did_you_mean(path.suffix, endings)}"
        )
    if path.suffix.lower() in PICTURE_ENDINGS:
        write_picture(result.picture(), path)
        return
    with replacing(path) as written:
        if path.suffix.lower() == _ARRAYS:
            result.save_arrays(written)
            return
        name = FORMAT_OF_ENDING[path.suffix.lower()]
        for piece in render_pieces(result.report.in_full(), name, width=None, color=False, unicode=True):
            written.write(piece.encode("utf-8", "backslashreplace"))
