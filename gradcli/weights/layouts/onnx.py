"""ONNX: the operators RNN, GRU and LSTM, linear heads as MatMul or Gemm, embeddings as Gather.

W (D, gates * H, I), R (D, gates * H, H) and B (D, 2 * gates * H) hold the directions, then the gates, one below the
other: i o f c of the LSTM, z r h of the GRU (ONNX, LSTM-22 and GRU-22). B is the input's bias, then the recurrent one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from gradcli.frozen import frozen
from gradcli.weights.checkpoint import Checkpoint
from gradcli.weights.layers import Contents, Embedding, LinearHead, RecurrentLayer, Unsupported, Value
from gradcli.weights.layouts import equations
from gradcli.weights.layouts.equations import Cell
from gradcli.weights.layouts.onnx_activations import UnknownActivationError, templates
from gradcli.weights.layouts.onnx_graph import WeightGraph
from gradcli.weights.layouts.onnx_numbers import NotFollowedError, number, real, reals, texts
from gradcli.weights.readers.onnx_file import OnnxCheckpoint, OnnxNode

#: The domain of ONNX's own operators.
STANDARD_DOMAIN = ""


@frozen
class _Kind:
    """An operator: gradcli's names of its gates in the order of its blocks, and its activations by default."""

    gates: tuple[str, ...]
    activations: tuple[str, ...]
    states: tuple[str, ...]


_KINDS: Mapping[str, _Kind] = {
    "RNN": _Kind(("h",), ("Tanh",), ("h",)),
    "GRU": _Kind(("z", "r", "n"), ("Sigmoid", "Tanh"), ("h",)),
    "LSTM": _Kind(("i", "o", "f", "g"), ("Sigmoid", "Tanh", "Tanh"), ("h", "c")),
}
#: The gates of the LSTM's peepholes P, in the order of its blocks.
_PEEPHOLES = ("i", "o", "f")
#: The inputs of the operators, in their order; RNN and GRU have the first six.
_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
#: What makes of a linear map a layer on the way, rather than a head: its loss takes sigmoid and softmax with it.
HIDDEN_ACTIVATIONS = ("Relu", "Tanh", "LeakyRelu", "Elu", "Selu", "Gelu", "Softplus", "Softsign", "HardSigmoid", "Clip")
_PRODUCTS = ("MatMul", "Gemm")
#: What may stand between a head and the sigmoid of its outputs.
_KEEPING_NUMBERS = ("Squeeze", "Unsqueeze", "Reshape", "Flatten", "Identity", "Transpose", "Cast")
#: A weight that is multiplied with as often is taken for one of a recurrence; fewer uses may be of shared weights.
FEWEST_UNROLLED_STEPS = 3
_DIRECTIONS = {"forward": ("",), "reverse": ("",), "bidirectional": ("", ".reverse")}


class _RefusedError(Exception):
    """A recurrent operator that gradcli cannot run; the message is a clause that says why."""


def find(checkpoint: Checkpoint, taken: set[str]) -> Contents:
    """Return the recurrent layers, linear heads and embeddings of an ONNX graph.

    The graph says what each of its tensors is for, so all of them are added to `taken`: their names tell nothing more.
    """
    if not isinstance(checkpoint, OnnxCheckpoint):
        return Contents()
    taken.update(checkpoint.tensors)
    graph = WeightGraph(checkpoint)
    layers: list[RecurrentLayer] = []
    unsupported: list[Unsupported] = []
    for node in checkpoint.nodes:
        name = _name(node)
        if node.op_type in _KINDS and node.domain == STANDARD_DOMAIN:
            try:
                layers += _Operator(node, graph, checkpoint).layers(name)
            except (_RefusedError, UnknownActivationError, NotFollowedError) as error:
                unsupported.append(Unsupported(name, f"this {node.op_type} cannot be run here: {error}"))
        elif any(kind in node.op_type for kind in _KINDS):
            operator = f"{node.domain}.{node.op_type}".lstrip(".")
            reason = f"{operator} is no operator of ONNX's own; its gates are not known here"
            unsupported.append(Unsupported(name, reason))
    if not layers and not unsupported:
        unsupported += _unrolled(checkpoint, graph)
    return Contents(
        tuple(layers), tuple(_heads(checkpoint, graph)), tuple(_embeddings(checkpoint, graph)), tuple(unsupported)
    )


def _name(node: OnnxNode) -> str:
    return node.name or next((output for output in node.outputs if output), node.op_type)


class _Operator:
    """One recurrent operator of a graph."""

    def __init__(self, node: OnnxNode, graph: WeightGraph, checkpoint: OnnxCheckpoint) -> None:
        self._node = node
        self._graph = graph
        self._checkpoint = checkpoint
        self._kind = _KINDS[node.op_type]
        self._inputs = {role: name for role, name in zip(_INPUTS, node.inputs, strict=False) if name}
        self._direction = str(node.attributes.get("direction", "forward"))
        self._coupled = bool(number(node, "input_forget", 0))
        self._notes: list[str] = []
        if self._direction not in _DIRECTIONS:
            raise _RefusedError(f"its direction is {self._direction!r}; expected {', '.join(_DIRECTIONS)}")
        self._suffixes = _DIRECTIONS[self._direction]
        if real(node, "clip", 0.0):
            raise _RefusedError("it clips its pre-activations (the attribute clip)")
        self._hidden_size, self._input_size = self._sizes()

    def layers(self, name: str) -> list[RecurrentLayer]:
        """Return the layer; of two directions with different activations one layer each.

        Raises:
            _RefusedError, UnknownActivationError, NotFollowedError: it cannot be run.
        """
        self._look_at_lengths()
        cells = self._cells()
        parameters = [self._parameters(direction) for direction in range(len(cells))]
        initial = [self._initial_states(direction) for direction in range(len(cells))]
        if len(cells) == 1:
            return [self._layer(name, cells[0], parameters, initial, backwards=self._direction == "reverse")]
        if cells[0] == cells[1]:
            return [self._layer(name, cells[0], parameters, initial)]
        self._notes.append("its two directions have different activations, so each is a layer of its own here")
        return [
            self._layer(f"{name}.forward", cells[0], parameters[:1], initial[:1]),
            self._layer(f"{name}.reverse", cells[1], parameters[1:], initial[1:], backwards=True),
        ]

    def _layer(
        self,
        name: str,
        cell: Cell,
        parameters: list[dict[str, Value]],
        initial: list[dict[str, Value]],
        *,
        backwards: bool = False,
    ) -> RecurrentLayer:
        def of_layer(tables: list[dict[str, Value]]) -> dict[str, Value]:
            suffixes = ("", ".reverse")
            return {f"layer0{suffix}.{key}": value for suffix, table in zip(suffixes, tables, strict=False)
                    for key, value in table.items()}  # fmt: skip

        values, states = of_layer(parameters), of_layer(initial)
        tensors = tuple(
            dict.fromkeys(part.tensor for value in (*values.values(), *states.values()) for part in value.slices)
        )
        return RecurrentLayer(
            name=name,
            framework="ONNX",
            kind=self._node.op_type,
            cell=cell,
            input_size=self._input_size,
            hidden_size=self._hidden_size,
            output_size=self._hidden_size * len(parameters),
            parameters=values,
            tensors=tensors,
            dtype=self._checkpoint.tensors[tensors[0]].dtype,
            gate_order=self._kind.gates if len(self._kind.gates) > 1 else (),
            bidirectional=len(parameters) == 2,
            reversed=backwards,
            initial_states=states,
            notes=tuple(self._notes),
        )

    def _sizes(self) -> tuple[int, int]:
        """Return the sizes of the hidden state and of the input, after a look at the shapes of all weights."""
        for role in ("W", "R"):
            if role not in self._inputs:
                raise _RefusedError(f"it has no {role}")
        shapes = {role: self._shape(role) for role in ("W", "R", "B", "P") if role in self._inputs}
        hidden = shapes["R"][-1] if shapes["R"] else 0
        inputs = shapes["W"][-1] if shapes["W"] else 0
        directions, gates = len(self._suffixes), len(self._kind.gates)
        expected = {
            "W": (directions, gates * hidden, inputs),
            "R": (directions, gates * hidden, hidden),
            "B": (directions, 2 * gates * hidden),
            "P": (directions, len(_PEEPHOLES) * hidden),
        }
        for role, shape in shapes.items():
            if shape != expected[role] or 0 in shape:
                raise _RefusedError(
                    f"its {role} has the shape {shape}; expected {expected[role]} for {directions} direction(s) of size"
                    f" {hidden}"
                )
        if number(self._node, "hidden_size", hidden) != hidden:
            raise _RefusedError(f"its hidden_size is {self._node.attributes['hidden_size']}, but R is of size {hidden}")
        return hidden, inputs

    def _shape(self, role: str) -> tuple[int, ...]:
        try:
            return self._graph.shape(self._inputs[role])
        except NotFollowedError as error:
            raise _RefusedError(f"its {role} is {error}") from None

    def _block(self, role: str, *index: int | tuple[int, int] | None) -> Value:
        try:
            return self._graph.block(self._inputs[role], *index)
        except NotFollowedError as error:
            raise _RefusedError(f"its {role} is {error}") from None

    def _look_at_lengths(self) -> None:
        lengths = self._inputs.get("sequence_lens")
        if lengths is None:
            return
        if not self._graph.is_tensor(lengths):
            self._notes.append(
                "in the graph each sequence may end at a length of its own (sequence_lens); here all are equally long"
            )
            return
        given = set(self._graph.sizes.known(lengths))
        if len(given) > 1:
            raise _RefusedError(f"its sequence_lens ends the sequences at {min(given)} to {max(given)} steps")
        self._notes.append(f"in the graph each sequence ends at {', '.join(map(str, given))} steps (sequence_lens)")

    def _cells(self) -> list[Cell]:
        """Return the cell of each direction."""
        count = len(self._kind.activations)
        names = texts(self._node, "activations") or self._kind.activations * len(self._suffixes)
        if len(names) != count * len(self._suffixes):
            raise _RefusedError(f"it has {len(names)} activations; expected {count} for each direction")
        found = templates(names, reals(self._node, "activation_alpha"), reals(self._node, "activation_beta"))
        bias = "B" in self._inputs
        match self._node.op_type:
            case "RNN":
                return [equations.rnn(activation, bias=bias) for activation in found]
            case "GRU":
                after = bool(number(self._node, "linear_before_reset", 0))
                return [
                    equations.gru(gate, candidate, bias=bias, recurrent_bias=bias, reset_after=after)
                    for gate, candidate in zip(found[::2], found[1::2], strict=True)
                ]
        return [
            equations.lstm(*three, bias=bias, peepholes="P" in self._inputs, coupled=self._coupled)
            for three in zip(found[::3], found[1::3], found[2::3], strict=True)
        ]

    def _parameters(self, direction: int) -> dict[str, Value]:
        size, gates = self._hidden_size, self._kind.gates
        reset_after = self._node.op_type == "GRU" and bool(number(self._node, "linear_before_reset", 0))
        parameters: dict[str, Value] = {}
        for block, gate in enumerate(gates):
            if gate == "f" and self._coupled:
                # f = 1 - i: the operator has weights of f all the same, and does not look at them.
                continue
            rows = (block * size, (block + 1) * size)
            parameters[f"W_x{gate}"] = self._block("W", direction, rows, None)
            parameters[f"W_h{gate}"] = self._block("R", direction, rows, None)
            if "B" in self._inputs:
                shift = len(gates) * size
                own = self._block("B", direction, rows)
                recurrent = self._block("B", direction, (rows[0] + shift, rows[1] + shift))
                if gate == "n" and reset_after:
                    parameters |= {"b_n": own, "b_hn": recurrent}
                else:
                    parameters[f"b_{gate}"] = Value(own.slices + recurrent.slices, own.shape)
        if "P" in self._inputs:
            for block, gate in enumerate(_PEEPHOLES):
                if not (gate == "f" and self._coupled):
                    parameters[f"w_c{gate}"] = self._block("P", direction, (block * size, (block + 1) * size))
        return parameters

    def _initial_states(self, direction: int) -> dict[str, Value]:
        states = {}
        for state in self._kind.states:
            role = f"initial_{state}"
            given = self._inputs.get(role)
            if given is None or self._graph.is_zero(given):
                continue
            try:
                shape = self._graph.shape(given)
                batch_first = bool(number(self._node, "layout", 0))
                batch = shape[0 if batch_first else 1] if len(shape) == 3 else 0
                expected = (batch, len(self._suffixes)) if batch_first else (len(self._suffixes), batch)
                if shape != (*expected, self._hidden_size):
                    raise _RefusedError(f"its {role} has the shape {shape}; expected {(*expected, self._hidden_size)}")
                sequences = 0 if batch == 1 else None
                index = (sequences, direction) if batch_first else (direction, sequences)
                states[state] = self._graph.block(given, *index, None)
            except NotFollowedError as error:
                note = f"its {role} is {error}; here {state}_0 is zero unless it is given"
                if note not in self._notes:
                    self._notes.append(note)
        return states


def _heads(checkpoint: OnnxCheckpoint, graph: WeightGraph) -> Iterator[LinearHead]:
    """Give every product of a value that is computed with a matrix of the file, with the bias that is added to it."""
    seen: set[str] = set()
    bent = {name for node in checkpoint.nodes if node.op_type in HIDDEN_ACTIVATIONS for name in node.inputs}
    sums = {name: node for node in checkpoint.nodes if node.op_type == "Add" for name in node.inputs}
    for node in checkpoint.nodes:
        if node.domain != STANDARD_DOMAIN or node.op_type not in _PRODUCTS or len(node.inputs) < 2:
            continue
        output = next(iter(node.outputs), "")
        added = next((name for name in sums[output].inputs if name != output), "") if output in sums else ""
        scale, bias_scale = 1.0, 1.0
        weight = _matrix(graph, node.inputs[1])
        try:
            if node.op_type == "MatMul" or not number(node, "transB", 0):
                weight = weight and _transposed(weight)
            if node.op_type == "Gemm":
                added = next(iter(node.inputs[2:]), "")
                scale, bias_scale = real(node, "alpha", 1.0), real(node, "beta", 1.0)
                weight = None if number(node, "transA", 0) else weight
        except NotFollowedError:
            continue
        last = next(iter(sums[output].outputs), "") if node.op_type == "MatMul" and output in sums else output
        if weight is None or last in bent:
            continue
        if weight.slices[0].tensor in seen:
            # A product that is written once for each step.
            continue
        seen.add(weight.slices[0].tensor)
        bias = _vector(graph, added, weight.shape[0]) if added else None
        found = [_scaled(weight, scale), *([] if bias is None else [_scaled(bias, bias_scale)])]
        tensors = tuple(dict.fromkeys(part.tensor for value in found for part in value.slices))
        name = _module(tensors) or _name(node)
        yield LinearHead(name, found[0], found[1] if bias else None, tensors, _meets_sigmoid(last, checkpoint))


def _meets_sigmoid(name: str, checkpoint: OnnxCheckpoint) -> bool:
    """Tell whether the sigmoid of a value is taken, at once or after what leaves its numbers as they are."""
    names = {name}
    for node in checkpoint.nodes:  # which stand in the order in which they are computed
        if names.isdisjoint(node.inputs):
            continue
        if node.op_type == "Sigmoid":
            return True
        if node.op_type in _KEEPING_NUMBERS:
            names.update(node.outputs)
    return False


def _unrolled(checkpoint: OnnxCheckpoint, graph: WeightGraph) -> Iterator[Unsupported]:
    """Give every weight that is multiplied with in step after step: a recurrence without an operator of its own."""
    products = [node.inputs[1] for node in checkpoint.nodes if node.op_type in _PRODUCTS and len(node.inputs) > 1]
    weights = [weight.slices[0].tensor for name in products if (weight := _matrix(graph, name)) is not None]
    for tensor, count in Counter(weights).items():
        if count >= FEWEST_UNROLLED_STEPS:
            name = _module((tensor,)) or tensor
            yield Unsupported(
                name,
                f"the graph multiplies with {tensor} {count} times, as if {name} were a recurrence written out step by"
                " step, which is not read; export it with an operator, as torch.onnx.export does with dynamo=False",
            )


def _module(tensors: tuple[str, ...]) -> str | None:
    """Return the name of the module whose tensors have kept the names that PyTorch gave them."""
    for tensor in tensors:
        module, _, role = tensor.rpartition(".")
        if module and role in ("weight", "bias"):
            return module
    return None


def _matrix(graph: WeightGraph, name: str) -> Value | None:
    """Return a constant matrix; None for what is computed or has another number of axes."""
    try:
        return graph.block(name, None, None) if len(graph.shape(name)) == 2 else None
    except NotFollowedError:
        return None


def _vector(graph: WeightGraph, name: str, size: int) -> Value | None:
    try:
        return graph.block(name, None) if graph.shape(name) == (size,) else None
    except NotFollowedError:
        return None


def _transposed(value: Value) -> Value:
    return Value(tuple(replace(part, transposed=not part.transposed) for part in value.slices), value.shape[::-1])


def _scaled(value: Value, by: float) -> Value:
    return Value(tuple(replace(part, scale=by * part.scale) for part in value.slices), value.shape)


def _embeddings(checkpoint: OnnxCheckpoint, graph: WeightGraph) -> Iterator[Embedding]:
    """Give every table of the file of which the graph takes rows by indices that are computed or put in."""
    seen: set[str] = set()
    for node in checkpoint.nodes:
        if node.op_type != "Gather" or node.domain != STANDARD_DOMAIN or len(node.inputs) < 2:
            continue
        name, indices = node.inputs[:2]
        if node.attributes.get("axis", 0) != 0 or graph.is_tensor(indices) or name in seen:
            continue
        table = _matrix(graph, name)
        if table is not None:
            seen.add(name)
            tensors = (table.slices[0].tensor,)
            yield Embedding(_module(tensors) or _name(node), table, tensors)
