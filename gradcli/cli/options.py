"""The options that commands share, each declared once, and the reading of those that hold more than one value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gradcli.cli.help import default
from gradcli.errors import UsageError, did_you_mean
from gradcli.formats import FORMATS, FORMULA_FORMATS
from gradcli.spec import defaults
from gradcli.spec.verdict_kinds import VERDICT_KINDS

_SPEC = "In place of the spec's values, which come before these defaults"
_OUTPUT = "What comes out"
_RESOURCES = "What it may take"
_DEFAULT_FORMAT = f"{FORMATS[0]}, or what the ending of FILE says"
_MOST_THREADS = 1024  # more than BLAS libraries are built for


def _of_spec(*names: str, does: str, value: object) -> Any:
    """Return an option for a field of the spec, whose default is `value`."""
    return typer.Option(*names, help=f"{does} {default(value)}", show_default=False, rich_help_panel=_SPEC)


def cell_names(incomplete: str) -> list[str]:
    """Return the built-in cells whose name may be meant; where there is none, shells go on to files."""
    from gradcli.cells import completions

    return completions(incomplete)


def _stdout_as_none(path: Path | None) -> Path | None:
    return None if path == Path("-") else path


def _known_format(name: str | None) -> str | None:
    if name in FORMULA_FORMATS:
        raise UsageError(f"--format: {name} is for formulas, which 'gradcli paths' derives; here: {', '.join(FORMATS)}")
    return _one_of(name, FORMATS)


def _known_formula_format(name: str | None) -> str | None:
    return _one_of(name, (*FORMATS, *FORMULA_FORMATS))


def _one_of(name: str | None, formats: Sequence[str]) -> str | None:
    if name is not None and name not in formats:
        raise UsageError(
            f"--format: no format is called {name!r}; known: {', '.join(formats)}{did_you_mean(name, formats)}"
        )
    return name


def _file_for_arrays(path: Path | None) -> Path | None:
    if path == Path("-"):
        raise UsageError("--save: arrays go to a file, and standard output carries the report; give the file a name")
    return path


def _memory_size(text: str) -> int:
    """Return a size in bytes: digits with a unit such as M, MB or MiB, all of them powers of 1024."""
    found = re.fullmatch(r"(\d{1,15}\.?\d{0,9}|\.\d{1,9})\s*([KMGT]?)(?:iB|B)?", text.strip(), re.IGNORECASE | re.ASCII)
    size = 0 if found is None else int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))
    if size < 1:
        raise UsageError(
            f"--max-memory: expected a size such as 500M, 2G or 1.5GiB (K, M, G and T are powers of 1024); got {text!r}"
        )
    return size


Target = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        help="A YAML file, '-' for standard input, the name of a built-in cell, or a checkpoint.",
        autocompletion=cell_names,
    ),
]
Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="SPEC...",
        help="YAML files, '-' for standard input, names of built-in cells, or checkpoints.",
        autocompletion=cell_names,
    ),
]
SeqLen = Annotated[int | None, _of_spec("-T", "--seq-len", does="Steps of each sequence.", value=defaults.SEQ_LEN)]
HiddenSize = Annotated[int | None, _of_spec("--hidden-size", does="Units of each state.", value=defaults.HIDDEN_SIZE)]
InputSize = Annotated[int | None, _of_spec("--input-size", does="Features of the input.", value=defaults.INPUT_SIZE)]
BatchSize = Annotated[int | None, _of_spec("--batch-size", does="Sequences in a trial.", value=defaults.BATCH_SIZE)]
Trials = Annotated[int | None, _of_spec("--trials", does="Draws of the weights.", value=defaults.TRIALS)]
Seed = Annotated[int | None, _of_spec("--seed", does="Seed of all that is drawn.", value=defaults.SEED)]
Clips = Annotated[
    list[str] | None,
    typer.Option(
        "--clip",
        metavar="METHOD=THRESHOLD",
        help=f"What clipping would do; may be given several times. {default(f'norm={defaults.CLIP_NORM:g}')}",
        show_default=False,
        rich_help_panel=_SPEC,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Any field of the spec, for example init.b_f=1; may be given several times.",
        show_default=False,
        rich_help_panel=_SPEC,
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        "--layer",
        metavar="LAYER",
        help="Which layer of a stack, its number or a name such as layer1; or which layer of a checkpoint.",
        show_default="the top one",
        rich_help_panel="What to look at",
    ),
]
CheckpointLayer = Annotated[
    str | None,
    typer.Option(
        "--layer",
        metavar="LAYER",
        help="Which recurrent layer of the checkpoint; 'gradcli inspect' lists them.",
        show_default="the only one",
        rich_help_panel=_SPEC,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="|".join(FORMATS),
        help="A table for people, JSON or CSV for programs, Markdown for notes.",
        callback=_known_format,
        show_default=_DEFAULT_FORMAT,
        autocompletion=lambda: list(FORMATS),
        rich_help_panel=_OUTPUT,
    ),
]
FormulaFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="|".join((*FORMATS, *FORMULA_FORMATS)),
        help="A table for people, JSON or CSV for programs, Markdown for notes; LaTeX: the formulas alone.",
        callback=_known_formula_format,
        show_default=_DEFAULT_FORMAT,
        autocompletion=lambda: [*FORMATS, *FORMULA_FORMATS],
        rich_help_panel=_OUTPUT,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write the result to this file instead of standard output; .json, .csv, .md and .txt say the format.",
        callback=_stdout_as_none,
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
Save = Annotated[
    Path | None,
    typer.Option(
        "--save",
        metavar="FILE.npz",
        help="Save the arrays that redo the run elsewhere: inputs, weights, states, gradients.",
        callback=_file_for_arrays,
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
FailOn = Annotated[
    str | None,
    typer.Option(
        "--fail-on",
        metavar="KIND,...",
        help=f"Exit with code 3 if a verdict is one of these: {', '.join(VERDICT_KINDS)}.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
Full = Annotated[
    bool,
    typer.Option("--full", help="Everything that was measured, not just what it comes to.", rich_help_panel=_OUTPUT),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="Nothing on standard error but errors and failed gates.", rich_help_panel=_OUTPUT),
]

MaxMemory = Annotated[
    int | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="Refuse a run that would need more, with exit code 5: 500M, 2G, 1.5GiB (powers of 1024).",
        parser=_memory_size,
        show_default="half of what is free",
        rich_help_panel=_RESOURCES,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        help="Threads for matrix products.",
        min=1,
        max=_MOST_THREADS,
        show_default="one, more for large products",
        rich_help_panel=_RESOURCES,
    ),
]


def given(*, clip: Sequence[str] | None = None, **options: object) -> Mapping[str, object]:
    """Return the options that the user gave, by the names of the spec's fields."""
    if clip:
        options["clip"] = [_clip(text) for text in clip]
    return {name: value for name, value in options.items() if value is not None}


def _clip(text: str) -> dict[str, float]:
    from gradcli.spec.base import alternatives_of
    from gradcli.spec.models import Clip

    methods = [method.NAME for method in alternatives_of(Clip)]
    method, equals, threshold = (part.strip() for part in text.partition("="))
    if not equals:
        raise UsageError(f"--clip: expected METHOD=THRESHOLD, such as {methods[0]}=1; got {text!r}")
    if method not in methods:
        raise UsageError(
            f"--clip: no clipping method is called {method!r}; known: {', '.join(methods)}"
            f"{did_you_mean(method, methods)}"
        )
    try:
        return {method: float(threshold)}
    except ValueError:
        raise UsageError(f"--clip: the threshold of {method} must be a number; got {threshold!r}") from None


def verdict_kinds(text: str | None) -> tuple[str, ...]:
    """Return the kinds in the comma-separated list of `--fail-on`; none where it was not given.

    Raises UsageError for a word that is no kind of verdict, and for an empty list.
    """
    if text is None:
        return ()
    kinds = tuple(dict.fromkeys(kind for kind in (part.strip() for part in text.split(",")) if kind))
    for kind in kinds:
        if kind not in VERDICT_KINDS:
            raise UsageError(
                f"--fail-on: no verdict is called {kind!r}; known: {', '.join(VERDICT_KINDS)}"
                f"{did_you_mean(kind, list(VERDICT_KINDS))}"
            )
    if not kinds:
        raise UsageError(f"--fail-on: expected at least one of {', '.join(VERDICT_KINDS)}")
    return kinds
