"""The activations of Keras, as templates in the language of equations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradcli.weights.layouts import activations
from gradcli.weights.layouts.activations import IDENTITY, called

#: As Keras 3 defines them; Keras 2 differs in hard_sigmoid alone.
TEMPLATES: Mapping[str, str] = {
    "linear": IDENTITY,
    **{
        name: called(name)
        for name in ("relu", "sigmoid", "tanh", "selu", "softplus", "softsign", "gelu", "silu", "elu", "hard_sigmoid")
    },
    "swish": called("silu"),
    "exponential": called("exp"),
    "hard_tanh": called("hard_tanh"),
    "leaky_relu": activations.leaky_relu(0.2),
    "celu": called("elu"),
    "relu6": "(6 * hard_sigmoid({} - 3))",
    "hard_silu": "(({}) * hard_sigmoid({}))",
    "hard_swish": "(({}) * hard_sigmoid({}))",
    "mish": "(({}) * tanh(softplus({})))",
    "log_sigmoid": "(-softplus(-({})))",
    "tanh_shrink": "({} - tanh({}))",
    "soft_shrink": "(relu({} - 0.5) - relu(-({}) - 0.5))",
    "squareplus": "(0.5 * ({} + sqrt(({}) ** 2 + 4)))",
}
#: clip(a / 5 + 1/2, 0, 1), where that of Keras 3 is clip(a / 6 + 1/2, 0, 1).
HARD_SIGMOID_OF_KERAS_2 = activations.hard_sigmoid(0.2, 0.5)


#: No parameter of an activation is larger; nor is one NaN, which JSON of Python may hold.
LARGEST = 1e6


class UnknownActivationError(Exception):
    """An activation that cannot be written as an equation here; the message is a clause that says which."""


def template(config: object, keras_version: str | None) -> str:
    """Return the template of an activation of a layer's config.

    Args:
        config: its name, a layer such as LeakyReLU with its own config, or None for none.
        keras_version: of the Keras that wrote the file, where the file says.

    Raises:
        UnknownActivationError: see there.
    """
    if config is None:
        return IDENTITY
    if isinstance(config, str):
        if config == "hard_sigmoid" and keras_version is not None and keras_version.split(".")[0] in ("1", "2"):
            return HARD_SIGMOID_OF_KERAS_2
        if config in TEMPLATES:
            return TEMPLATES[config]
        raise UnknownActivationError(f"its activation {config} is not known here")
    if isinstance(config, dict):
        name, settings = config.get("class_name"), config.get("config")
        if isinstance(settings, dict):
            found = _of_layer(str(name), settings)
            if found is not None:
                return found
        name = settings if name == "function" else name
        raise UnknownActivationError(f"its activation {name} is not known here")
    raise UnknownActivationError("its activation is code of its own, not one of Keras's by name")


def _of_layer(class_name: str, settings: Mapping[str, Any]) -> str | None:
    """Return the template of an activation that is a layer; None for one that is not known."""

    def number(default: float, *names: str) -> float:
        value = next((settings[n] for n in names if isinstance(settings.get(n), (int, float))), default)
        if not abs(value) <= LARGEST:
            raise UnknownActivationError(f"its activation {class_name} has the parameter {str(value)[:20]}")
        return float(value)

    match class_name:
        case "LeakyReLU":
            # Keras 2 calls the slope alpha.
            return activations.leaky_relu(number(0.3, "negative_slope", "alpha"))
        case "ELU":
            return activations.elu(number(1.0, "alpha"))
        case "ReLU" if settings.get("max_value") is None and not settings.get("threshold"):
            return activations.leaky_relu(number(0.0, "negative_slope"))
        case "Activation" if isinstance(settings.get("activation"), str):
            return TEMPLATES.get(settings["activation"])
    return None
