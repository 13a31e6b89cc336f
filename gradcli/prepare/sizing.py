"""Cells at the sizes of their layers, and the shapes of the parameters that follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gradcli.engine.problem import READOUT, layer_names
from gradcli.errors import Problem, SpecError
from gradcli.language.cell import CellError, ParsedCell, SizedCell, parse_cell
from gradcli.spec.constants import Constants, constants_of
from gradcli.spec.models import Spec
from gradcli.spec.reader import LoadedSpec


def count_parameters(shapes: Mapping[str, tuple[int, ...]], copies: Mapping[str, int]) -> int:
    """Return the number of entries of all parameters but those of the readout, each as often as it counts."""
    return sum(
        copies.get(name, 1) * math.prod(shape) for name, shape in shapes.items() if not name.startswith(f"{READOUT}.")
    )


def parse(loaded: LoadedSpec) -> ParsedCell:
    """Return the cell of a spec, with its mistakes placed in the file.

    Raises:
        SpecError: mistakes in the equations or in the settings beside them.
    """
    cell, spec = loaded.cell, loaded.spec
    constants = constants_of(cell, spec.constants)
    malformed = _malformed(loaded, constants)
    try:
        parsed = parse_cell(
            cell.equations,
            output=cell.output,
            constants=constants.numbers,
            shapes=cell.shapes,
            # What is no vector or matrix says nothing of the equations.
            arrays={name: sizes for name, sizes in constants.sizes.items() if name not in malformed},
            fixed=[name for name in constants.fixed if name not in malformed],
            activation=spec.activation or cell.activation,
            batch_size=spec.batch_size,
            replaces_usual=loaded.built_in is not None and spec.activation is not None,
        )
    except CellError as error:
        raise SpecError([*malformed.values(), *_placed_in_file(loaded, error).problems]) from None
    if malformed:
        raise SpecError(list(malformed.values()))
    return parsed


def _malformed(loaded: LoadedSpec, constants: Constants) -> dict[str, Problem]:
    """Return the mistakes in the form of constants that are lists: what is no vector and no matrix of numbers."""
    found: dict[str, Problem] = {}
    lists = {name: value for name, value in constants.arrays.items() if isinstance(value, list)}
    if not lists:
        return found
    # Of no use to most cells.
    from gradcli.sources.exact_values import check_list
    from gradcli.sources.initialisers import InitialiserError

    for name, value in lists.items():
        try:
            check_list(value)
        except InitialiserError as error:
            own = name in loaded.spec.constants
            found[name] = loaded.problem((*(() if own else ("cell",)), "constants", name), str(error))
    return found


def _placed_in_file(loaded: LoadedSpec, error: CellError) -> SpecError:
    problems = []
    for p in error.problems:
        elsewhere = loaded.place_in_equations(p.elsewhere, 1) if p.elsewhere else None
        message = p.text(elsewhere.line if elsewhere else p.elsewhere)
        problems.append(loaded.problem_in_equations(p.line, p.column, message))
    for path, message in error.settings:
        field, _, name = path.partition(".")
        own = getattr(loaded.spec, field, None)
        at_top = name in own if isinstance(own, Mapping) else own is not None
        problems.append(loaded.problem(path if at_top else f"cell.{path}", message))
    return SpecError(problems)


def size_cells(loaded: LoadedSpec, cell: ParsedCell, input_size: int) -> list[SizedCell]:
    """Return the cell at the sizes of each layer; a layer's input is the output state of the one below.

    Of a bidirectional layer each direction has an entry of its own, and its output is that of both.

    Raises:
        SpecError: sizes that do not fit together.
    """
    sized: list[SizedCell] = []
    directions = 2 if loaded.spec.bidirectional else 1
    for _ in range(loaded.spec.num_layers):
        if sized and sized[-1].shapes.input_size == input_size:
            sized += [sized[-1]] * directions
            continue
        try:
            sized += [cell.at_sizes(loaded.spec.hidden_size, input_size)] * directions
        except CellError as error:
            raise _placed_in_file(loaded, error) from None
        input_size = output_size(loaded.spec, sized)
    return sized


def output_size(spec: Spec, sized: Sequence[SizedCell]) -> int:
    """Return the size of what the last of some layers puts out: its output state, of both directions together."""
    cell = sized[-1]
    return cell.shapes.states[cell.output] * (2 if spec.bidirectional else 1)


def parameter_shapes(loaded: LoadedSpec, sized: Sequence[SizedCell]) -> dict[str, tuple[int, ...]]:
    """Return "layer0.W_hh" -> shape for all layers; (T, ...) where every step has weights of its own."""
    spec = loaded.spec
    steps = () if loaded.tied else (spec.seq_len,)
    layers = zip(layer_names(spec.num_layers, spec.bidirectional), sized, strict=True)
    return {f"{layer}.{name}": (*steps, *shape) for layer, c in layers for name, shape in c.shapes.parameters.items()}


def trained_shapes(shapes: Mapping[str, tuple[int, ...]], cell: ParsedCell) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parameters that are no constants."""
    return {name: shape for name, shape in shapes.items() if name.rpartition(".")[2] not in cell.fixed}
