"""Owns what Prometheus reads: gauges and counters derived from the status document when asked.

What they mean is said in each one's help text; collecting and alerting are left to Prometheus.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from agent.states import STATE_NAMES
from agent.work import Observed


class _Snapshot(Collector):
    def __init__(self, status: Mapping[str, Any], observed: Observed) -> None:
        self._status = status
        self._observed = observed

    def collect(self) -> Iterator[Metric]:
        status = self._status
        yield from self._about_builds()
        yield _gauge("hotcold_state_seconds", "Seconds since the agent entered its state.", status["state"]["for_s"])
        yield _gauge("hotcold_order_serial", "Serial of the order that is obeyed.", status["highest_serial"])
        yield _gauge(
            "hotcold_order_refused",
            "1 while the document in the tier's key is not obeyed.",
            _flag(status["order_problem"]),
        )
        yield _gauge("hotcold_problem", "1 while the wanted build does not run for a reason.", _flag(status["problem"]))
        yield _gauge("hotcold_busy_workers", "Workers that the drain waits for.", len(status["waiting_for"]))
        yield _counter("hotcold_swaps", "Exchanges of hot and cold since the agent started.", self._observed.swap_count)
        phases = HistogramMetricFamily(
            "hotcold_phase_seconds", "How long phases took since the agent started.", labels=["phase"]
        )
        for name, durations in self._observed.phases.items():
            phases.add_metric([name], durations.buckets, durations.sum_s)
        yield phases
        deploys = HistogramMetricFamily(
            "hotcold_deploy_seconds", "From the order seen to the new build proved, since the agent started."
        )
        deploys.add_metric([], self._observed.deploys.buckets, self._observed.deploys.sum_s)
        yield deploys
        yield from self._about_workers()
        artifacts = status["artifacts"]
        yield _gauge(
            "hotcold_artifacts_failing",
            "1 while the last pull of an artifact has failed.",
            _flag(artifacts is not None and artifacts["failing_for_s"] is not None),
        )
        progress = status["progress"] or {"bytes_done": 0, "bytes_total": 0}
        yield _gauge("hotcold_fetch_done_bytes", "Bytes of the artifact fetched so far.", progress["bytes_done"])
        yield _gauge("hotcold_fetch_size_bytes", "Size of the artifact being fetched.", progress["bytes_total"])
        store = status["store"]
        yield _gauge("hotcold_store_connected", "1 while Consul answers.", _flag(store["is_connected"]))
        if store["last_answer_s_ago"] is not None:
            yield _gauge(
                "hotcold_store_last_answer_seconds", "Seconds since Consul last answered.", store["last_answer_s_ago"]
            )
        if status["disk"] is not None:
            yield _gauge("hotcold_disk_free_bytes", "Free bytes under the root.", status["disk"]["free_bytes"])
            yield _gauge("hotcold_disk_free_inodes", "Free inodes under the root.", status["disk"]["free_inodes"])
        yield _gauge("hotcold_agent_resident_bytes", "Resident memory of the agent.", status["agent"]["rss_bytes"])
        yield _gauge("hotcold_agent_up_seconds", "Seconds since the agent started.", status["agent"]["up_for_s"])

    def _about_workers(self) -> Iterator[Metric]:
        workers = self._status["workers"]
        yield _gauge("hotcold_workers", "Workers that are running.", workers["count"])
        uses = GaugeMetricFamily(
            "hotcold_workers_in_build", "Workers that live in a build's release directory.", labels=["build", "role"]
        )
        for use in workers["uses"]:
            uses.add_metric([use["build"], "hot" if use["is_hot"] else "other"], len(use["pids"]))
        yield uses

    def _about_builds(self) -> Iterator[Metric]:
        status = self._status
        identity = ["app", "tier", "host"]
        values = [status[label] for label in identity]
        state = GaugeMetricFamily("hotcold_state", "1 for the state the agent is in.", labels=[*identity, "state"])
        for name in STATE_NAMES.values():
            state.add_metric([*values, name], float(name == status["state"]["name"]))
        yield state
        build = GaugeMetricFamily("hotcold_build", "1 for the build in each role.", labels=[*identity, "role", "build"])
        if status["order"] is not None and status["order"]["build"] is not None:
            build.add_metric([*values, "wanted", status["order"]["build"]], 1)
        for role in ("hot", "cold", "standby"):
            if status[role] is not None:
                build.add_metric([*values, role, status[role]["build"]], 1)
        yield build
        version = GaugeMetricFamily("hotcold_agent_info", "1, with the agent's version.", labels=["version"])
        version.add_metric([status["agent"]["version"]], 1)
        yield version


def exposition(status: Mapping[str, Any], observed: Observed) -> bytes:
    """The text of `/metrics`."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(status, observed))
    return generate_latest(registry)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _flag(value: object) -> float:
    return 1.0 if value else 0.0
