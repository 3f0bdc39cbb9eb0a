"""Owns the one reason why a host does not run what its order says, and what to do about it. Pure.

Asking the agent is left to `hotcold.why_command`.
"""

from __future__ import annotations

from dataclasses import dataclass

from hotcold.status_document import Status
from hotcold.terminal import duration, many, size


@dataclass(frozen=True)
class Reason:
    """Why.

    Attributes:
        kind: for scripts: `as_wanted`, a state's name, or the kind of a problem.
        message: one sentence for people.
        step: what helps; empty where only time does.
    """

    kind: str
    message: str
    step: str = ""


def reason_of(status: Status) -> Reason:
    """The first reason that holds, in the order in which an operator would look."""
    return (
        _of_hold(status)
        or _of_order(status)
        or _of_share(status)
        or _of_failure(status)
        or _of_work(status)
        or _of_steady(status)
    )


def _of_hold(status: Status) -> Reason | None:
    if status.state.name == "halted":
        return Reason("halted", status.state.detail, f"hotcold unhold --app {status.app}")
    if status.state.name != "held":
        return None
    return Reason("held", f"this host is held: {status.state.detail}", f"hotcold unhold --app {status.app}")


def _of_order(status: Status) -> Reason | None:
    problem, store = status.order_problem, status.store
    is_absent = problem is not None and problem.kind == "order_absent"
    if problem is not None and not is_absent:
        return Reason(
            problem.kind,
            f"the newest order is not obeyed: {problem.message}",
            f"give a right one: hotcold deploy MANIFEST --app {status.app} --tier {status.tier}",
        )
    if status.order is not None:
        return None
    if not store.is_connected:
        return Reason("store_unreachable", f"no order has been seen, and {_cut_off(status)}", _look_at_store(status))
    return Reason(
        "order_absent",
        f"nothing was ordered for tier {status.tier} of {status.app}",
        f"hotcold deploy MANIFEST --app {status.app} --tier {status.tier}",
    )


def _of_share(status: Status) -> Reason | None:
    order = status.order
    if order is None or order.build is not None:
        return None
    return Reason(
        "not_chosen",
        f"order {order.serial} is for {order.percent:g} % of the tier, and this host is not among them: it keeps "
        f"{_hot(status)}",
        f"deploy the same manifest with a higher --percent: hotcold deploy MANIFEST --app {status.app} "
        f"--tier {status.tier} --percent 100",
    )


def _of_failure(status: Status) -> Reason | None:
    """What has failed, for now or until another order comes."""
    wanted = "" if status.order is None else f"build {status.order.build}"
    problem = "it is not known why" if status.problem is None else status.problem.message
    kind = status.state.name if status.problem is None else status.problem.kind
    match status.state.name:
        case "backing_off":
            when = "" if status.retry_in_s is None else f"; next attempt in {duration(status.retry_in_s)}"
            return Reason(kind, f"{wanted} could not be deployed yet: {problem}{when}")
        case "rolled_back":
            again = f"order another build; or mend the cause, and: hotcold forget --app {status.app}"
            return Reason(kind, f"{wanted} failed its proof here, and {_hot(status)} serves again: {problem}", again)
        case "build_refused":
            return Reason(
                kind,
                f"{wanted} cannot be deployed here: {problem}",
                f"order another build; or mend the cause, and: hotcold forget --app {status.app}",
            )
        case _:
            return None


def _of_work(status: Status) -> Reason | None:
    wanted = "" if status.order is None else f"build {status.order.build}"
    lasts = f"for {duration(status.state.for_s)}"
    match status.state.name:
        case "fetching":
            return Reason("fetching", f"{wanted} is being fetched, {lasts}{_fetched(status)}")
        case "staged":
            return Reason("staged", f"{wanted} is on the disk; the `staged` hook looks at it, {lasts}")
        case "waiting_for_slot":
            return Reason(
                "waiting_for_slot",
                f"{wanted} is ready; as many hosts of the tier as may be are out of service, {lasts}",
                f"who: hotcold fleet --app {status.app} --tier {status.tier}",
            )
        case "draining":
            return Reason("draining", f"{wanted} is ready; {lasts} this host waits for {_busy(status)}")
        case "swapping" | "proving" | "watching" | "going_back":
            doing = {
                "swapping": f"{wanted} takes over this moment",
                "proving": f"{wanted} serves, and is being proved, {lasts}",
                "watching": f"it does: {wanted} serves, and is on watch, {lasts}",
                "going_back": "this host goes back to the build before this moment",
            }
            return Reason(status.state.name, doing[status.state.name])
        case _:
            return None


def _of_steady(status: Status) -> Reason:
    wanted = None if status.order is None else status.order.build
    hot = None if status.hot is None else status.hot.build
    if hot != wanted:
        return Reason(status.state.name, f"build {wanted} is wanted, {_hot(status)} serves, state {status.state.name}")
    if not status.store.is_connected:
        return Reason(
            "as_wanted",
            f"it does: build {hot} serves, which was the last order seen; {_cut_off(status)}",
            _look_at_store(status),
        )
    serial = "" if status.order is None else f", as order {status.order.serial} says"
    return Reason("as_wanted", f"it does: build {hot} serves{serial}")


def _hot(status: Status) -> str:
    return "nothing" if status.hot is None else f"build {status.hot.build or status.hot.name}"


def _cut_off(status: Status) -> str:
    store = status.store
    since = "" if store.failing_for_s is None else f" for {duration(store.failing_for_s)}"
    return f"{store.address} does not answer{since}" + (f": {store.error}" if store.error else "")


def _look_at_store(status: Status) -> str:
    return f"curl {status.store.address}/v1/status/leader"


def _fetched(status: Status) -> str:
    progress = status.progress
    if progress is None:
        return ""
    done = f": {size(progress.bytes_done)} of {size(progress.bytes_total)}"
    rate = "" if progress.rate_bytes is None else f", {size(round(progress.rate_bytes))}/s"
    return done + rate + ("" if progress.left_s is None else f", {duration(progress.left_s)} left")


def _busy(status: Status) -> str:
    if not status.waiting_for:
        return "its hooks"
    first = status.waiting_for[0]
    who = first.command if first.pid is None else f"pid {first.pid} ({first.command})"
    rest = len(status.waiting_for) - 1
    return f"{who}: {'; '.join(first.reasons)}" + (f"; and {many(rest, 'other', 'others')}" if rest else "")
