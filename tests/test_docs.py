"""The documentation is what the program does: every snippet runs, and every table agrees with those of the code."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doc_snippets import PAGES, ROOT, SHORT, Block, Terminal, blocks_of, matches, measured_rates, walk

import gradcli
from gradcli import cells
from gradcli.errors import ExitCode
from gradcli.language.across import ACROSS, DEFAULT_EPS
from gradcli.language.functions import ELEMENTWISE, FUNCTIONS
from gradcli.results.check import PRECEDENCE
from gradcli.spec import yaml12
from gradcli.spec.base import alternatives_of
from gradcli.spec.checked import SpecModel
from gradcli.spec.expectations import Expect
from gradcli.spec.initialisers import Initialiser, InitialState
from gradcli.spec.losses import ClassTarget, Target
from gradcli.spec.models import CellBlock, Clip, Spec, Thresholds
from gradcli.spec.shown import flow
from gradcli.spec.trained import Weights
from gradcli.spec.value_readers import Field
from gradcli.spec.verdict_kinds import VERDICT_KINDS
from gradcli.weights.formats import endings

DOCS = ROOT / "docs"
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def rows_of(text: str) -> Iterator[list[str]]:
    """Yield the cells of every row of every table of a page."""
    for line in text.split("\n"):
        if line.startswith("|") and not line.startswith("|---"):
            yield [cell.replace(r"\|", "|").strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def section(text: str, title: str) -> str:
    """Return the part of a page under a heading."""
    return re.split(r"^## ", text.split(f"## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def named(text: str) -> dict[str, list[str]]:
    """Return the rows of tables by the name in backticks that opens them."""
    return {row[0].strip("`"): row for row in rows_of(text) if row[0].startswith("`")}


# Snippets.


@each_page
def test_commands_print_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    wrong = []
    for block, command, lines in walk(page, terminal := Terminal(tmp_path)):
        is_last = command.line == _last_line(block)
        wanted = block.last_exit_code if is_last else None
        succeeds = terminal.code == wanted if wanted is not None else terminal.code in (0, ExitCode.GATE)
        if command.shown and not matches(command.shown, lines):
            page_shows = f"the page shows:\n{_text(command.shown)}gradcli prints:\n{_text(lines)}"
            wrong.append(f"{command.place}: $ {command.line}\n{page_shows}")
        if command.line != "echo $?" and not succeeds and not _is_followed_by_code(block, command.line):
            wrong.append(f"{command.place}: $ {command.line}\nexit code {terminal.code}\n{_text(lines)}")
    assert not wrong, "\n\n".join([*wrong, "to take over what the program prints: python -m tests.doc_snippets"])


def _last_line(block: Block) -> str:
    return re.sub(r" *\\\n +", " ", block.text.rstrip("\n")).rsplit("$ ", 1)[1].split("\n")[0]


def _is_followed_by_code(block: Block, line: str) -> bool:
    return bool(re.search(re.escape(line) + r"(\n(?!\$ ).*)*\n\$ echo \$\?", block.text))


def _text(lines: tuple[str, ...]) -> str:
    return "".join(f"    {line}\n" for line in lines)


def _yaml_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page) if block.language == "yaml"]


@pytest.mark.parametrize("block", _yaml_blocks(), ids=lambda block: block.place)
def test_yaml_runs(block: Block, tmp_path: Path) -> None:
    assert not yaml12.read(block.text, block.place).mistakes
    if block.note == "not a spec" or block.note.endswith(("; refused", "; of another program")):
        return
    text = block.text
    if block.note.startswith("fragment of "):
        text = f"cell: {block.note.removeprefix('fragment of ')}\n{text}"
    terminal = Terminal(tmp_path)
    (terminal.folder / "snippet.yaml").write_text(text, encoding="utf-8")
    steps = min([SHORT, *map(int, re.findall(r"^seq_len: (\d+)", text, flags=re.MULTILINE))])
    lines = terminal.run(f"gradcli simulate snippet.yaml -T {steps}")
    assert terminal.code == 0, _text(lines)


@each_page
def test_shell_scripts_have_no_syntax_error(page: Path) -> None:
    for block in blocks_of(page):
        if block.language == "sh":
            subprocess.run(["sh", "-n"], input=block.text, encoding="utf-8", check=True)


@each_page
def test_every_block_is_of_a_known_kind(page: Path) -> None:
    file = r"file: \S+?(; refused|; of another program)?"
    notes = re.compile(rf"|exits with \d+|not run: .+|fragment of [\w-]+|{file}|not a spec")
    for block in blocks_of(page):
        assert block.language in ("console", "yaml", "python", "sh", "make"), block.place
        assert notes.fullmatch(block.note), f"{block.place}: {block.note}"
        assert block.language != "python" or block.file, f"{block.place}: a script needs a file to be run"


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.is_file(), f"{page.name}: {target}"
        assert not heading or heading in _anchors(file.read_text(encoding="utf-8")), f"{page.name}: {target}"


def _anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_a_page_names_no_place_of_one_machine(page: Path) -> None:
    assert not re.search(r"(?<![.\w])/(home|root|tmp|work|Users)/", page.read_text(encoding="utf-8"))


def test_the_readme_opens_with_the_problem_a_command_and_its_output() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").split("\n")
    to_copy, shown = blocks_of(ROOT / "README.md")[:2]
    assert to_copy.lines == ("pip install . && gradcli simulate examples/configs/lstm.yaml -T 100",)
    assert to_copy.start < 15
    assert shown.lines[0] == "$ gradcli simulate examples/configs/lstm.yaml -T 100"
    assert shown.start + len(shown.lines) < 55
    output = " ".join(shown.text.split())
    assert "below 1e-3 from 15 steps back" in output, "the sentence below the output says that 14 are reached"
    assert "at 100 steps 1.1e-20" in output, "the sentence below the output says so too"
    assert "pip install '.[dev]' && pytest" in lines


# docs/spec.md against the models.


def _bounds(field: Any) -> list[str]:
    """Return the bounds of a whole number as the page writes them."""
    limits = [limit for mark in field.metadata if isinstance(mark, Field) for limit in (mark.ge, mark.le)]
    return [f"{limit:,}" for limit in limits if isinstance(limit, int)] if field.annotation is int else []


def _check_table(rows: Mapping[str, list[str]], model: type[SpecModel], words: Mapping[str, str]) -> None:
    """Check that a table has a row for each field of a model, with its default and, of whole numbers, its bounds."""
    assert set(rows) == set(model.model_fields)
    for name, field in model.model_fields.items():
        _, kind, default, _ = rows[name]
        if name in words:
            assert default == words[name]
        elif field.is_required():
            assert default == "required", name
        elif field.get_default() is None:
            assert default == "none", name
        else:
            dumped = model.model_construct(**{name: field.get_default()}).model_dump(exclude_none=True)[name]
            assert default.strip("`") == flow(dumped), name
        for bound in _bounds(field):
            assert bound in kind, f"{name}: {bound}"


_DEFAULTS_IN_WORDS = {
    "activation": "the cell's",
    "initial_states": "zeros",
    "tied": "the cell's, else `true`",
    "input_at": "the cell's, else `every`, or `first` where `tied` is `false`",
}


def test_spec_page_has_every_field() -> None:
    rows = named(section(text_of("spec.md"), "Fields"))
    states = rows.pop("h_0`, `c_0`, ...")
    assert states[2] == "zeros"
    rows["initial_states"] = states
    _check_table(rows, Spec, _DEFAULTS_IN_WORDS)
    assert "initial_states: {h: zeros}" in text_of("spec.md")


def test_spec_page_has_every_field_of_a_cell() -> None:
    rows = named(section(text_of("spec.md"), "Cell block"))
    _check_table(rows, CellBlock, {"output": "`h`, else the first state"})


def test_spec_page_has_every_field_of_weights() -> None:
    _check_table(named(section(text_of("spec.md"), "Trained weights")), Weights, {"layer": "the only one"})


def test_weights_page_has_every_ending() -> None:
    rows = rows_of(section(text_of("weights.md"), "Files"))
    listed = {ending for row in rows for ending in re.findall(r"`(\.[\w.]+)`", row[0])}
    assert listed == {*endings(), ".weights.h5"} - {".hdf5"}


def test_spec_page_has_every_threshold() -> None:
    _check_table(named(section(text_of("spec.md"), "Thresholds")), Thresholds, {})


def test_spec_page_has_every_expectation() -> None:
    rows = named(section(text_of("spec.md"), "Expect"))
    _check_table(rows, Expect, {})
    for name, field in Expect.model_fields.items():
        assert (rows[name][1] == "comparison") == ("Comparison" in str(field.annotation)), name


def test_ci_page_has_every_exit_code_in_the_order_in_which_they_win() -> None:
    codes = [int(row[0]) for row in rows_of(section(text_of("ci.md"), "Exit codes")) if row[0].isdigit()]
    assert codes == [*PRECEDENCE, ExitCode.DONE]


def _check_arguments(model: type[SpecModel], text: str, leave_out: frozenset[str] = frozenset()) -> None:
    for name, field in model.model_fields.items():
        if name in leave_out:
            continue
        assert f"`{name}`" in text, f"{model.__name__}: {name}"
        default = field.get_default()
        if isinstance(default, float | str):
            assert f"`{name}` {default}" in text, f"{model.__name__}: {name}"


def test_spec_page_has_every_initialiser() -> None:
    rows = named(section(text_of("spec.md"), "Initialisers"))
    assert list(rows) == [kind.NAME for kind in alternatives_of(Initialiser)]
    for kind in alternatives_of(Initialiser):
        _check_arguments(kind, rows[kind.NAME][1])


def test_spec_page_has_every_initial_state() -> None:
    text = section(text_of("spec.md"), "Initial states")
    for kind in alternatives_of(InitialState):
        if kind.NAME != "values":
            assert flow(_full(kind)) in text, kind.NAME


def _full(kind: Any) -> Any:
    arguments = {name: field.get_default() for name, field in kind.model_fields.items()}
    return {kind.NAME: arguments} if arguments else kind.NAME


@pytest.mark.parametrize(("field", "title"), [("input", "Input"), ("loss", "Loss")])
def test_spec_page_has_every_input_and_loss(field: str, title: str) -> None:
    rows = named(section(text_of("spec.md"), title))
    kinds = _union(Spec.model_fields[field].annotation)
    by_kind = {kind.model_fields["kind"].annotation.__args__[0]: kind for kind in kinds}
    rows.pop("kind", None)
    assert list(rows) == list(by_kind)
    for name, kind in by_kind.items():
        _check_arguments(kind, rows[name][1], frozenset({"kind"}))


def _union(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", ())
    models = [a for a in inner if isinstance(a, type) and issubclass(a, SpecModel)]
    return models or [model for a in inner for model in _union(a)]


def test_spec_page_has_every_target_and_clipping_method() -> None:
    loss, clip = section(text_of("spec.md"), "Loss"), section(text_of("spec.md"), "Clip")
    for kind in (*alternatives_of(Target), *alternatives_of(ClassTarget)):
        assert kind.NAME in ("values", "classes") or f"`{kind.NAME}`" in loss, kind.NAME
    for kind in alternatives_of(Clip):
        assert f"`{{{kind.NAME}: " in clip, kind.NAME
        assert kind.NAME in named(section(text_of("numbers.md"), "Clipping"))


# The other pages against the tables of the code.


def test_cells_page_lists_every_built_in_cell() -> None:
    rows = named(text_of("cells.md"))
    assert sorted(rows) == sorted(cells.names())
    assert f"{len(cells.names())} built-in cells" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_equations_page_lists_every_function_with_its_largest_slope() -> None:
    text = section(text_of("equations.md"), "Functions")
    rows = named(text)
    assert tuple(rows) == ELEMENTWISE
    for name, row in rows.items():
        gamma = FUNCTIONS[name].gamma
        assert row[2] == ("none" if gamma is None else f"{gamma:.4g}"), name


def test_equations_page_lists_every_function_across() -> None:
    text = section(text_of("equations.md"), "Functions across entries or sequences")
    rows = named(text)
    assert tuple(rows) == tuple(ACROSS)
    for name, row in rows.items():
        assert ("sequences" in row[1]) == ACROSS[name].over_sequences, name
    assert f"eps is {DEFAULT_EPS:.0e}".replace("e-0", "e-") in " ".join(text.split())


def test_gates_page_has_the_largest_slopes() -> None:
    text = section(text_of("gates.md"), "The activations")
    rows = named(text)
    assert len(rows) >= 5
    for name, row in rows.items():
        assert row[1] == f"{FUNCTIONS[name].gamma:.4g}", name


def test_numbers_page_has_every_verdict() -> None:
    text = section(text_of("numbers.md"), "The verdict")
    assert set(VERDICT_KINDS) < set(named(text))
    assert {"exponential", "polynomial", "flat", "mixed"} < set(named(text))


def test_scripting_page_has_every_exit_code() -> None:
    codes = [int(row[0]) for row in rows_of(section(text_of("scripting.md"), "Exit codes")) if row[0].isdigit()]
    assert codes == sorted(ExitCode)


@pytest.mark.parametrize("options", ["lstm", "lstm --set loss.kind=cross_entropy", "rnn --set loss.kind=projection"])
def test_scripting_page_has_every_saved_array(options: str, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    lines = terminal.run(f"gradcli simulate {options} -T 5 --save run.npz --quiet")
    assert terminal.code == 0, _text(lines)
    listed = [
        re.sub(r"<\w+>", "*", name)
        for row in rows_of(section(text_of("scripting.md"), "Saved arrays"))
        for name in re.findall(r"`([^`]+)`", row[0])
    ]
    for array in np.load(terminal.folder / "run.npz").files:
        assert any(fnmatchcase(array, pattern) for pattern in listed), array


def _measured_rows() -> list[list[str]]:
    text = section(text_of("initialisation.md"), "What the frameworks' defaults give")
    return [row for row in rows_of(text) if len(row) == 5 and row[0].startswith("`")]


@pytest.mark.parametrize("row", _measured_rows(), ids=lambda row: "-".join(row[:2]).replace("`", ""))
def test_initialisation_page_gives_the_measured_rates(row: list[str]) -> None:
    assert tuple(row[3:]) == measured_rates(row[0].strip("`"), row[1].strip("`"))


def test_initialisation_page_gives_the_powers_of_the_forget_gate() -> None:
    rows = [row for row in rows_of(section(text_of("initialisation.md"), "The forget gate's bias")) if row[0].isdigit()]
    for bias, gate, half_life, power in rows:
        f = 1 / (1 + math.exp(-float(bias)))
        assert float(gate) == pytest.approx(f, rel=1e-3)
        assert float(half_life.split()[0]) == pytest.approx(-math.log(2) / math.log(f), rel=0.02)
        assert float(power) == pytest.approx(f**100, rel=0.02)


def test_the_changelog_names_the_version_that_is_being_made() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert gradcli.__version__.split(".dev")[0] in text
