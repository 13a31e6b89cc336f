"""Parts of a spec as the models read them."""

from __future__ import annotations

from typing import Any

from gradcli.spec.checked import SpecModel
from gradcli.spec.value_readers import Place, reader_of


def as_read(annotation: Any, data: Any) -> Any:
    """Return data as a value of an annotated type of `gradcli.spec`."""
    return reader_of(annotation)(data, Place((), data, SpecModel))
