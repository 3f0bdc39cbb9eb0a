"""Verdicts: whether hosts on the new build do worse than the others, and what follows.

Pure: `judge` takes evidence and an interval of counts, and gives evidence and a verdict; `combine` makes one of
several. Asking for counts is left to `checkpoint.verdicts.sources`, promoting and rolling back to the rollout, which
keeps the evidence beside its own state.
"""

from checkpoint.verdicts.evidence import (
    Evidence,
    decode_evidence,
    encode_evidence,
    next_step,
    set_aside,
    take_back,
)
from checkpoint.verdicts.judging import SEVERITY, Action, Outcome, Verdict, combine, judge
from checkpoint.verdicts.metric import Metric, check_metrics, parse_metrics
from checkpoint.verdicts.observed import Counts, History, Interval, with_interval
from checkpoint.verdicts.ratio import Ratio
from checkpoint.verdicts.zscore import z_scores

__all__ = [
    "SEVERITY",
    "Action",
    "Counts",
    "Evidence",
    "History",
    "Interval",
    "Metric",
    "Outcome",
    "Ratio",
    "Verdict",
    "check_metrics",
    "combine",
    "decode_evidence",
    "encode_evidence",
    "judge",
    "next_step",
    "parse_metrics",
    "set_aside",
    "take_back",
    "with_interval",
    "z_scores",
]
