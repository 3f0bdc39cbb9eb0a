"""checkpoint.toml: what is taken, what is refused, and with which words."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from artifact import ConfigError
from checkpoint.pipeline import Pipeline, default_settings, load_settings, parse_settings

TIER = 'app = "shop"\n[[tiers]]\nname = "prod"\n'


def test_the_default_is_the_whole_process() -> None:
    """Staging with a smoke test and an approval, dogfood, canary, and production by five steps in business hours."""
    pipeline = default_settings("shop").pipeline
    shares = [(step.tier, step.percent) for step in pipeline.steps]
    prod = [("prod", percent) for percent in (10.0, 25.0, 50.0, 75.0, 100.0)]
    assert shares == [("staging", 100.0), ("dogfood", 100.0), ("canary", 100.0), *prod]
    assert pipeline.steps[0].smoke_test is not None
    assert [step.approval for step in pipeline.steps] == [True] + [False] * 7
    assert all(step.verdict for step in pipeline.steps)
    [window] = pipeline.calendar.windows
    assert "staging" not in window.tiers
    assert sum((step.length for step in pipeline.steps), timedelta()) < timedelta(hours=2)


def test_a_file_without_tiers_has_the_default_ones() -> None:
    assert parse_settings('app = "shop"').pipeline == default_settings("shop").pipeline


def test_a_pipeline_survives_its_plan() -> None:
    """It is frozen into the plan as JSON, and read back the same."""
    pipeline = default_settings("shop").pipeline
    assert msgspec.json.decode(msgspec.json.encode(pipeline), type=Pipeline) == pipeline


def test_steps_take_what_they_do_not_say_from_their_tier() -> None:
    text = TIER + "bake_s = 30\nsteps = [10, { percent = 50, bake_s = 60, approval = true }, 100]\n"
    steps = parse_settings(text).pipeline.steps
    assert [(step.percent, step.bake_s, step.approval) for step in steps] == [
        (10.0, 30.0, False),
        (50.0, 60.0, True),
        (100.0, 30.0, False),
    ]


WINDOW = '[[windows]]\nname = "w"\nzone = "Europe/Berlin"\nopens = 09:00:00\ncloses = 17:00:00\n'
WRONG = [
    ('app = "shop"\ntier = 1', "unknown key `tier`; did you mean `tiers`?"),
    (
        TIER + "steps = [{ percent = 10, bake = 3 }, 100]",
        "unknown key `tiers.steps.bake`; did you mean `tiers.steps.bake_s`?",
    ),
    (TIER + 'clears = "all"', "tiers[0].clears = 'all': allowed: tier, step"),
    (TIER + 'bake_s = "long"', "tiers[0].bake_s = 'long'"),
    (TIER + "steps = [10, 50]", "tiers.prod.steps ends at 50: the last step must be 100"),
    (TIER + "steps = [50, 10, 100]", "tiers.prod.steps: 10: shares must rise"),
    (TIER + "steps = []", "tiers.prod.steps is empty"),
    (TIER + '[[tiers]]\nname = "prod"', '"prod" stands there twice'),
    (TIER + "max_unavailable = -1", "must be a count from 0, or a share of the tier"),
    (TIER + "smoke_test = { command = [] }", "smoke_test needs a command"),
    (TIER + "[budget]\npercent = 100", "budget: count and percent"),
    (TIER + WINDOW.replace("Berlin", "Atlantis"), 'windows.zone = "Europe/Atlantis": no IANA time zone'),
    (TIER + WINDOW + 'tiers = ["prd"]', 'tiers = "prd": no such tier; known here: prod'),
    (TIER + "bake_s = 99999\n" + WINDOW, "it would never start"),
    (TIER + '[[webhooks]]\nname = "w"\nurl = "ftp://x"', "url must begin with http"),
    (TIER + "[commander]\nlease_s = 0", "commander.lease_s = 0"),
    ("app = ", "not valid TOML"),
    ('app = "../x"', "app '../x' cannot be used"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text)
    assert message in str(caught.value)


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.toml"
    with pytest.raises(ConfigError, match="no such file"):
        load_settings(path)
    path.write_text("tires = 1")
    with pytest.raises(ConfigError, match=rf"{path}: unknown key `tires`; did you mean `tiers`"):
        load_settings(path)


def test_each_step_may_have_to_end_before_closing_instead_of_the_tier() -> None:
    """Seven hours of steps fit into no window of four; one by one they do."""
    text = TIER + "bake_s = 6000\nsteps = [10, 25, 50, 100]\n" + WINDOW.replace("17:", "13:")
    with pytest.raises(ConfigError, match="would never start"):
        parse_settings(text)
    assert parse_settings(text.replace("bake_s", 'clears = "step"\nbake_s')).pipeline.steps[0].clears == "step"
