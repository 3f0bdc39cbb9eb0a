"""`[[metrics]]`: what is accepted, and how each mistake is told."""

from __future__ import annotations

import pytest

from artifact import ConfigError
from checkpoint.verdicts import parse_metrics

HEAD = '[[metrics]]\nname = "errors"\n'
COMMAND = HEAD + '[metrics.command]\nargv = ["count-errors"]\n'
PROMETHEUS = HEAD + '[metrics.prometheus]\nurl = "http://prometheus:9090"\nbad = "b"\ntotal = "t"\n'


def test_a_name_and_a_source_are_enough() -> None:
    """Everything else has a default."""
    [metric] = parse_metrics(COMMAND)
    assert metric.command is not None
    assert (metric.kind, metric.tolerance, metric.pause_at, metric.roll_back_at) == ("share", 1.5, 100.0, 100.0)
    assert parse_metrics("") == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEAD, "errors) has no source; exactly one is needed of `reports`, `prometheus`, `command`, `http`"),
        (COMMAND + '[metrics.http]\nurl = "http://x/y"\n', "has command and http; exactly one is needed"),
        (COMMAND + COMMAND, "metrics[0].name = 'errors': another metric has this name"),
        (COMMAND.replace("errors", "a/b"), "metric 'a/b' cannot be used"),
        (HEAD + "tolerence = 2\n", "unknown key `metrics.tolerence`; did you mean `metrics.tolerance`?"),
        (COMMAND + "timeout = 2\n", "unknown key `metrics.command.timeout`; did you mean `metrics.command.timeout_s`?"),
        (HEAD + "tolerance = 0.5\n", "metrics[0].tolerance = 0.5"),
        (HEAD + 'kind = "ratio"\n', "metrics[0].kind = 'ratio': allowed: share, rate"),
        (HEAD + "pause_at = inf\n[metrics.command]\nargv = ['x']", "must not be below pause_at = inf"),
        (HEAD + "tolerance = inf\n[metrics.command]\nargv = ['x']", "tolerance = inf: must be a finite number"),
        (HEAD + "wait_at = 200\n[metrics.command]\nargv = ['x']", "wait_at = 200: must not be above pause_at = 100"),
        (HEAD + "pause_at = 500\n[metrics.command]\nargv = ['x']", "roll_back_at = 100: must not be below pause_at"),
        (HEAD + "limit = 1\n[metrics.command]\nargv = ['x']", "limit = 1: a share is below 1"),
        (HEAD + "[metrics.reports]\n", "it needs a `limit`"),
        (HEAD + "[metrics.command]\nargv = []\n", "metrics[0].command.argv = []"),
        (HEAD + "[metrics.command]\nargv = ['']\n", "argv needs a program first"),
        (
            PROMETHEUS.replace('"b"', '"rate(x{app=~\\"$apps\\"})"'),
            "prometheus.bad: `$apps` is unknown; known are `$app`",
        ),
        (PROMETHEUS.replace('"t"', '"x{a=~\\"b$\\"}"'), "prometheus.total: a `$` is followed by no word"),
        (PROMETHEUS.replace("http://", ""), "must begin with http:// or https://"),
        (HEAD + '[metrics.http]\nurl = "ftp://x/$hosts"\n', "must begin with http:// or https://"),
    ],
)
def test_each_mistake_is_told_with_its_place(text: str, told: str) -> None:
    """And nothing is taken from a file that has one."""
    with pytest.raises(ConfigError) as caught:
        parse_metrics(text)
    assert told in str(caught.value)
