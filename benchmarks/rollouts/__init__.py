"""Simulated rollouts, for the question which rule stops what: worlds, rules, and one run of a rule in a world."""

from benchmarks.rollouts.rules import RULES, Rule
from benchmarks.rollouts.run import Outcome, run
from benchmarks.rollouts.world import SCENARIOS, Scenario, World

__all__ = ["RULES", "SCENARIOS", "Outcome", "Rule", "Scenario", "World", "run"]
