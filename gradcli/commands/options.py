"""The arguments that commands share, each declared once: what Python takes, and how the command line shows it.

An argument is `Annotated[what Python takes, Option(...) or Argument(...)]`. Nothing here knows Typer: `gradcli.cli`
makes the command line of the declarations, and `gradcli.simulate(...)` needs none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Annotated, Any, Protocol, TypeAlias, TypedDict, runtime_checkable

from gradcli.commands.completions import checkpoint_layers, clip_methods, layers, set_paths, specs
from gradcli.errors import UsageError
from gradcli.frozen import frozen
from gradcli.spec import defaults

SPEC = "In place of the spec's values, which come before these defaults"
LOOK = "What to look at"
OUTPUT = "What comes out"
RESOURCES = "What it may take"
_MOST_THREADS = 1024  # more than BLAS libraries are built for


@frozen(kw_only=True)
class Argument:
    """An argument that stands by itself on the command line.

    Args:
        typed: its type there, where Python takes more.
        complete: the values that may be meant by the beginning of one.
    """

    metavar: str
    help: str
    typed: Any = None
    complete: Callable[[str], Sequence[str]] | None = None


@frozen(kw_only=True)
class Option:
    """An option of the command line.

    Args:
        names: "-T", "--seq-len"; none: the name of the parameter.
        metavar: what stands for its value; "" for its type.
        default: what stands behind it where it is not given, as the help text states it; "" where nothing need be said.
        otherwise: the same in words, where it is no value; the help text has them in brackets.
        typed: its type on the command line, where Python takes more.
        read: turns its text into its value. Raises UsageError.
        least, most: the bounds of a number.
        command_line: what the command line gives where it is not given, and Python does not.
        complete: the values that may be meant by the beginning of one.
        complete_for: the same, of the SPEC that stands before it on the line, None where there is none.
    """

    help: str
    names: Sequence[str] = ()
    metavar: str = ""
    panel: str = LOOK
    default: str = ""
    otherwise: str = ""
    typed: Any = None
    read: Callable[[str], Any] | None = None
    least: int | None = None
    most: int | None = None
    command_line: Callable[[], Any] | None = None
    complete: Callable[[str], Sequence[str]] | None = None
    complete_for: Callable[[str | None, str], Sequence[str]] | None = None

    def names_for(self, parameter: str) -> Sequence[str]:
        """Return its names, as the option of this parameter."""
        return self.names or ("--" + parameter.replace("_", "-"),)


@frozen
class ByFormat:
    """Marks a parameter that the command line sets by the format that is asked for."""

    value: Callable[[str], object]


def memory_size(size: int | str) -> int:
    """Return a size in bytes: a number, or digits with a unit such as M, MB or MiB, all of them powers of 1024.

    Raises:
        UsageError: it is neither.
    """
    found = re.fullmatch(
        r"(\d{1,15}\.?\d{0,9}|\.\d{1,9})\s*([KMGT]?)(?:iB|B)?", str(size).strip(), re.IGNORECASE | re.ASCII
    )
    count = 0 if found is None else int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))
    if count < 1:
        raise UsageError(
            f"--max-memory: expected a size such as 500M, 2G or 1.5GiB (K, M, G and T are powers of 1024); got {size!r}"
        )
    return count


@runtime_checkable
class ReadSpec(Protocol):
    """A spec that has been read already: a `gradcli.spec.reader.LoadedSpec`, which is imported when it is needed."""

    @property
    def spec(self) -> Any: ...

    @property
    def positions(self) -> Any: ...


#: A YAML file, "-" for standard input, the name of a built-in cell, a checkpoint, or a spec as a mapping.
SpecLike: TypeAlias = str | PathLike[str] | Mapping[str, Any] | ReadSpec
Target = Annotated[
    SpecLike,
    Argument(
        metavar="SPEC",
        help="A YAML file, '-' for standard input, the name of a built-in cell, or a checkpoint.",
        typed=str,
        complete=specs,
    ),
]
_SPECS = Argument(
    metavar="SPEC...",
    help="YAML files, '-' for standard input, names of built-in cells, or checkpoints.",
    typed=list[str],
    complete=specs,
)
Targets = Annotated[Sequence[SpecLike], _SPECS]
#: The same where one is enough, which Python may give by itself.
OneOrMoreTargets = Annotated[SpecLike | Sequence[SpecLike], _SPECS]
Layer = Annotated[
    int | str | None,
    Option(
        metavar="LAYER",
        typed=str | None,
        read=str,
        help="Which layer of a stack, its number or a name such as layer1; or which layer of a checkpoint.",
        default="the top one",
        complete_for=layers,
    ),
]
CheckpointLayer = Annotated[
    str | None,
    Option(
        metavar="LAYER",
        help="Which recurrent layer of the checkpoint; 'gradcli inspect' lists them.",
        panel=SPEC,
        default="the only one",
        complete_for=checkpoint_layers,
    ),
]
#: "norm=1", {"norm": 1}, or several of them.
ClipLike: TypeAlias = str | Mapping[str, float]
Clip = Annotated[
    ClipLike | Sequence[ClipLike] | None,
    Option(
        metavar="METHOD=THRESHOLD",
        help="What clipping would do; may be given several times.",
        panel=SPEC,
        default=f"norm={defaults.CLIP_NORM:g}",
        typed=list[str] | None,
        complete=clip_methods,
    ),
]
Save = Annotated[
    str | PathLike[str] | None,
    Option(
        metavar="FILE.npz",
        help="Save the arrays that redo the run elsewhere: inputs, weights, states, gradients.",
        panel=OUTPUT,
        typed=str | None,
    ),
]


class SpecOptions(TypedDict, total=False):
    """Values in place of the spec's own."""

    seq_len: Annotated[
        int,
        Option(names=("-T", "--seq-len"), help="Steps of each sequence.", panel=SPEC, default=str(defaults.SEQ_LEN)),
    ]
    hidden_size: Annotated[int, Option(help="Units of each state.", panel=SPEC, default=str(defaults.HIDDEN_SIZE))]
    input_size: Annotated[int, Option(help="Features of the input.", panel=SPEC, default=str(defaults.INPUT_SIZE))]
    batch_size: Annotated[int, Option(help="Sequences in a trial.", panel=SPEC, default=str(defaults.BATCH_SIZE))]
    trials: Annotated[int, Option(help="Draws of the weights.", panel=SPEC, default=str(defaults.TRIALS))]
    seed: Annotated[int, Option(help="Seed of all that is drawn.", panel=SPEC, default=str(defaults.SEED))]
    set: Annotated[
        Mapping[str, Any] | str | Sequence[str],
        Option(
            metavar="PATH=VALUE",
            help="Any field of the spec, for example init.b_f=1; may be given several times.",
            panel=SPEC,
            typed=list[str] | None,
            complete_for=set_paths,
        ),
    ]


class SupportsArray(Protocol):
    """What gives itself out as a NumPy array: an array, a tensor of PyTorch, a data frame."""

    def __array__(self) -> Any: ...


#: Anything that `numpy.asarray` makes an array of; tensors may be on a device, and may require a gradient.
ArrayLike: TypeAlias = SupportsArray | Sequence[Any]


class Arrays(TypedDict, total=False):
    """Arrays of real numbers in the place of what a spec draws or reads; the command line names files in a spec.

    They settle batch_size, seq_len and input_size, about which a spec or an option may say nothing else.
    """

    inputs: ArrayLike  # (batch, T, features)
    params: Mapping[str, ArrayLike | float]  # by name or glob, as in a spec; matrices are (out, in)
    h_0: ArrayLike | Mapping[str, ArrayLike]  # of the output, or by state; each (hidden,) or (batch, hidden)
    output_gradient: ArrayLike  # (batch, T, output size): dL/dy at every step, in the place of the loss


#: The stage of which `progress` is told files; of all others it is told steps.
FILES = "files"


class Resources(TypedDict, total=False):
    """What a run may take, and what it tells of itself meanwhile."""

    max_memory: Annotated[
        int | str,
        Option(
            metavar="SIZE",
            help="Refuse a run that would need more, with exit code 5: 500M, 2G, 1.5GiB (powers of 1024).",
            panel=RESOURCES,
            default="half of what is free",
            typed=int | None,
            read=memory_size,
        ),
    ]
    threads: Annotated[
        int,
        Option(
            metavar="N",
            help="Threads to compute on.",
            panel=RESOURCES,
            default="as many as a run is worth",
            least=1,
            most=_MOST_THREADS,
        ),
    ]
    progress: Callable[[str, int, int], None]  # stage, done, of so many


class RunOptions(SpecOptions, Arrays, Resources, total=False):
    """The options of every command that runs a spec."""
