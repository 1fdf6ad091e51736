"""Two gates to measure ours against: one of installs alone, and one of fixed thresholds.

Both are what others do: a share of devices that may fail; and means over the exposed devices, each
against its own time before, held to a bound at every look, with no control group and no statistics.
"""

from typing import Final

import numpy as np

from edgeloop_controller.core.device_change import changes
from edgeloop_controller.core.rollout import MemberPhase, RolloutTerms
from edgeloop_simulators.bench.rollout_play import Seen

DEFAULTS: Final = RolloutTerms()
EXAMPLES_MIN: Final = 500
"""Examples of all devices together; fewer halt nothing."""
LABELS_MIN: Final = 100


def installs_alone() -> RolloutTerms:
    """The engine with no other gate than the rule on devices that rolled back."""
    return RolloutTerms(
        control_group=False, max_disagreement=1.0, max_accuracy_drop=1.0, min_labelled=0
    )


def fixed_thresholds(seen: Seen) -> str:
    """Judged with the same tolerances as ours; halts when a mean lies beyond."""
    failed = sum(member.phase is MemberPhase.FAILED for member in seen.members.values())
    if failed > DEFAULTS.max_failed_fraction * max(1, len(seen.before)):
        return "failures"
    compared = sum(window.count for window in seen.windows)
    if compared >= EXAMPLES_MIN:
        found = changes(seen.before, seen.after)
        bounds = {
            "errors": DEFAULTS.max_error_rate_rise,
            "latency": np.log(DEFAULTS.max_latency_ratio),
            "confidence": DEFAULTS.max_confidence_drop,
            "predictions": DEFAULTS.max_prediction_shift,
        }
        for measure, values in found.by_measure.items():
            known = values[np.isfinite(values)]
            if measure in bounds and len(known) and known.mean() > bounds[measure]:
                return measure
    differed = sum(window.disagreements for window in seen.windows)
    if compared >= EXAMPLES_MIN and differed > DEFAULTS.max_disagreement * compared:
        return "disagreement"
    if len(seen.pairs) >= LABELS_MIN:
        old = sum(pair.shadow_correct for pair in seen.pairs)
        new = sum(pair.target_correct for pair in seen.pairs)
        if old - new > DEFAULTS.max_accuracy_drop * len(seen.pairs):
            return "accuracy"
    return ""
