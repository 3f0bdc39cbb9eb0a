"""Owns how numbers of a verdict read in a sentence. Pure.

What the sentence says is left to `checkpoint.verdicts.judging`.
"""

from __future__ import annotations

import math
from typing import Final

from checkpoint.verdicts.evidence import Evidence
from checkpoint.verdicts.ratio import Ratio

_PLAIN_BELOW: Final = 1e6
_NOTHING_BELOW: Final = 0.01
_SUPERSCRIPTS: Final = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def as_number(logarithm: float) -> str:
    """The number of that natural logarithm: plain where it is short, else as a power of ten; tiny ones are not told."""
    if logarithm < math.log(_PLAIN_BELOW):
        value = math.exp(logarithm)
        if value < _NOTHING_BELOW:
            return f"below {_NOTHING_BELOW:g}"
        return f"{value:.0f}" if value >= 10 else f"{value:.2g}"  # noqa: PLR2004 - two digits are enough
    exponent = math.floor(logarithm / math.log(10))
    mantissa = math.exp(logarithm - exponent * math.log(10))
    return f"{mantissa:.1f}·10{str(exponent).translate(_SUPERSCRIPTS)}"


def evidence_in_words(logarithm: float) -> str:
    """`evidence 250`: how much likelier the counts are under a worse build than under one that is tolerated."""
    return f"evidence {as_number(logarithm)}"


def counts_in_words(evidence: Evidence, ratio: Ratio | None) -> str:
    """`updated hosts: 41 bad of 18 300; others: 22 of 171 900; expected on updated 2.34: 18 times (95 %: 7 to 49)`."""
    parts = [f"updated hosts: {_count(evidence.updated_bad)} bad of {_count(evidence.updated_total)}"]
    if evidence.others_total > 0:
        parts.append(f"others: {_count(evidence.others_bad)} of {_count(evidence.others_total)}")
    if evidence.expected > 0:
        known = None if ratio is None else ratio.estimate
        times = evidence.updated_bad / evidence.expected if known is None else known
        between = "" if ratio is None else f" ({_certain(ratio)}: {_between(ratio)})"
        parts.append(f"expected on updated {_expected(evidence.expected)}: {times_in_words(times)} times{between}")
    elif ratio is not None:
        parts.append(f"times as frequent ({_certain(ratio)}): {_between(ratio)}")
    return "; ".join(parts)


def times_in_words(value: float) -> str:
    """Two digits, or all before the point."""
    return f"{value:,.0f}".replace(",", " ") if value >= 10 else f"{value:.2g}"  # noqa: PLR2004 - two digits are enough


def _between(ratio: Ratio) -> str:
    lower, upper = times_in_words(ratio.lower), "" if ratio.upper is None else times_in_words(ratio.upper)
    if ratio.upper is None:
        return f"at least {lower}" if ratio.lower > 0 else "anything"
    return f"{lower} to {upper}" if ratio.lower > 0 else f"at most {upper}"


def _certain(ratio: Ratio) -> str:
    return f"{ratio.confidence * 100:g} %"


def _expected(value: float) -> str:
    return _count(round(value)) if value >= 1000 else f"{value:.3g}"  # noqa: PLR2004 - three digits and no power of ten


def _count(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if value == round(value) else f"{value:,.1f}".replace(",", " ")
