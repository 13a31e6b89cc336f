"""A curve of gradient norms by distance, as Python, the JSON and the CSV have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradcli.frozen import frozen
from gradcli.results.declared import key, keys_of

if TYPE_CHECKING:
    import numpy as np

    from gradcli.diagnostics.curve import Curve as Norms

    Array = np.ndarray[Any, Any]


@frozen(kw_only=True)
class Curve:
    """Norms of the gradient by distance d = T - k, each of shape (T+1,): log10, -inf (null) for an exact zero."""

    distance: range = key("0 to T")
    log10_norm: Array = key("the median over sequences")
    log10_norm_p10: Array = key("the 10 % quantile")
    log10_norm_p90: Array = key("the 90 % quantile")
    log10_norm_mean: Array = key("the mean of the norms, which the verdict is on")
    log10_ratio: Array = key("r: the mean relative to that at distance 1")


def curve_fields(curve: Norms | None) -> dict[str, Any]:
    """Return the fields of `Curve`; of none those of an empty one."""
    if curve is None:
        import numpy as np

        return {"distance": range(0), **{name: np.empty(0) for name in keys_of(Curve) if name != "distance"}}
    return {
        "distance": range(len(curve.median)),
        "log10_norm": curve.median,
        "log10_norm_p10": curve.low,
        "log10_norm_p90": curve.high,
        "log10_norm_mean": curve.mean,
        "log10_ratio": curve.mean - curve.reference,
    }
