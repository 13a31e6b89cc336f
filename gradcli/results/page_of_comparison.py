"""The page of a comparison: which cell reaches farthest, all curves in one picture, then each cell on its own."""

from __future__ import annotations

from collections.abc import Sequence

from gradcli.results.arms import common_words
from gradcli.results.compare import farthest, rank, summary_table
from gradcli.results.model import Block, Line, Report, Table
from gradcli.results.page import Content, Folded, Page, Section
from gradcli.results.page_of_run import RunFindings, code_of_remedies, equations, spec_content, why, without
from gradcli.results.pictures_of_run import comparison_picture
from gradcli.results.remedies import remedy_table
from gradcli.results.simulate import describe, verdict_lines
from gradcli.results.versions import versions_table


def comparison_page(report: Report, arms: Sequence[RunFindings]) -> Page:
    """Return the page of several runs.

    Args:
        report: that of `gradcli compare` on them.
    """
    measured = [arm.measured for arm in arms]
    ranking = rank(measured)
    told: list[Block] = [Line(farthest(ranking), style="title"), summary_table(ranking)]
    rest = [block for group in report.in_full().blocks for block in group if block not in told]
    tables = [Folded(table.title, [table]) for table in rest if isinstance(table, Table)]
    lead: list[Content] = [
        *told,
        without(common_words(measured), comparison_picture(measured)),
        *(block for block in rest if not isinstance(block, Table)),
    ]
    by_label = {arm.measured.label: arm for arm in arms}
    cells = [Section(run.label, _cell(by_label[run.label])) for run in ranking]
    sections = [Section("Cell by cell", cells), Section("In numbers", tables), Section("Versions", [versions_table()])]
    title = " and ".join(filter(None, (", ".join(run.label for run in measured[:-1]), measured[-1].label)))
    return Page(f"{title} compared", lead, [section for section in sections if section.content])


def _cell(found: RunFindings) -> list[Content]:
    measured = found.measured
    remedies = code_of_remedies(found.remedies, measured.network.spec.seq_len)
    return [
        *verdict_lines(measured.verdict),
        Line(describe(measured.network), style="dim"),
        *why(found),
        *remedy_table(found.remedies, measured.network.spec.seq_len),
        *([Folded("the lines that apply what would help", remedies)] if remedies else []),
        Folded("equations", equations(measured.network)),
        Folded("the spec", spec_content(measured.network)),
    ]
