"""What a command hands back, to Python and to the command line alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Self

from gradcli.errors import ExitCode, UsageError, did_you_mean
from gradcli.frozen import frozen
from gradcli.results.declared import data_of
from gradcli.results.envelope import engine_that_ran, envelope
from gradcli.results.model import Deferred, Report, plain
from gradcli.results.run import judged_words

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from gradcli.results.pictures import Gallery, Picture

    Array = np.ndarray[Any, Any]


def check_picture(name: str | None, known: Sequence[str], command: str) -> None:
    """Check that a command has a picture.

    Args:
        name: as it is asked for; None for the first. known: the names of those that there are.

    Raises:
        UsageError: it has not.
    """
    if not known:
        raise UsageError(f"gradcli {command} has no pictures")
    if name is not None and name not in known:
        raise UsageError(
            f"--picture: no picture of 'gradcli {command}' is called {name!r}; known: {', '.join(known)}"
            f"{did_you_mean(name, known)}"
        )


@frozen(kw_only=True, repr=False, eq=False)
class Result:
    """The outcome of a command. Its attributes are the keys of the JSON, each documented where it is declared.

    Args:
        shown: what a person reads.
        arrays: what `save` writes into an .npz file; empty unless the run was recorded.
        gallery: gives what `plot` can draw.
    """

    command: ClassVar[str]
    runs_engine: ClassVar[bool] = False

    shown: Report
    arrays: Mapping[str, Array] = field(default_factory=dict)
    gallery: Callable[[], Gallery] = dict

    def with_gallery(self, gallery: Callable[[], Gallery]) -> Self:
        """Return the result with what `plot` can draw, which is looked up when it is asked for."""
        return replace(self, gallery=gallery)

    @property
    def pictures(self) -> Sequence[str]:
        """The names of the pictures that `plot` can draw."""
        return list(self.gallery())

    @property
    def report(self) -> Report:
        """The outcome as a format takes it."""
        return replace(self.shown, data=Deferred(self._document))

    @property
    def verdicts(self) -> Sequence[tuple[str, str]]:
        """The label and the kind of verdict of each run that was judged."""
        runs: Sequence[Any] = getattr(self, "runs", ())
        return [(run.label, run.verdict.kind) for run in runs if getattr(run, "verdict", None) is not None]

    @property
    def exit_code(self) -> ExitCode:
        """What the command returns; of a command that tests, whether all is as it should be."""
        return ExitCode.DONE

    def to_dict(self) -> dict[str, Any]:
        """Return the document that ``--format json`` prints, as dicts, lists, numbers, texts and None."""
        found: dict[str, Any] = plain(self._document())
        return found

    def _document(self) -> Mapping[str, Any]:
        """Return the same with long lists as the arrays that they are."""
        return envelope(self.command, engine_that_ran() if self.runs_engine else None) | self._keys()

    def _keys(self) -> dict[str, Any]:
        found: dict[str, Any] = data_of(self)
        return found

    def to_text(self, *, width: int | None = 80, full: bool = False, format: str = "table") -> str:  # noqa: A002
        """Return what the command prints.

        Args:
            width: columns of the screen; None for no limit.
            full: everything that was measured, not just what it comes to.
            format: table, json, csv or markdown; latex for the formulas of `paths`; junit or github for `check`.

        Raises:
            UsageError: the result has no such format.
        """
        from gradcli.formats import render

        report = self.report.in_full() if full else self.report
        return render(report, format, width=width, color=False, unicode=True)

    def save(self, file: str | PathLike[str]) -> None:
        """Write the result to a file, by its ending: .json, .csv, .md, .txt; .npz for the arrays; or that of a picture.

        Raises:
            UsageError: another ending, arrays of a run that was not recorded, or matplotlib is not installed.
            OutputError: the file cannot be written.
        """
        from gradcli.formats.saving import save

        save(self, file)

    def picture(self, name: str | None = None) -> Picture:
        """Return a picture as data: axes, series, words. Its name is one of `pictures`; the first unless given.

        Raises:
            UsageError: there is no such picture.
        """
        gallery = self.gallery()
        check_picture(name, list(gallery), self.command)
        return gallery[next(iter(gallery)) if name is None else name]()

    def plot(self, file: str | PathLike[str] | None = None, *, picture: str | None = None) -> Figure:
        """Return a picture as matplotlib's `Figure`, and write it to a file where one is given.

        Args:
            file: its ending says what is written: .svg, .png or .pdf.
            picture: which one; see `picture`.

        Raises:
            UsageError: another ending or picture, or matplotlib is not installed. OutputError: it cannot be written.
        """
        from gradcli.formats.drawing import plot

        return plot(self, file, picture)

    def to_chart(self, *, width: int | None = 80, picture: str | None = None, unicode: bool = True) -> str:
        """Return a picture as a chart of characters.

        Args:
            width: columns of the screen. picture: which one; see `picture`. unicode: whether characters may be others
                than ASCII.

        Raises:
            UsageError: there is no such picture.
        """
        from gradcli.formats.chart import chart_lines

        lines = chart_lines(self.picture(picture), width=width, color=False, unicode=unicode)
        return "".join(f"{line}\n" for line in lines)

    def save_arrays(self, file: BinaryIO) -> None:
        """Write the arrays of the run as .npz.

        Raises:
            UsageError: the run was not recorded.
        """
        import numpy as np

        if not self.arrays:
            raise UsageError("there are no arrays to save: give record=True to the call that makes the run")
        arrays: dict[str, Any] = dict(self.arrays)
        np.savez(file, **arrays)

    def __repr__(self) -> str:
        runs: Sequence[Any] = getattr(self, "runs", ())
        words = "; ".join(judged_words(run.label, getattr(run, "verdict", None)) for run in runs)
        return f"<{type(self).__name__}{words and ' '}{words}>"

    def __str__(self) -> str:
        return self.to_text()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy has, in this process or another: all but what pictures by a run would need."""
        from gradcli.results.pictures import kept

        return self.__dict__ | {"gallery": partial(dict, kept(self.gallery()))}

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """Return how a notebook shows the result: see IPython's `_repr_mimebundle_`."""
        from gradcli.formats.notebook import bundle

        return bundle(self)


@frozen(kw_only=True, repr=False, eq=False)
class OneRun(Result):
    """The outcome of a command for one spec: that run, which is the only one in ``runs`` of the JSON."""

    runs_engine = True

    @property
    def runs(self) -> Sequence[Self]:
        """The run itself, as the JSON lists it."""
        return (self,)

    def _keys(self) -> dict[str, Any]:
        return {"runs": [data_of(self)]}


@frozen
class Text:
    """The outcome of a command that is a text: a spec, a schema."""

    text: str

    def __str__(self) -> str:
        return self.text


@frozen
class Html(Text):
    """The outcome of a command that is a page: one whole HTML document."""

    @property
    def html(self) -> str:
        """The document."""
        return self.text

    def __repr__(self) -> str:
        return f"<a page of {len(self.text):,} characters; save it with .save(FILE.html)>"

    def save(self, file: str | PathLike[str]) -> None:
        """Write the page to a file.

        Raises:
            OutputError: the file cannot be written.
        """
        from pathlib import Path

        from gradcli.output_files import replacing

        with replacing(Path(file)) as written:
            written.write(self.text.encode())
