"""The activations of ONNX's recurrent operators, as templates in the language of equations.

Names and their parameters are those of the operators' definitions (ONNX, RNN-22, GRU-22, LSTM-22). Where a parameter is
not given, its default is that of the operator of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from gradcli.frozen import frozen
from gradcli.weights.layouts import activations
from gradcli.weights.layouts.activations import called


@frozen
class _Activation:
    """template(alpha, beta); None as default of a parameter that it has and that must be given, () if it has none."""

    template: Callable[[float, float], str]
    alpha: float | tuple[()] | None = ()
    beta: float | tuple[()] | None = ()


#: ThresholdedRelu is missing: it jumps at alpha, and a jump has no gradient.
#: Affine and ScaledTanh have no defaults: of the definition and the runtimes each has its own.
_ACTIVATIONS: Mapping[str, _Activation] = {
    "affine": _Activation(activations.affine, None, 0.0),
    "relu": _Activation(lambda alpha, beta: called("relu")),
    "leakyrelu": _Activation(lambda alpha, beta: activations.leaky_relu(alpha), 0.01),
    "tanh": _Activation(lambda alpha, beta: called("tanh")),
    "scaledtanh": _Activation(activations.scaled_tanh, None, None),
    "sigmoid": _Activation(lambda alpha, beta: called("sigmoid")),
    "hardsigmoid": _Activation(activations.hard_sigmoid, 0.2, 0.5),
    "elu": _Activation(lambda alpha, beta: activations.elu(alpha), 1.0),
    "softsign": _Activation(lambda alpha, beta: called("softsign")),
    "softplus": _Activation(lambda alpha, beta: called("softplus")),
}


class UnknownActivationError(Exception):
    """An activation that cannot be written as an equation; the message is a clause that says which and why."""


def templates(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> list[str]:
    """Return the templates of an operator's activations, of all its directions, in its order.

    Args:
        names: its attribute activations; case does not matter.
        alphas, betas: its attributes activation_alpha and activation_beta. They are handed out in the order of the
            activations, to those that have such a parameter.

    Raises:
        UnknownActivationError: see there.
    """
    left_alphas, left_betas = iter(alphas), iter(betas)
    found = []
    for name in names:
        activation = _ACTIVATIONS.get(name.lower())
        if activation is None:
            why = ", which jumps and so has no gradient" if name.lower() == "thresholdedrelu" else ""
            raise UnknownActivationError(f"its activation {name} cannot be written as an equation{why}")
        alpha = _handed(name, "alpha", activation.alpha, left_alphas)
        beta = _handed(name, "beta", activation.beta, left_betas)
        found.append(activation.template(alpha, beta))
    for parameter, left in (("alpha", left_alphas), ("beta", left_betas)):
        # Some exporters give each activation a number, whether it has the parameter or not: no telling whose is whose.
        if next(left, None) is not None:
            raise UnknownActivationError(
                f"it gives more numbers as activation_{parameter} than its activations {', '.join(names)} take"
            )
    return found


def _handed(name: str, parameter: str, default: float | tuple[()] | None, given: Iterator[float]) -> float:
    if isinstance(default, tuple):
        return 0.0
    value = next(given, default)
    if value is None:
        raise UnknownActivationError(
            f"its activation {name} comes without activation_{parameter}, which has no default"
        )
    return float(value)
