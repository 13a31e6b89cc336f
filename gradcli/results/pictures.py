"""Pictures of what a command found, as data: axes, series, thresholds, words. No drawing, size or colour here.

As `gradcli.results.model` has tables without a format, so that `gradcli.formats.figure`, `gradcli.formats.chart` and
the page draw any of them and know no diagnostic.

In every array -inf is the logarithm of an exact zero and NaN a number that is missing; neither is ever drawn as if it
were a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from gradcli.errors import UsageError
from gradcli.frozen import frozen

Array = np.ndarray[Any, Any]

#: What a series is, from which a format takes its line: the mean of the norms, the median beside it, one of several
#: equals, what is compared with them (all losses, the unclipped curve), a proven bound, single points.
Role = Literal["mean", "median", "other", "reference", "bound", "points"]


@frozen
class Axis:
    """What is along an axis: "distance", in "steps"; `log10` where the numbers are logarithms already."""

    label: str
    unit: str = ""
    log10: bool = False

    @property
    def text(self) -> str:
        """The axis in words.

        >>> Axis("gradient norm", log10=True).text, Axis("distance", "steps back").text
        ('log10 gradient norm', 'distance, steps back')
        """
        return ("log10 " if self.log10 else "") + self.label + (f", {self.unit}" if self.unit else "")


@frozen
class Series:
    """One curve: y against x, (n,) each, x ascending; `low` and `high`, (n,), bound a band around it, named `band`.

    note: what there is to say of it beside its label: its verdict, where each has its own.
    """

    label: str
    x: Array
    y: Array
    role: Role = "other"
    low: Array | None = None
    high: Array | None = None
    band: str = ""
    note: str = ""


@frozen
class Level:
    """A value of the vertical axis that means something: a threshold."""

    value: float
    label: str


@frozen
class Mark:
    """A place on the horizontal axis that means something: the horizon, where exact zeros begin."""

    position: float
    label: str


@frozen
class LineChart:
    """Curves over one axis.

    name: how the command line asks for it ("curve"). title: the verdict in it. subtitle: what was run.
    description: one or two sentences for who cannot see the picture.
    """

    name: str
    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    levels: Sequence[Level] = ()
    marks: Sequence[Mark] = ()
    subtitle: str = ""
    description: str = ""


@frozen
class HeatMap:
    """A number for each place of a grid.

    columns, rows: the places on the axes x and y, (m,) and (n,), ascending. values: (n, m); NaN where there is nothing.
    scale: what the values are. The rest as for `LineChart`.
    """

    name: str
    title: str
    x: Axis
    y: Axis
    scale: Axis
    columns: Array
    rows: Array
    values: Array
    subtitle: str = ""
    description: str = ""


@frozen
class Bar:
    """One row of a bar chart: a number for each of its parts, None where there is none; `group` heads its rows."""

    label: str
    values: Sequence[float | None]
    group: str = ""


@frozen
class BarChart:
    """Numbers with names, in rows from top to bottom.

    parts: what the numbers of each row are ("before", "after"); one may have no name. Where the axis has logarithms,
    a length from 0 would mean nothing, and the numbers are points.
    """

    name: str
    title: str
    x: Axis
    parts: Sequence[str]
    bars: Sequence[Bar]
    levels: Sequence[Level] = ()
    subtitle: str = ""
    description: str = ""


Picture = LineChart | HeatMap | BarChart


@frozen
class ByRun:
    """Makes a picture that takes a run of its own."""

    make: Callable[[], Picture]

    def __call__(self) -> Picture:
        return self.make()


@frozen
class Made:
    """Gives a picture that has been made."""

    picture: Picture

    def __call__(self) -> Picture:
        return self.picture


@frozen
class NotKept:
    """Stands for a picture that takes a run of its own, in a copy of a result that cannot run any more."""

    name: str

    def __call__(self) -> Picture:
        raise UsageError(
            f"the picture {self.name!r} takes a run of its own, for which a copy of a result has not kept all; draw it"
            " from the result itself"
        )


#: The pictures of a result by name, each made when it is asked for; the first one unless another is.
Gallery = Mapping[str, Callable[[], Picture]]


def kept(gallery: Gallery) -> Gallery:
    """Return the pictures as data, which can be copied and sent to another process; those by a run are not kept."""
    return {
        name: NotKept(name) if isinstance(make, ByRun | NotKept) else Made(make()) for name, make in gallery.items()
    }
