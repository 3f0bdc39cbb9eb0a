"""Owns the way that a hotfix takes: at which tier it begins, and what it passes by. Pure.

Which hosts a plan then reaches is left to `checkpoint.rollout.plan`.
"""

from __future__ import annotations

from dataclasses import dataclass

from checkpoint.pipeline import Pipeline, StepRule
from checkpoint.rollout.plan import Plan
from fleet import Build


@dataclass(frozen=True)
class Skipped:
    """A tier that a rollout passes by.

    Attributes:
        safeguards: what it would have gone through there, in words.
    """

    tier: str
    safeguards: tuple[str, ...]

    @property
    def said(self) -> str:
        """For people."""
        return f"{self.tier}: no {', no '.join(self.safeguards)}"


def first_tier_of(build: Build | None, hotfix_from: str | None) -> str | None:
    """The tier at which a rollout of a build begins where nobody says otherwise; None: the pipeline's first.

    Args:
        build: its record; None: it has none.
        hotfix_from: where the pipeline lets hotfixes begin; None: nowhere else.
    """
    return hotfix_from if build is not None and build.hotfix_of is not None else None


def skipped(pipeline: Pipeline, plan: Plan) -> tuple[Skipped, ...]:
    """What a plan leaves out of the pipeline, in its order."""
    kept = {tier.name for tier in plan.tiers}
    return tuple(
        Skipped(tier, _safeguards([step for step in pipeline.steps if step.tier == tier]))
        for tier in pipeline.tiers
        if tier not in kept
    )


def _safeguards(steps: list[StepRule]) -> tuple[str, ...]:
    tests = [step.smoke_test.command[0] for step in steps if step.smoke_test is not None]
    baked_s = sum(step.bake_s for step in steps)
    found = [f"smoke test ({tests[0]})"] if tests else []
    found += ["verdict"] if any(step.verdict for step in steps) else []
    found += [f"{baked_s / 60:g} min of baking"] if baked_s else []
    found += ["approval"] if any(step.approval for step in steps) else []
    return tuple(found) or ("step",)
