"""What the papers start a parameter at whose name tells what it is, for a cell of one's own that does not say.

Sources: `A_log`, `b_dt` and `D` Gu and Dao 2023 (Mamba) and Dao and Gu 2024 (Mamba-2); `dt_log` Gu et al. 2022 (S4D);
`nu_log` and `theta_log` Orvieto et al. 2023 (LRU); `w_log` and `mu_*` Peng et al. 2024 (Eagle and Finch), roughly; the
gain of a norm Ba, Kiros and Hinton 2016; `threshold` Eshraghian et al. 2023; `tau` Fang et al. 2021 (PLIF).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase

Shape = tuple[int, ...]

_MAMBA_STEPS = "{log_uniform: {low: 0.001, high: 0.1, of: softplus}}"
_S4D_STEPS = "{log_uniform: {low: 0.001, high: 0.1, of: exp}}"


def _rates(shape: Shape) -> str:
    if len(shape) == 2:
        return f"{{ramp: {{first: 1, last: {shape[1]}, of: exp}}}}"
    return "{uniform: {bound: 7.5, mean: 8.5, of: exp}}"


def _of_vectors(law: str) -> Callable[[Shape], str | None]:
    return lambda shape: law if len(shape) == 1 else None


def _unless_matrix(law: str) -> Callable[[Shape], str | None]:
    return lambda shape: law if len(shape) < 2 else None


#: Names, and what a parameter of a shape starts at, as a spec has it; None where the name says nothing of that shape.
_USUAL: tuple[tuple[tuple[str, ...], Callable[[Shape], str | None]], ...] = (
    (("A_log", "log_A"), _rates),
    (("b_dt", "dt_bias"), _unless_matrix(_MAMBA_STEPS)),
    (("dt_log", "log_dt", "log_step"), _unless_matrix(_S4D_STEPS)),
    (("D",), _unless_matrix("1.0")),
    (("nu_log", "log_nu"), _of_vectors("{ring: {r_min: 0.9, r_max: 0.999}}")),
    (("theta_log", "log_theta"), _of_vectors("ring_phase")),
    (("w_log", "log_w"), _of_vectors("{ramp: {first: -6, last: -1}}")),
    (("mu_[rkvwag]",), _of_vectors("{ramp: {first: 1, last: 0}}")),
    (("gain", "gain_*"), _unless_matrix("1.0")),
    (("threshold", "v_th"), _unless_matrix("1.0")),
    (("tau", "tau_m"), _unless_matrix("2.0")),
)


def usual_law(name: str, shape: Shape) -> str | None:
    """Return what papers start a parameter at, as a spec has it; None where its name does not tell."""
    for names, law in _USUAL:
        if any(fnmatchcase(name, each) for each in names):
            return law(shape)
    return None


def open_laws_note(left_open: Mapping[str, Shape], default: str, weights: Collection[str] = ()) -> tuple[str, ...]:
    """Return a note of the parameters that are drawn by the default law, as nothing says how; none where all is said.

    It has the `init:` that papers use for those whose names tell. Any other number or vector that is no bias, and
    none of `weights`, as w of dot(w, x[t]) is, may be a decay or a scale, which no law of a framework's layers suits.
    """
    if not left_open:
        return ()
    few = list(left_open)[:8]
    names = ", ".join(few) + (f" and {len(left_open) - len(few)} more" if len(left_open) > len(few) else "")
    laws = {name: law for name, shape in left_open.items() if (law := usual_law(name, shape)) is not None}
    told = f"no init is given for {names}: drawn by the law {default}"
    if laws:
        written = ", ".join(f"{name}: {law}" for name, law in laws.items())
        return (f"{told}; papers start what they call so with init: {{{written}}}",)
    small = [name for name, shape in left_open.items() if len(shape) < 2]
    others = [name for name in small if not _is_bias(name) and name not in weights]
    if others:
        return (f"{told}; a decay or a scale usually starts elsewhere, as in init: {{{others[0]}: 0.9}}",)
    return (told,)


def _is_bias(name: str) -> bool:
    """Tell whether a name is a bias's: b, bf, b_f, b1, bias_f."""
    return name.startswith(("b_", "bias")) or (name.startswith("b") and len(name) < 3)
