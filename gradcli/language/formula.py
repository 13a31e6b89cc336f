"""Formulas of routes: the product of their factors, written in the names of the equations; nothing of it is stored.

Entry-by-entry factors that follow each other are one diagonal. Matrices stay in their order, as they do not commute.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, count, groupby

from gradcli.frozen import frozen
from gradcli.language.across import ACROSS, DEFAULT_EPS
from gradcli.language.graph import VIEW, Dependence, Graph, Node, reachable
from gradcli.language.matrix_text import (
    NUMBER,
    PLACE,
    applied,
    kind_of_view,
    laid_out,
    product_of_matrices,
    sum_over_axis,
)
from gradcli.language.notation import Text
from gradcli.language.routes import AcrossJacobian, Diagonal, Edge, Factor, Map, Matrix, PathGraph, Route

#: A Jacobian block of more routes than that is not written out.
MOST_TERMS = 60

# How tightly an expression binds: what binds less than its place asks for stands in brackets.
_SUM, _QUOTIENT, _PRODUCT, _POWER, _ATOM = range(5)


@frozen
class Term:
    """The formula of one route: sign * text."""

    route: str
    sign: int
    text: str


@frozen
class JacobianBlock:
    """d target[t] / d source[t-lag] as a sum of terms.

    is_total: whether earlier states count through each other, or are independent variables (the partial derivative).
    name: the block itself, written. count: its routes; `terms` are empty where these are more than `MOST_TERMS`.
    """

    target: str
    source: str
    lag: int
    is_total: bool
    name: str
    count: int
    terms: tuple[Term, ...]


@frozen
class StepJacobian:
    """All blocks of one step. definitions: the abbreviations in their formulas, (symbol, formula)."""

    blocks: tuple[JacobianBlock, ...]
    definitions: tuple[tuple[str, str], ...]


def step_jacobian(graph: PathGraph, notation: Text) -> StepJacobian:
    """Return the Jacobian of one step in all its blocks, as sums over routes.

    First the partial derivatives ds[t]/ds'[t-k] with earlier states independent, then the total ds[t]/ds[t-1] of each
    state that earlier values of other states depend on, such as h[t-1] = o[t-1] * tanh(c[t-1]) on c[t-1].
    """
    writer = FormulaWriter(graph, notation)
    blocks = []
    for state in graph.states:
        for (source, lag), ways in graph.one_step(state).items():
            routes = graph.one_step_routes(state, source, lag) if ways <= MOST_TERMS else ()
            blocks.append(writer.block(state, source, lag, False, ways, routes))
    for state in graph.states:
        ways = graph.count(state, state, 1)
        if ways > graph.one_step(state).get((state, 1), 0):
            routes = graph.routes(state, state, 1) if ways <= MOST_TERMS else ()
            blocks.append(writer.block(state, state, 1, True, ways, routes))
    return StepJacobian(tuple(blocks), tuple(writer.definitions()))


class FormulaWriter:
    """Writes routes and their formulas; keeps the abbreviations that it has made."""

    def __init__(self, graph: PathGraph, notation: Text) -> None:
        self.graph = graph
        self.notation = notation
        # Routes have the names of the equations in every notation.
        self._text = self if type(notation) is Text else FormulaWriter(graph, Text())
        self._known = _names_of_known(graph)
        self._outputs = {node: name for name, node in graph.cell.states.items() if node.args}
        self._symbols: dict[Node, str] = {}
        self._axes: dict[Node, int] = {}
        self._tails: dict[str, str] = {}

    def block(
        self, target: str, source: str, lag: int, is_total: bool, ways: int, routes: Iterable[Route]
    ) -> JacobianBlock:
        """Return a block with its routes written out."""
        n = self.notation
        ends = (n.variable(target, 0, is_state=True), n.variable(source, lag, is_state=True))
        name = (n.derivative if is_total else n.partial).format(*ends)
        ordered = sorted(routes, key=lambda route: not all(edge.is_own for edge in route.edges))
        # Terms are added up: where one is written applied to a small change, all are.
        acts = any(self._acts(_placed(route.edges), route.vertices[-1]) for route in ordered)
        tails = self._shared_tails(ordered, acts)
        terms = tuple(Term(self.route(route), *self._term(route, tails, acts)) for route in ordered)
        return JacobianBlock(target, source, lag, is_total, name, ways, terms)

    def definitions(self) -> list[tuple[str, str]]:
        """Return the abbreviations in use, each with what it stands for."""
        found = list(self._tails.items())
        done: set[Node] = set()
        # What explains one may need another.
        while waiting := [node for node in self._symbols if node not in done]:
            symbol = self.notation.variable(self._symbols[waiting[0]], 0, is_state=False)
            found.append((symbol, self._compound(waiting[0], 0)[0]))
            done.add(waiting[0])
        return found

    # Routes by name.

    def route(self, route: Route, start: int | None = None) -> str:
        """Return a route as the names on it: c -> f -> h.

        start: the step of its first variable; where given, each variable that opens a step bears its number.
        """
        words = [self._stop(route.vertices[0], None, start)]
        for edge, before, vertex in zip(route.edges, route.vertices, route.vertices[1:], strict=False):
            words += [label] if (label := self._text._label(edge)) else []
            words.append(self._stop(vertex, before, start))
        return " -> ".join(words)

    @staticmethod
    def _stop(vertex: tuple[str, int], before: tuple[str, int] | None, start: int | None) -> str:
        name, behind = vertex
        opens = before is None or before[1] != behind
        return f"{name}[{start - behind}]" if start is not None and opens else name

    def _label(self, edge: Edge) -> str:
        """Return the matrices on an edge, where another edge leads to the same variable; else nothing."""
        twins = [e for e in self.graph.edges[edge.target] if (e.source, e.lag) == (edge.source, edge.lag)]
        if len(twins) == 1 or edge.is_elementwise:
            return ""
        labels = [self._matrices(twin) for twin in twins]
        mine = self._matrices(edge)
        if labels.count(mine) == 1 and mine:
            return mine
        factors = [(factor, 0) for factor in edge.factors]
        if any(self._is_of_matrices(factor) for factor in edge.factors):
            return applied(self, factors, self.notation.change(edge.source))[1]
        return self.product(factors)[1]

    def _matrices(self, edge: Edge) -> str:
        return " ".join(self._bracketed(f.matrix, 0, _ATOM) for f in edge.factors if isinstance(f, Matrix))

    # Products of factors.

    def formula(self, route: Route) -> str:
        """Return the product of a route's factors, with its sign."""
        return self.notation.signed_sum([self.product(_placed(route.edges), route.vertices[-1])])

    def _term(self, route: Route, tails: dict[tuple[Edge, ...], str], acts: bool) -> tuple[int, str]:
        head, tail = _at_first_step(route)
        symbol = tails.get(tail)
        if acts:
            factors = _placed(route.edges if symbol is None else head)
            return applied(self, factors, symbol or self._change(route.vertices[-1]))
        if symbol is None:
            return self._as_it_is(_placed(route.edges), route.vertices[-1])
        sign, text = self._as_it_is(_placed(head), None)
        return sign, symbol if text == self.notation.identity else self.notation.times.join([text, symbol])

    def _shared_tails(self, routes: Sequence[Route], acts: bool) -> dict[tuple[Edge, ...], str]:
        """Return symbols for what several routes have in common at t-1, such as H = dh[t-1]/dc[t-1].

        Where routes act on a small change, it is one that they have in common, H = dh[t-1].
        """
        tails = [tail for _, tail in map(_at_first_step, routes) if tail]
        found: dict[tuple[Edge, ...], str] = {}
        for tail in dict.fromkeys(tails):
            name = tail[0].target.upper()
            symbol = self.notation.parameter(name)
            taken = symbol in self._tails or name in self.graph.names_in_use
            several = sum(other[0].target == tail[0].target for other in set(tails)) > 1
            if tails.count(tail) > 1 and not taken and not several:
                (end,) = {route.vertices[-1] for route in routes if _at_first_step(route)[1] == tail}
                factors = _placed(tail, behind=1)
                sign, text = applied(self, factors, self._change(end)) if acts else self._as_it_is(factors, end)
                self._tails[symbol] = self.notation.signed_sum([(sign, text)])
                found[tail] = symbol
        return found

    def product(self, factors: Iterable[tuple[Factor, int]], source: tuple[str, int] | None = None) -> tuple[int, str]:
        """Return the sign and the text of a product of factors, each with the steps that it lies behind t.

        source: the variable that they lead to, and how far behind t. Of a route through matrices, whose factors are not
            all matrices themselves, or to one, the product is written applied to a small change of it.
        """
        factors = list(factors)
        if self._acts(factors, source):
            return applied(self, factors, self._change(source))
        return self._as_it_is(factors, source)

    def _acts(self, factors: Iterable[tuple[Factor, int]], source: tuple[str, int] | None) -> bool:
        return any(self._is_of_matrices(factor) for factor, _ in factors) or self._has_axes(source, 2)

    def _as_it_is(self, factors: Iterable[tuple[Factor, int]], source: tuple[str, int] | None) -> tuple[int, str]:
        """Return the sign and the text of a product of factors that is applied to nothing; see `product`."""
        constant = 1.0
        scalars: list[str] = []
        pieces: list[str] = []
        for is_diagonal, group in groupby(factors, key=lambda placed: isinstance(placed[0], Diagonal)):
            entries: list[tuple[Node, int]] = []
            for factor, behind in group:
                match factor:
                    case Matrix():
                        pieces.append(self._bracketed(factor.matrix, behind, _ATOM))
                    case AcrossJacobian():
                        pieces.append(self.notation.jacobian(factor.node.data[0], self._operand(factor.node, behind)))
                    case Diagonal():
                        number, parts = self._flattened(factor.coefficient)
                        constant *= number
                        for part in parts:
                            is_repeated = part.op == "view" and kind_of_view(part) == NUMBER
                            if is_repeated or self.axes(part) == 0:
                                scalars.append(self.term(part.args[0] if is_repeated else part, behind))
                            else:
                                entries.append((part, behind))
            if is_diagonal and entries:
                pieces.append(self.notation.diagonal(self._vectors(entries)))
        if abs(constant) != 1.0:
            scalars.insert(0, self.notation.number(abs(constant)))
        if not (pieces or (scalars and self._has_axes(source, 0))):
            pieces = [self.notation.identity]
        words = [*scalars, *pieces]
        return (-1 if constant < 0 else 1), self.notation.times.join(words)

    def factor(self, factor: Diagonal | None, source: str) -> tuple[int, str]:
        """Return one factor, or none, which is the identity; of matrices as it acts on the state `source`."""
        if factor is None or not self._is_of_matrices(factor):
            return self._as_it_is([] if factor is None else [(factor, 0)], (source, 1))
        sign, text = applied(self, [(factor, 0)], source)
        return sign, text.removesuffix(source).removesuffix(self.notation.times_entries).removesuffix(
            self.notation.times
        )

    def _is_of_matrices(self, factor: Factor) -> bool:
        return isinstance(factor, Map) or (isinstance(factor, Diagonal) and self.axes(factor.coefficient) > 1)

    def _has_axes(self, source: tuple[str, int] | None, axes: int) -> bool:
        return source is not None and self.axes(self.graph.cell.values[source[0]]) == axes

    def _change(self, source: tuple[str, int] | None) -> str:
        if source is None:
            return PLACE
        name, behind = source
        is_state = name in self.graph.states
        return self.notation.change(self.notation.variable(name, behind, is_state=is_state))

    # What matrices are written of, see `matrix_text`.

    @property
    def arena(self) -> Graph:
        return self.graph.cell.graph

    def atom(self, node: Node, behind: int) -> str:
        return self._bracketed(node, behind, _ATOM)

    def term(self, node: Node, behind: int) -> str:
        return self._bracketed(node, behind, _PRODUCT)

    def expression(self, node: Node, behind: int) -> str:
        return self._expression(node, behind)[0]

    def flattened(self, node: Node) -> tuple[float, list[Node]]:
        return self._flattened(node)

    def axes(self, node: Node) -> int:
        """Return how many axes a value has: none is a number."""
        known = self.graph.cell.shapes.of_nodes
        for below in reachable([node], stop=known.keys() | self._axes.keys()):
            if below not in self._axes:
                self._axes[below] = len(known[below]) if below in known else self._axes_of(below)
        return self._axes[node]

    def _axes_of(self, node: Node) -> int:
        match node.op:
            case "view":
                return len(node.data[1])
            case "total":
                return len(node.data[0]) - 1
            case "matmul" | "pad":
                return 1
            case _:
                return max((self._axes[arg] for arg in node.args), default=0)

    def operand(self, node: Node, behind: int) -> str:
        return self._operand(node, behind)

    def elementwise(self, nodes: Sequence[Node], behind: int) -> str:
        return self._vectors([(node, behind) for node in nodes])

    def _vectors(self, entries: Sequence[tuple[Node, int]]) -> str:
        """Return an elementwise product, numbers first; what stands in it several times in a row is a power."""
        entries = sorted(entries, key=lambda entry: not (entry[0].op == "view" and kind_of_view(entry[0]) == NUMBER))
        if len(entries) == 1:
            return self._expression(*entries[0])[0]
        words = []
        for (node, behind), group in groupby(entries):
            times = len(list(group))
            words.append(self._power(node, behind, times) if times > 1 else self._bracketed(node, behind, _PRODUCT))
        return self.notation.times_elementwise.join(words)

    def _power(self, node: Node, behind: int, times: int) -> str:
        return self.notation.power(self._bracketed(node, behind, _ATOM), self.notation.number(times))

    # Expressions.

    def _bracketed(self, node: Node, behind: int, needed: int) -> str:
        text, level = self._expression(node, behind)
        return text if level >= needed else self.notation.bracketed(text)

    def _expression(self, node: Node, behind: int) -> tuple[str, int]:
        """Return an expression as it stands at t - behind, and how tightly it binds."""
        n = self.notation
        if node in self._symbols:
            return n.variable(self._symbols[node], behind, is_state=False), _ATOM
        if node in self.graph.named:
            return n.variable(self.graph.named[node], behind, is_state=False), _ATOM
        if node in self._known:
            name = self._known[node]
            fixed = node.dependence is Dependence.PARAMETERS
            return n.parameter(name) if fixed else n.variable(name, behind, is_state=False), _ATOM
        if node in self._outputs:
            return n.variable(self._outputs[node], behind, is_state=True), _ATOM
        return self._compound(node, behind)

    def _compound(self, node: Node, behind: int) -> tuple[str, int]:
        """Return an expression in terms of its parts, whether or not it has a name of its own."""
        n = self.notation
        match node.op:
            case "number":
                return n.number(node.data), _ATOM if node.data >= 0 else _SUM
            case "parameter":
                return n.parameter(node.data), _ATOM
            case "input":
                return n.variable("x", behind, is_state=True), _ATOM
            case "state":
                name, lag = node.data
                return n.variable(name, lag + behind, is_state=True), _ATOM
            case "transpose":
                return n.transposed.format(self._bracketed(node.args[0], behind, _ATOM)), _ATOM
            case "columns":
                part, parts = node.data
                vector = self.graph.cell.concatenations[parts][part]
                whole = self._bracketed(node.args[0], behind, _ATOM)
                return n.columns.format(whole, self._expression(vector, behind)[0]), _ATOM
            case "matmul":
                return n.times.join(self._bracketed(arg, behind, _ATOM) for arg in node.args), _QUOTIENT
            case "call" if node.data == "_root" and (vector := _squared(node.args[0])) is not None:
                return n.call("norm", self._expression(vector, behind)[0]), _ATOM
            case "where" if _is_slope_of_norm(node):
                return self._expression(node.args[1], behind)
            case "call":
                return n.call(node.data, self._argument(node.args[0], behind)), _ATOM
            case "across":
                return n.call(node.data[0], self._operand(node, behind)), _ATOM
            case "sum":
                return self._sum(node, behind), _SUM
            case "mul":
                return self._product_of_vectors(node, behind)
            case "div":
                needed = (_PRODUCT, _POWER) if n.quotient_in_line else (_SUM, _SUM)
                above, below = (self._bracketed(a, behind, level) for a, level in zip(node.args, needed, strict=True))
                return n.quotient(above, below), _QUOTIENT if n.quotient_in_line else _PRODUCT
            case "view":
                return self._view(node, behind)
            case "total":
                return sum_over_axis(self, node, behind), _QUOTIENT
            case "pad":
                return n.concatenated([self._expression(node.args[0], behind)[0]]), _ATOM
            case "cumsum" | "stop" | "largest" | "spike":
                name = {"largest": "max"}.get(node.op, node.op)
                return n.call(name, self._argument(node.args[0], behind)), _ATOM
            case "maximum" | "minimum" | "where":
                name = {"maximum": "max", "minimum": "min"}.get(node.op, node.op)
                return n.call(name, n.listed([self._expression(arg, behind)[0] for arg in node.args])), _ATOM
            case "greater" | "greater_equal" | "equal":
                a, b = (self._expression(arg, behind)[0] for arg in node.args)
                sign = {"greater": ">", "greater_equal": ">=", "equal": "="}[node.op]
                return n.where(a, sign, b), _ATOM
            case "carried" | "entries":
                return self._expression(node.args[0], behind)
            case "identity":
                return n.identity, _ATOM
            case "pow":
                base, exponent = node.args
                return n.power(self._bracketed(base, behind, _ATOM), self._bracketed(exponent, behind, _SUM)), _POWER
            case _:
                raise AssertionError(f"no way to write {node}")

    def _view(self, node: Node, behind: int) -> tuple[str, int]:
        n, inner = self.notation, node.args[0]
        match kind_of_view(node):
            case "slice":
                start, (size,), _ = node.data[:VIEW]
                return n.entries(self._bracketed(inner, behind, _ATOM), start, start + size), _ATOM
            case "transposed":
                return n.transposed.format(self._bracketed(inner, behind, _ATOM)), _ATOM
            case "number":
                return self._expression(inner, behind)
            case kind:
                return laid_out(n, kind, self._expression(inner, behind)[0]), _ATOM

    def _sum(self, node: Node, behind: int) -> str:
        if all(arg.op == "pad" for arg in node.args) and set(node.data) == {1}:
            parts = sorted(node.args, key=lambda arg: arg.data[0])
            return self.notation.concatenated([self._expression(part.args[0], behind)[0] for part in parts])
        terms = []
        for constant, parts in self._collected(node):
            text = self._scaled(abs(constant), parts, behind)[0] if parts else self.notation.number(abs(constant))
            terms.append((-1 if constant < 0 else 1, text))
        return self.notation.signed_sum(sorted(terms, key=lambda term: term[0] < 0))

    def _flattened(self, node: Node) -> tuple[float, list[Node]]:
        """Return a product as its constant and its other factors; what has a name is one factor."""
        if not self._has_name(node):
            match node.op:
                case "number":
                    return node.data, []
                case "sum" if len(terms := self._collected(node)) == 1:
                    return terms[0]
                case "mul":
                    (a, left), (b, right) = map(self._flattened, node.args)
                    return a * b, [*left, *right]
        return 1.0, [node]

    def _collected(self, node: Node) -> list[tuple[float, list[Node]]]:
        """Return the terms of a sum, and of sums in it, each flattened; those of the same factors are one."""
        constants: dict[tuple[Node, ...], float] = {}
        for sign, arg in zip(node.data, node.args, strict=True):
            inner = arg.op == "sum" and not self._has_name(arg)
            for constant, parts in self._collected(arg) if inner else [self._flattened(arg)]:
                constants[tuple(parts)] = constants.get(tuple(parts), 0.0) + sign * constant
        return [(constant, list(parts)) for parts, constant in constants.items() if constant] or [(0.0, [])]

    def _has_name(self, node: Node) -> bool:
        return any(node in names for names in (self._symbols, self.graph.named, self._known, self._outputs))

    def _product_of_vectors(self, node: Node, behind: int) -> tuple[str, int]:
        constant, parts = self._flattened(node)
        text, level = self._scaled(abs(constant), parts, behind)
        return (self.notation.signed_sum([(-1, text)]), _SUM) if constant < 0 else (text, level)

    def _scaled(self, constant: float, parts: Sequence[Node], behind: int) -> tuple[str, int]:
        if constant == 1.0 and len(set(parts)) == 1:
            if len(parts) > 1:
                return self._power(parts[0], behind, len(parts)), _POWER
            return self._expression(parts[0], behind)
        vectors = product_of_matrices(self, parts, behind) or self._vectors([(part, behind) for part in parts])
        if constant == 1.0:
            return vectors, _PRODUCT
        if len(parts) == 1:
            vectors = self._bracketed(parts[0], behind, _PRODUCT)
        return self.notation.times.join([self.notation.number(constant), vectors]), _PRODUCT

    def _operand(self, node: Node, behind: int) -> str:
        """Return what stands in the brackets of a function across: its eps only where that is not the usual one."""
        name, eps = node.data
        argument = self._argument(node.args[0], behind)
        usual = eps == DEFAULT_EPS or not ACROSS[name].is_norm
        return argument if usual else self.notation.listed([argument, self.notation.number(eps)])

    def _argument(self, node: Node, behind: int) -> str:
        """Return the argument of a function; a sum with matrices in it gets a symbol, explained elsewhere."""
        if (
            node.op == "sum"
            and not self._has_name(node)
            and any(below.op in ("matmul", "across") for below in reachable([node], stop=self.graph.named))
        ):
            taken = self.graph.names_in_use | set(self._symbols.values())
            names = chain(["a"], (f"a{i}" for i in count(1)))
            self._symbols[node] = next(name for name in names if name not in taken)
        return self._expression(node, behind)[0]


def _squared(total: Node) -> Node | None:
    """Return a where a node is the sum of all a_i^2; None where it is none."""
    while total.op == "total":
        total = total.args[0]
    return total.args[0] if total.op == "mul" and total.args[0] is total.args[1] else None


def _is_slope_of_norm(node: Node) -> bool:
    """Tell whether a choice is that of the slope of a norm, which is 0 at 0: elsewhere it is what is written."""
    mask, _, otherwise = node.args
    return mask.op == "greater" and mask.args[0].op == "call" and mask.args[0].data == "_root" and otherwise.is_number


def _names_of_known(graph: PathGraph) -> dict[Node, str]:
    """Return the names that the equations give to what no state plays a part in."""
    found: dict[Node, str] = {}
    for name, node in graph.cell.values.items():
        if node.dependence < Dependence.STATE and node.args:
            found.setdefault(node, name)
    return found


def _placed(edges: Iterable[Edge], behind: int = 0) -> list[tuple[Factor, int]]:
    """Return the factors of edges that follow each other, each with the steps that it lies behind t."""
    found = []
    for edge in edges:
        found += [(factor, behind) for factor in edge.factors]
        behind += edge.lag
    return found


def _at_first_step(route: Route) -> tuple[tuple[Edge, ...], tuple[Edge, ...]]:
    """Split a route over one step behind the edge that leaves step t."""
    leaving = next(i for i, edge in enumerate(route.edges) if edge.lag)
    return route.edges[: leaving + 1], route.edges[leaving + 1 :]
