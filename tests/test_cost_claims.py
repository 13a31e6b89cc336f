"""What docs/cost.md and docs/contributions.md say in words about time and memory is what benchmarks/RESULTS.md has."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from benchmarks_path import ROOT  # before benchmarks

from benchmarks.cost_page import rows_of_section

RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")


def text_of(page: str) -> str:
    return " ".join((ROOT / "docs" / page).read_text(encoding="utf-8").split())


COST = text_of("cost.md")
FRAMEWORKS = "Against PyTorch, JAX and the matrix products alone, float64"
COMPILED, NUMPY = "compiled: ratio [quartiles]", "NumPy: ratio [quartiles]"
ONE, LONG, MANY = r"\w+ 1,(32,100|64,1000)", r"\w+ 1,32,10000", r"lstm (32,128,200|32,256,1000|64,512,200)"
NORMS, BOTH = ": norms", ": norms and parameter gradients"
LOOP, GRAD, FUSED, JAX = "torch cell loop", r"torch grad\(L", "torch fused layer", "JAX, compiled"
SCRIPT = "a PyTorch script"
#: A number of the page is a rounded one, within this share; its ranges begin and end at what was measured.
ROUNDED = 0.07


def ratios(section: str, ours: str, against: str, column: str = COMPILED) -> list[float]:
    """Return the ratios in the rows of a section whose first two columns match."""
    return [
        float(row[column].split()[0].replace(",", ""))
        for row in rows_of_section(RESULTS, f"## {section}")
        if re.fullmatch(ours, row["ours"]) and re.match(against, row["against"])
    ]


def shares(*arguments: str) -> list[float]:
    """Return ours / theirs, of ratios that are theirs / ours, in percent."""
    return [100 / ratio for ratio in ratios(*arguments)]


def more(*arguments: str) -> list[float]:
    """Return what shares of theirs are above 1, in percent."""
    return [100 * (ratio - 1) for ratio in ratios(*arguments)]


def in_frameworks(*arguments: str) -> list[float]:
    return ratios(FRAMEWORKS, *arguments)


def compile_seconds() -> list[float]:
    rows = rows_of_section(RESULTS, "## Preparation")
    return [
        float(row["seconds"])
        for row in rows
        if row["once, before the first run"] == JAX and row["case"].endswith("float64")
    ]


def long_against_short() -> list[float]:
    """Return how much more expensive a step of a million is than one of 10,000."""
    (text,) = (
        row["against"]
        for row in rows_of_section(RESULTS, f"## {LONG_RUNS}")
        if row["ours"] == "exponent of T in the time"
    )
    seconds = {int(steps.replace(",", "")): float(s) for steps, s in re.findall(r"([\d,]+): ([\d.]+) s", text)}
    return [seconds[1_000_000] / seconds[10_000] / 100]


def mebibytes_beside_the_norms() -> list[float]:
    (row,) = (row for row in rows_of_section(RESULTS, f"## {LONG_RUNS}") if row["ours"] == "T = 1,000,000: peak memory")
    (norms,) = re.findall(r"of it ([\d.]+) MiB the curves", row["against"])
    return [float(row["compiled, median"].split()[0]) - float(norms)]


LONG_RUNS = "Long sequences: LSTM, hidden size 32, batch 1, drawn input"
DRAWS = "64 draws of the weights at once, in single runs"
FLOAT32 = "Against PyTorch, JAX and the matrix products alone, float32"
DIAGNOSTICS = "Diagnostics against the engine's time of `simulate`"
COMMANDS = "The whole command against a script"
OURS = "ours: norms"
#: What the page says, with N for a number, two of them for a range; and where the numbers come from.
CLAIMS: list[tuple[str, Callable[[], list[float]]]] = [
    (
        r"retain_grad\(\)`, [^.]* takes N to N times as long with one",
        lambda: in_frameworks(ONE + NORMS, LOOP),
    ),
    (r"\(N times over 10,000 steps, where its graph", lambda: in_frameworks(LONG + NORMS, LOOP)),
    (r"graph grows\), and N to N times with batches", lambda: in_frameworks(MANY + NORMS, LOOP)),
    (r"with them, gradcli is N to N times faster", lambda: in_frameworks(ONE + BOTH, LOOP)),
    (r"times faster, and N to N times at such", lambda: in_frameworks(MANY + BOTH, LOOP)),
    (r"grad\(loss, hs\)`\*\* takes N to N times", lambda: in_frameworks(ONE + NORMS, GRAD)),
    (r"one sequence, and N to N times from a batch", lambda: in_frameworks(MANY + NORMS, GRAD)),
    (r"gradients alone, they take N to N times", lambda: in_frameworks(ONE + BOTH, FUSED)),
    (r"one sequence, and N to N times in large", lambda: in_frameworks(MANY + BOTH, FUSED)),
    (r"sequence takes N to N times as long", lambda: ratios(FLOAT32, rf"lstm 1,\d+,\d+{BOTH}", FUSED)),
    (r"JAX\*\*, compiled, takes N to N times", lambda: in_frameworks(r"\w+ 1,32,100" + NORMS, JAX)),
    (r"RNN, and N to N times over 1,000", lambda: in_frameworks(r"\w+ 1,64,1000" + NORMS, JAX)),
    (r"has compiled for N to N seconds", compile_seconds),
    (r"large batches it takes N to N times as", lambda: in_frameworks(MANY + NORMS, JAX)),
    (r"command\*\* takes N to N % of the time", lambda: shares(COMMANDS, r".* -T 100\b.*wall time", SCRIPT)),
    (
        r"PyTorch, and N to N % of its memory",
        lambda: [100 * share for share in ratios(COMMANDS, r".* -T 100\b.*peak memory", SCRIPT)],
    ),
    (r"NumPy engine, a loop [^.]* takes N to N times", lambda: in_frameworks(ONE + NORMS, LOOP, NUMPY)),
    (r"one sequence and N to N times in batches", lambda: in_frameworks(MANY + NORMS, LOOP, NUMPY)),
    (r"`torch.autograd.grad` takes N to N times", lambda: in_frameworks(MANY + NORMS, GRAD, NUMPY)),
    (
        r"makes gradcli N to N times faster",
        lambda: ratios("float32 against float64", MANY + ".*", "in float64"),
    ),
    (r"it is N to N times as fast", lambda: ratios("float32 against float64", r"\w+ 1,.*", "in float64")),
    (r"gradients\*\* add N to N % with the", lambda: more(FRAMEWORKS, ".*" + BOTH, OURS)),
    (r"engine, and N to N % with NumPy's", lambda: more(FRAMEWORKS, ".*" + BOTH, OURS, NUMPY)),
    (r"take about as long as N runs of one", lambda: ratios(DRAWS, "lstm.*", "one draw")),
    (r"not 64, and as N with the NumPy", lambda: ratios(DRAWS, "lstm.*", "one draw", NUMPY)),
    (r"long run is about N times as expensive", long_against_short),
    (r"need about N MiB for the engine", mebibytes_beside_the_norms),
]


def numbers_of(pattern: str) -> list[float]:
    """Return the numbers that stand where a pattern has N, in the one place that it is found at."""
    (found,) = re.finditer(pattern.replace(" N ", r" ([\d.]+) ").replace("(N ", r"(([\d.]+) "), COST)
    return [float(number) for number in found.groups()]


@pytest.mark.parametrize(("pattern", "measured"), CLAIMS, ids=[pattern for pattern, _ in CLAIMS])
def test_the_page_says_what_was_measured(pattern: str, measured: Callable[[], list[float]]) -> None:
    stated, found = numbers_of(pattern), measured()
    assert found
    assert len(stated) == 2 or max(found) == min(found)
    assert [stated[0], stated[-1]] == pytest.approx(
        [min(found), max(found)], rel=ROUNDED, abs=0.5 if max(found) > 30 else 0
    )


@pytest.mark.parametrize(("column", "words"), [(COMPILED, "about four times"), (NUMPY, "two and a half times")])
def test_the_page_says_what_contributions_cost(column: str, words: str) -> None:
    number = {"about four times": 4.0, "two and a half times": 2.5}[words]
    assert words in text_of("contributions.md").partition("## What it costs")[2]
    assert ratios(DIAGNOSTICS, "contributions .*", "simulate", column) == pytest.approx([number] * 2, rel=0.1)
