"""The page of one run: the verdict and its picture, why it is so, what would help, then all that the commands measure.

What stands there was made by the reports of the commands themselves; here is only its order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field, replace
from typing import TypeVar

from gradcli.diagnostics.contributions import Contributions
from gradcli.diagnostics.gates import Gates
from gradcli.diagnostics.gradient_matrix import GradientMatrix
from gradcli.diagnostics.layer_jacobian import JacobianFindings
from gradcli.diagnostics.measure import Measured
from gradcli.diagnostics.paths import Paths
from gradcli.diagnostics.remedies import Remedies, Remedy
from gradcli.diagnostics.remedy_code import FRAMEWORKS, one_a_line
from gradcli.diagnostics.verdict_words import KIND_WORDS
from gradcli.diagnostics.weights import Inspection
from gradcli.frozen import frozen
from gradcli.language.formula import step_jacobian
from gradcli.language.notation import Text
from gradcli.language.routes import PathGraph
from gradcli.prepare.build import Network
from gradcli.results.clipping import clip_blocks
from gradcli.results.contributions import contributions_of_layer
from gradcli.results.directions import direction_hint
from gradcli.results.float32 import float32_lines
from gradcli.results.formulas import equation_formulas, jacobian_formulas
from gradcli.results.gates import cause_lines, gates_of_layer
from gradcli.results.inspect_report import contents_of
from gradcli.results.jacobian_report import jacobian_of_layer
from gradcli.results.model import Block, Line, Report, Table, Verbatim
from gradcli.results.page import Content, Folded, Page, Section
from gradcli.results.paths_report import direct_lines, jacobian_tables, paths_of_layer
from gradcli.results.pictures import BarChart, HeatMap, LineChart, Picture
from gradcli.results.pictures_of_contributions import contributions_picture, truncation_picture
from gradcli.results.pictures_of_gates import gates_picture, rates_picture
from gradcli.results.pictures_of_jacobian import singular_values_picture
from gradcli.results.pictures_of_paths import routes_picture
from gradcli.results.pictures_of_run import clip_picture, curve_picture, matrix_picture, run_words, states_picture
from gradcli.results.remedies import effect, next_line, remedy_options, remedy_table
from gradcli.results.result import Result
from gradcli.results.run import resolved_spec
from gradcli.results.simulate import describe, note_lines, simulation, verdict_lines
from gradcli.results.versions import versions_table

#: Of the resolved spec, which may hold matrices, a page shows so many characters.
_LONGEST_SPEC = 40_000
_TEXT = "tag:yaml.org,2002:str"  # as YAML calls it

_Seen = TypeVar("_Seen")


@frozen
class RunFindings:
    """All that was found of one run; None for what this network has no answer to.

    refused: the sentences that say why something has none.
    """

    measured: Measured
    remedies: Remedies
    gates: Gates | None = None
    paths: Paths | None = None
    jacobian: JacobianFindings | None = None
    contributions: Contributions | None = None
    matrix: GradientMatrix | None = None
    inspection: Inspection | None = None
    refused: Sequence[str] = field(default_factory=list)


class _Told:
    """The blocks that the page has already: what every command repeats, such as the verdict, it says once."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []

    def now(self, blocks: Sequence[Block]) -> list[Block]:
        """Return some blocks, and keep that they are told."""
        self._blocks += blocks
        return list(blocks)

    def rest(self, report: Report) -> list[Block]:
        """Return what of a report is not told yet."""
        found = [block for group in report.in_full().blocks for block in group]
        return self.now([block for block in found if block not in self._blocks])


def run_page(found: RunFindings) -> Page:
    """Return the page of one run."""
    measured, told = found.measured, _Told()
    network = measured.network
    told.now([Line(describe(network), measured.label, "title"), *next_line(measured)])
    if found.paths is not None:  # these are among the equations, set as mathematics
        told.now([block for group in jacobian_tables(step_jacobian(found.paths.graph, Text())) for block in group])
    lead: list[Content] = [
        *told.now([*verdict_lines(measured.verdict), *float32_lines(measured.float32)]),
        *_drawn([curve_picture(measured)], network),
        *told.now([Line(describe(network), style="dim"), *note_lines(network)]),
    ]
    sections = [
        Section("The checkpoint", _about(found.inspection, contents_of, (), told, network)),
        Section("Why", told.now(why(found))),
        Section("What would help", _remedies(found, told)),
        Section("What clipping would do", _clipping(measured, told)),
        Section("The states", _drawn([states_picture(measured)] if len(measured.states) > 1 else [], network)),
        Section("Directions", _about(found.jacobian, jacobian_of_layer, [singular_values_picture], told, network)),
        Section(
            "Where the parameters' gradient comes from",
            _about(
                found.contributions, contributions_of_layer, [contributions_picture, truncation_picture], told, network
            ),
        ),
        Section(
            "Gates and activations", _about(found.gates, gates_of_layer, [gates_picture, rates_picture], told, network)
        ),
        Section("Routes through the cell", _about(found.paths, paths_of_layer, [routes_picture], told, network)),
        Section("From every step to every step", _matrix(found)),
        Section("The run in numbers", _about(measured, simulation, (), told, network)),
        Section("Equations", equations(network)),
        Section("The spec", spec_content(network)),
        Section("Left out", [Line(text) for text in found.refused]),
        Section("Versions", [versions_table()]),
    ]
    title = f"{measured.label}: {KIND_WORDS[measured.verdict.kind]}"
    return Page(title, lead, [section for section in sections if section.content])


def code_of_remedies(remedies: Remedies, seq_len: int) -> list[Section]:
    """Return the remedies that were run and helped, each with what it does and the lines that apply it."""
    return [_remedy(remedy, seq_len) for remedy in remedies.found]


def _remedy(remedy: Remedy, seq_len: int) -> Section:
    code: list[Content] = []
    for framework, lines in remedy.edit.code.items():
        code += [Line(FRAMEWORKS[framework], style="title"), Verbatim(one_a_line(lines))]
    return Section(remedy_options(remedy), [Line(effect(remedy, seq_len)), *code])


def equations(network: Network) -> list[Content]:
    """Return the cell's equations, the Jacobian of one step, and where the cell comes from."""
    cell = network.problem.plans[network.problem.top].cell
    block = network.loaded.cell
    about = (("reference", block.reference), ("notes", block.notes))
    return [
        equation_formulas(cell),
        *[Line(text, label, "dim") for label, text in about if text],
        *jacobian_formulas(PathGraph(cell)),
    ]


def spec_content(network: Network) -> list[Content]:
    """Return the spec with every default filled in, as YAML: read again, it gives the same run."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes equations line by line, as a spec does."""

    Dumper.add_representer(
        str, lambda dumper, text: dumper.represent_scalar(_TEXT, text, style="|" if "\n" in text else None)
    )
    text = yaml.dump(
        dict(resolved_spec(network)),
        Dumper=Dumper,
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
        width=100,
    )
    if len(text) <= _LONGEST_SPEC:
        return [Verbatim(text)]
    shown = text[: text.rindex("\n", 0, _LONGEST_SPEC)]
    left_out = text.count("\n") - shown.count("\n") - 1
    return [Verbatim(shown), Line(f"and {left_out:,} lines more, in the JSON of gradcli simulate", style="dim")]


def _remedies(found: RunFindings, told: _Told) -> list[Content]:
    remedies, seq_len = found.remedies, found.measured.network.spec.seq_len
    hint = told.now(direction_hint(found.measured))
    return [*remedy_table(remedies, seq_len), *hint, *code_of_remedies(remedies, seq_len)]


def why(found: RunFindings) -> list[Block]:
    """Return the main cause, and whether direct routes carry the gradient."""
    blocks: list[Block] = []
    if found.gates is not None:
        blocks += cause_lines(found.gates)
    if found.paths is not None:
        blocks += direct_lines(found.paths)
    return blocks


def _clipping(measured: Measured, told: _Told) -> list[Content]:
    inside = any(clipped.curve is not None for clipped in measured.clipped)
    return [*told.now(clip_blocks(measured)), *_drawn([clip_picture(measured)] if inside else [], measured.network)]


def _matrix(found: RunFindings) -> list[Content]:
    return (
        [] if found.matrix is None else _drawn([matrix_picture(found.measured, found.matrix)], found.measured.network)
    )


def _about(
    seen: _Seen | None,
    result: Callable[[_Seen], Result],
    pictures: Sequence[Callable[[_Seen], Picture]],
    told: _Told,
    network: Network,
) -> list[Content]:
    """Return what of a report is not told yet: sentences, then pictures, and the tables folded."""
    if seen is None:
        return []
    blocks = told.rest(result(seen).shown)
    tables = [block for block in blocks if isinstance(block, Table)]
    lines = [block for block in blocks if not isinstance(block, Table)]
    return [
        *lines,
        *_drawn([picture(seen) for picture in pictures], network),
        *(Folded(_summary(table), [table]) for table in tables),
    ]


def _drawn(pictures: Sequence[Picture], network: Network) -> list[Content]:
    """Return the pictures in which there is something, without the sizes of the run, which the page tells once."""
    return [without(run_words(network), picture) for picture in pictures if _has_content(picture)]


def without(words: str, picture: Picture) -> Picture:
    """Return a picture whose subtitle does not say what the page says already."""
    return replace(picture, subtitle="; ".join(part for part in picture.subtitle.split("; ") if part != words))


def _has_content(picture: Picture) -> bool:
    match picture:
        case LineChart():
            return len(picture.series) > 0
        case HeatMap():
            return picture.values.size > 0
        case BarChart():
            return len(picture.bars) > 0


def _summary(table: Table) -> str:
    """Return what a table is about, for who has not opened it: its title, else its first columns."""
    first, *others = [column.name for column in table.columns if column.name]
    return table.title or f"By {first}: {', '.join(others)}"
