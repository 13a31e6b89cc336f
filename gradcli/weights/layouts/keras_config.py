"""The config of a Keras model: what its layers are, what the user called them, and where a file has their weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from gradcli.frozen import frozen

#: More models inside models, and wrappers around wrappers, than anyone writes.
MAX_DEPTH = 32
#: The layers around a layer of any kind, which have its config under "layer".
WRAPPERS = ("TimeDistributed",)


@frozen
class Entry:
    """A layer of a model's config.

    names: what the user called it, behind the models that it is in, without the outermost.
    path: where .weights.h5 and .keras keep it: by its class, numbered in the order of its model, "layers/lstm_1".
    """

    names: tuple[str, ...]
    path: str
    class_name: str
    config: Mapping[str, Any]


def entries(model: object) -> Iterator[Entry]:
    """Give the layers of a model's config, those of models inside it in their place; no wrapper, but what is in it."""
    yield from _of_model(model, (), "", 0)


def child(config: Mapping[str, Any], key: str) -> tuple[str, Mapping[str, Any]] | None:
    """Return class and config of the layer, or cell, that another one's config has under a key; None for none."""
    return _class_and_config(config.get(key))


def cells(config: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]] | None:
    """Return name in the file, class and config of each cell that a config lists; None where it is malformed."""
    listed = config.get("cells")
    found = [_class_and_config(each) for each in listed] if isinstance(listed, list) else []
    numbered = _Numbered()
    given = [each for each in found if each is not None]
    return [(numbered(name), name, each) for name, each in given] if given and len(given) == len(found) else None


class _Numbered:
    """Names after classes, as Keras numbers them: lstm, lstm_1, lstm_2 (keras.src.saving.saving_lib)."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, class_name: str) -> str:
        name = _snake_case(class_name)
        self._seen[name] += 1
        return name if self._seen[name] == 1 else f"{name}_{self._seen[name] - 1}"


def _snake_case(name: str) -> str:
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _of_model(model: object, outer: tuple[str, ...], path: str, depth: int) -> Iterator[Entry]:
    numbered = _Numbered()
    for layer in _layers(model):
        found = _class_and_config(layer)
        if found is None or depth > MAX_DEPTH:
            continue
        class_name, config = found
        own = layer.get("name") if isinstance(layer, dict) else None
        place = f"{path}layers/{numbered(class_name)}"
        given = (name for name in (config.get("name"), own) if isinstance(name, str) and name and name.isprintable())
        names = (*outer, next(given, place))
        while class_name in WRAPPERS and (inside := child(config, "layer")) is not None:
            class_name, config = inside
            place += "/layer"
        if _layers({"config": config}):
            yield from _of_model({"config": config}, names, f"{place}/", depth + 1)
        else:
            yield Entry(names, place, class_name, config)


def _layers(model: object) -> list[Any]:
    config = model.get("config") if isinstance(model, dict) else None
    # The Sequential of Keras before 2.2.3 has the list itself as its config.
    layers = config.get("layers") if isinstance(config, dict) else config
    return layers if isinstance(layers, list) else []


def _class_and_config(layer: object) -> tuple[str, Mapping[str, Any]] | None:
    if not isinstance(layer, dict):
        return None
    class_name, config = layer.get("class_name"), layer.get("config")
    return (class_name, config) if isinstance(class_name, str) and isinstance(config, dict) else None
