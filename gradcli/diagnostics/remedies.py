"""What would keep the gradient alive: candidates of the table, run on the same draws; only what helped is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

from gradcli.diagnostics.curve_landmarks import reference_distance
from gradcli.diagnostics.measure import Measured, measure
from gradcli.diagnostics.remedy_table import Case, Edit, Trouble, edits_for
from gradcli.diagnostics.verdict import Verdict
from gradcli.engine.run import Engine
from gradcli.engine.step_clip import StepClip
from gradcli.errors import SpecError
from gradcli.frozen import frozen
from gradcli.prepare.build import build
from gradcli.spec.edits import edited
from gradcli.spec.models import Thresholds

#: How many candidates are run, fewer where so many have left no trouble; and for how many multiplications in all, of
#: which a step counts as some more for its own cost.
MOST_TRIED, ENOUGH = 5, 2
_MOST_WORK = 2e9
_WORK_OF_STEP = 1e5
#: A horizon is clearly longer from this factor on, and a ratio (in log10) clearly nearer to 1 at half of what it was.
LONGER = 1.25
_NEARER = 0.5


@frozen
class Outcome:
    """How a run ended.

    reach: the horizon, or T where the curve ends above it. log10_ratio: of r at T, -inf for a zero; reference: the
    distance that r is relative to.
    """

    verdict: Verdict
    reach: int
    log10_ratio: float
    reference: int = 1


@frozen
class Remedy:
    """An edit that was run and helped."""

    edit: Edit
    before: Outcome
    after: Outcome


@frozen
class Remedies:
    """What was tried.

    trouble: what it was tried against; None where there was no need. found: what helped, the best first.
    tried: how many candidates were run. too_large: whether some were not, because the run takes too long.
    """

    trouble: Trouble | None = None
    found: Sequence[Remedy] = ()
    tried: int = 0
    too_large: bool = False


#: Of a run for which none were looked for.
NO_REMEDIES = Remedies()


def find_remedies(measured: Measured, *, max_memory: int | None = None) -> Remedies:
    """Run what might help a gradient that fades or grows, and return what did.

    Args:
        max_memory: bytes that a run may need; by default half of what is free.
    """
    network = measured.network
    before = outcome(measured)
    trouble = trouble_of(before, network.spec.thresholds)
    if trouble is None:
        return NO_REMEDIES
    affordable = min(MOST_TRIED, int(_MOST_WORK / _work(measured)))
    edits = list(islice(edits_for(Case(measured, trouble)), MOST_TRIED))
    found: list[Remedy] = []
    tried = whole = 0
    for edit in edits[:affordable]:
        after = _run(measured, edit, max_memory)
        tried += 1
        if after is not None and helps(before, after, network.spec.thresholds):
            found.append(Remedy(edit, before, after))
            whole += trouble_of(after, network.spec.thresholds) is None
        if whole == ENOUGH:
            break
    return Remedies(trouble, tuple(sorted(found, key=_rank)), tried, affordable < len(edits) and whole < ENOUGH)


def _work(measured: Measured) -> float:
    """Return about how many multiplications a forward pass takes, and drawing orthogonal matrices before it."""
    spec, network = measured.network.spec, measured.network
    draws = 1 if network.loaded.tied else spec.seq_len
    weights = network.parameter_count / draws
    pass_through = spec.seq_len * (_WORK_OF_STEP * spec.num_layers + spec.trials * spec.batch_size * weights)
    return pass_through + spec.trials * draws * weights * spec.hidden_size


def _run(measured: Measured, edit: Edit, max_memory: int | None) -> Outcome | None:
    """Return how the run ends with an edit; None where the edit does not suit the spec."""
    try:
        changed = edited(measured.network.loaded, (*edit.sets, "clip=[]"))
        network = build(changed, max_memory=max_memory)
    except SpecError:
        return None
    clipper = None if edit.step_norm is None else StepClip("step_norm", edit.step_norm)
    run = Engine(network.problem).run(step_clip=clipper, parameters=False)
    return outcome(measure(network, run=run, theory=False))


def outcome(measured: Measured) -> Outcome:
    """Return how a run ended."""
    verdict, last = measured.verdict, measured.network.problem.seq_len
    reach = last if verdict.horizon_threshold is None else verdict.horizon_threshold
    if measured.curve is None:
        return Outcome(verdict, 0, math.nan)
    end = verdict.end_log10_ratio
    reference = reference_distance(measured.curve.mean)
    return Outcome(verdict, reach, -math.inf if end is None else end, 1 if reference is None else reference)


def trouble_of(run: Outcome, thresholds: Thresholds) -> Trouble | None:
    """Return what a remedy is needed for; None where none is.

    A stable run needs one where a sequence twice as long would cross a threshold at the same rate: where r at T is
    below the root of the vanishing threshold, or above that of the exploding one.
    """
    kind = run.verdict.kind
    if kind in ("exploding", "nonfinite") or _explodes(run, thresholds):
        return "grows"
    if kind == "stable":
        if run.log10_ratio < 0.5 * math.log10(thresholds.vanishing):
            return "fades"
        return "grows" if run.log10_ratio > 0.5 * math.log10(thresholds.exploding) else None
    return None if run.verdict.zero_from == 0 else "fades"  # of no gradient at all there is nothing to keep


def _explodes(run: Outcome, thresholds: Thresholds) -> bool:
    return run.verdict.peak_log10_ratio >= math.log10(thresholds.exploding)


def helps(before: Outcome, after: Outcome, thresholds: Thresholds) -> bool:
    """Tell whether a run is clearly better than it was, and does not call for the opposite remedy.

    What fades must reach clearly farther, or end clearly nearer to 1; what grows must stay within both thresholds.
    """
    if after.verdict.kind in ("exploding", "nonfinite") or _explodes(after, thresholds):
        return False
    if after.log10_ratio > 0.5 * math.log10(thresholds.exploding):
        return False
    if trouble_of(before, thresholds) == "grows":
        if before.verdict.kind == "transient" and after.reach >= max(LONGER * before.reach, before.reach + 2):
            return True
        return after.verdict.kind == "stable" and (
            before.verdict.kind != "stable" or abs(after.log10_ratio) <= _NEARER * abs(before.log10_ratio)
        )
    if after.verdict.kind == "dead" and before.verdict.kind != "dead":
        return False
    if after.verdict.kind == "stable":
        nearer = abs(after.log10_ratio) <= _NEARER * abs(before.log10_ratio)
        return nearer or after.reach >= max(LONGER * before.reach, before.reach + 2)
    return before.verdict.kind != "stable" and after.reach >= max(LONGER * before.reach, before.reach + 2)


def _rank(remedy: Remedy) -> tuple[bool, int, float]:
    """Return what remedies are sorted by: clipping, which mends no curve, comes last; then reach; then the end."""
    return (remedy.edit.step_norm is not None, -remedy.after.reach, abs(remedy.after.log10_ratio))
