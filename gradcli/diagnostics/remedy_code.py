"""The lines of PyTorch and Keras that do to a stock layer what a remedy does to its spec.

In all lines the layer is called `layer` and is built; in those of Keras a stack is one `layer` after the other. PyTorch
adds two biases, of which one is set and the other made 0; Keras's GRU has two rows of them.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping

from gradcli import cells
from gradcli.frozen import frozen
from gradcli.prepare.build import Network
from gradcli.prepare.trained import TrainedNetwork
from gradcli.spec.initialisers import FlaxDefault, KerasDefault
from gradcli.weights.layouts.gates import GATES as TORCH_GATES
from gradcli.weights.layouts.gates import KERAS_GATES

Code = Mapping[str, str]

TORCH, KERAS = "torch", "keras"
FRAMEWORKS: Mapping[str, str] = {TORCH: "PyTorch", KERAS: "Keras"}

_KINDS = ("LSTM", "GRU", "RNN")
_FEW_LAYERS = 3


@frozen
class StockLayer:
    """The framework's own layer that a spec's cell is.

    kind: LSTM, GRU or RNN. hidden: units. num_layers, bidirectional: of PyTorch's one module.
    frameworks: those that have this layer. single_cell: it is PyTorch's cell of one step, such as nn.LSTMCell.
    """

    kind: str
    hidden: int
    num_layers: int
    bidirectional: bool
    frameworks: tuple[str, ...]
    single_cell: bool = False

    def code(self, torch: str, keras: str) -> Code:
        """Return the lines of those frameworks that have the layer."""
        lines = {TORCH: torch, KERAS: keras}
        return {framework: lines[framework] for framework in self.frameworks}

    def torch_rows(self, bias: str) -> str:
        """Return where a gate's entries stand in PyTorch's biases, as a slice: "64:128" for b_f."""
        return _slice(TORCH_GATES[self.kind].index(bias.removeprefix("b_")), self.hidden)

    def keras_rows(self, bias: str) -> str:
        """Return where a gate's entries stand in Keras's biases."""
        kind = "SimpleRNN" if self.kind == "RNN" else self.kind
        return _slice(KERAS_GATES[kind].index(bias.removeprefix("b_")), self.hidden)

    def in_torch(self, statements: Callable[[Callable[[str], str]], str]) -> str:
        """Return statements for every layer and direction of a module.

        Args:
            statements: of one layer, given what turns "bias_ih" into that layer's parameter.
        """
        if self.single_cell:
            return statements(lambda name: f"layer.{name}")
        if self.num_layers == 1 and not self.bidirectional:
            return statements(lambda name: f"layer.{name}_l0")
        ends = ("", "_reverse") if self.bidirectional else ("",)
        if self.num_layers <= _FEW_LAYERS:
            suffixes = ", ".join(f'"_l{k}{end}"' for k in range(self.num_layers) for end in ends)
            suffixes = f"({suffixes})"
        elif self.bidirectional:
            suffixes = f'[f"_l{{k}}{{end}}" for k in range({self.num_layers}) for end in ("", "_reverse")]'
        else:
            suffixes = f'[f"_l{{k}}" for k in range({self.num_layers})]'
        return f"for s in {suffixes}: " + statements(lambda name: f'getattr(layer, "{name}" + s)')

    def in_keras(self, statements: str) -> str:
        """Return statements on w, the weights of a layer: kernel, recurrent kernel and bias."""
        if self.bidirectional:
            each = "for d in (layer.forward_layer, layer.backward_layer): "
            return f"{each}w = d.get_weights(); {statements}; d.set_weights(w)"
        return f"w = layer.get_weights(); {statements}; layer.set_weights(w)"


def stock_layer(network: Network) -> StockLayer | None:
    """Return the framework's own layer that a network's cell is; None where no framework has it."""
    spec, loaded = network.spec, network.loaded
    if not loaded.tied:
        return None
    frameworks: tuple[str, ...] = (TORCH, KERAS)
    kind = next((kind for kind in _KINDS if _same_equations(loaded.cell.equations, kind)), None)
    single_cell = False
    trained = loaded.trained
    if isinstance(trained, TrainedNetwork) and trained.layer is not None:
        own = [key for key, name in FRAMEWORKS.items() if name == trained.layer.framework]
        if own:
            frameworks = tuple(own)
            kind = kind or next((kind for kind in _KINDS if kind in trained.layer.kind), None)
            single_cell = TORCH in own and trained.layer.kind.endswith("Cell")
    elif any(isinstance(law, KerasDefault) for law in spec.init.values()):
        frameworks = (KERAS,)
    elif any(isinstance(law, FlaxDefault) for law in spec.init.values()):
        frameworks = ()
    activation = spec.activation or loaded.cell.activation or "tanh"
    if activation != "tanh" and not (kind == "RNN" and activation == "relu"):
        frameworks = tuple(framework for framework in frameworks if framework != TORCH)
    if kind is None or not frameworks:
        return None
    return StockLayer(kind, spec.hidden_size, spec.num_layers, spec.bidirectional, frameworks, single_cell)


def _same_equations(equations: str, kind: str) -> bool:
    return "".join(equations.split()) == "".join(cells.load(kind.lower()).cell.equations.split())


def _slice(block: int, hidden: int) -> str:
    return f"{block * hidden}:{(block + 1) * hidden}"


def set_biases(stock: StockLayer, values: Mapping[str, str], before: str = "", numpy_before: str = "") -> Code:
    """Return the lines that set biases.

    Args:
        values: bias -> an expression. before, numpy_before: a statement that the expressions need, with its "; ".
    """

    def torch(name: Callable[[str], str]) -> str:
        each = (
            f"{name('bias_ih')}.data[{stock.torch_rows(bias)}] = {value}; "
            f"{name('bias_hh')}.data[{stock.torch_rows(bias)}] = 0"
            for bias, value in values.items()
        )
        return before + "; ".join(each)

    def keras(bias: str, value: str) -> str:
        rows = stock.keras_rows(bias)
        return f"w[2][:, {rows}] = 0; w[2][0, {rows}] = {value}" if stock.kind == "GRU" else f"w[2][{rows}] = {value}"

    return stock.code(
        stock.in_torch(torch),
        stock.in_keras(numpy_before + "; ".join(keras(bias, value) for bias, value in values.items())),
    )


def add_to_biases(stock: StockLayer, values: Mapping[str, float]) -> Code:
    """Return the lines that add to biases: to one of PyTorch's two, and to one of the rows that Keras's GRU has."""
    torch = lambda name: "; ".join(  # noqa: E731
        f"{name('bias_ih')}.data[{stock.torch_rows(bias)}] += {value:g}" for bias, value in values.items()
    )
    width = len(TORCH_GATES[stock.kind]) * stock.hidden
    keras = "; ".join(
        f"w[2].reshape(-1, {width})[0, {stock.keras_rows(bias)}] += {value:g}" for bias, value in values.items()
    )
    return stock.code(stock.in_torch(torch), stock.in_keras(keras))


def draw_chrono(stock: StockLayer, signs: Mapping[str, int], t_max: int) -> Code:
    """Return the lines that draw biases sign * log U[1, t_max - 1], one draw for all of a unit's gates."""
    values = {bias: "u" if sign > 0 else "-u" for bias, sign in signs.items()}
    return set_biases(
        stock,
        values,
        f"u = torch.empty({stock.hidden}).uniform_(1, {t_max - 1}).log(); ",
        f"u = np.log(np.random.uniform(1, {t_max - 1}, {stock.hidden})); ",
    )


def draw_recurrent(stock: StockLayer, torch_init: str, numpy_matrix: str) -> Code:
    """Return the lines that draw every gate's recurrent matrix anew.

    Args:
        torch_init: a function of torch.nn.init. numpy_matrix: an expression for one gate's matrix, {n} x {n}.
    """
    count, matrix = len(TORCH_GATES[stock.kind]), numpy_matrix.format(n=stock.hidden)
    one_module = stock.single_cell or (stock.num_layers == 1 and not stock.bidirectional)
    if one_module:
        whole = f"layer.weight_hh{'' if stock.single_cell else '_l0'}.data"
        blocks = f"{whole}.chunk({count})"
    else:
        every = '[w.data for name, w in layer.named_parameters() if name.startswith("weight_hh")]'
        whole, blocks = "", every if count == 1 else f"[gate for w in {every} for gate in w.chunk({count})]"
    return stock.code(
        f"torch.nn.init.{torch_init}({whole})"
        if one_module and count == 1
        else f"for gate in {blocks}: torch.nn.init.{torch_init}(gate)",
        stock.in_keras(f"w[1] = {matrix}" if count == 1 else f"w[1] = np.hstack([{matrix} for _ in range({count})])"),
    )


def scale_recurrent(stock: StockLayer, factor: float) -> Code:
    """Return the lines that multiply all recurrent matrices."""
    return stock.code(
        stock.in_torch(lambda name: f"{name('weight_hh')}.data *= {factor:g}"), stock.in_keras(f"w[1] *= {factor:g}")
    )


def scale_input(stock: StockLayer | None, mean: float, scale: float) -> Code:
    """Return the lines that bring the input x to (x - mean) / scale."""
    centred = f"(x - {mean:g})" if mean else "x"
    return _of_input(stock, f"x = {centred} / {scale:g}", f"x = {centred} / {scale:g}")


def standardise_input(stock: StockLayer | None) -> Code:
    """Return the lines that bring each feature of x (sequences, steps, features) to mean 0, standard deviation 1."""
    keras = "scale = keras.layers.Normalization(); scale.adapt(x); x = scale(x)"
    return _of_input(stock, "x = (x - x.mean((0, 1))) / x.std((0, 1))", keras)


def _of_input(stock: StockLayer | None, torch: str, keras: str) -> Code:
    lines = {TORCH: torch, KERAS: keras}
    return {framework: lines[framework] for framework in (FRAMEWORKS if stock is None else stock.frameworks)}


def clip_steps(stock: StockLayer | None, threshold: float) -> Code:
    """Return the line of PyTorch, within a loop over steps of one's own, that clips each state's gradient."""
    if stock is not None and TORCH not in stock.frameworks:
        return {}
    clipped = f"g * ({threshold:g} / g.norm(dim=-1, keepdim=True)).clamp(max=1)"
    others = ", for every state" if stock is None else ", and so for c" if stock.kind == "LSTM" else ""
    return {TORCH: f"h.register_hook(lambda g: {clipped})  # at every step of a loop of your own{others}"}


def one_a_line(code: str) -> str:
    """Return a line of code (ASCII) with each statement on a line of its own, those of a loop below its head.

    >>> print(one_a_line("for d in both: w = d.get(); d.set(w)"))
    for d in both:
        w = d.get()
        d.set(w)
    """
    starts: list[tuple[int, str]] = []
    for statement in ast.parse(code).body:
        starts.append((statement.col_offset, ""))
        if isinstance(statement, ast.For):
            starts += [(inner.col_offset, "    ") for inner in statement.body]
    ends = [start for start, _ in starts[1:]] + [len(code)]
    return "\n".join(indent + code[start:end].rstrip("; ") for (start, indent), end in zip(starts, ends, strict=True))
