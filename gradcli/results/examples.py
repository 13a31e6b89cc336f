"""The list of the example specs as a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from gradcli.diagnostics.verdict_words import KIND_WORDS
from gradcli.frozen import frozen
from gradcli.results.declared import key, records_of, table_of
from gradcli.results.model import Line, Report
from gradcli.results.result import Result
from gradcli.spec.examples import examples
from gradcli.spec.verdict_kinds import VerdictKind

_KINDS = {word.upper(): kind for kind, word in KIND_WORDS.items()}


def _first_word(kind: str) -> str:
    """Return the first word of a kind, which is enough where it stands in a column: reaches."""
    return KIND_WORDS[cast(VerdictKind, kind)].split()[0]


@frozen(kw_only=True)
class ListedExample:
    """An example in the list."""

    name: str = key("its name", title="name", text=True, keep=9)
    verdict: str = key("the kind of its verdict", title="verdict", written=_first_word, text=True, keep=8)
    title: str = key("what it shows", title="shows", text=True, keep=9)


@frozen(kw_only=True, repr=False)
class ExampleList(Result):
    """The example specs."""

    command = "examples"

    examples: Sequence[ListedExample] = key("the examples by name")


def example_list() -> ExampleList:
    """Return the list of all examples."""
    listed = [ListedExample(name=each.name, verdict=_KINDS[each.verdict], title=each.title) for each in examples()]
    hint = Line("gradcli examples NAME -o my.yaml writes one of them, to run as it is and to change", style="dim")
    shown = Report("examples", [table_of(ListedExample, listed), [hint]], records=records_of(ListedExample, listed))
    return ExampleList(examples=listed, shown=shown)
