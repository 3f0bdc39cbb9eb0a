"""Owns services and checks: what the local agent knows and what the catalogue shows of it.

Pure: which checks run out is decided here by the `now_s` that is passed in; when to look is left to the caller.
The two views differ in one thing only, as in Consul: a check's output reaches the catalogue with the next change
of its status, or after `OUTPUT_DELAY_S`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from fleet.devserver.waiting import Change

Status = Literal["passing", "warning", "critical"]
OUTPUT_DELAY_S = 300.0
OUTPUT_MAX_BYTES = 4096


@dataclass(frozen=True)
class Service:
    """A service as it was registered."""

    id: str
    name: str
    tags: tuple[str, ...] = ()
    address: str = ""
    port: int = 0
    meta: dict[str, str] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=lambda: {"Passing": 1, "Warning": 1})
    enable_tag_override: bool = False
    create_index: int = 0
    modify_index: int = 0


@dataclass(frozen=True)
class Check:
    """A check. `ttl_s` 0: it never runs out. `service_id` empty: a check of the node.

    Attributes:
        shown_output: what the catalogue shows.
        deregister_after_s: how long the check may be critical before its service is removed; 0: for ever.
    """

    id: str
    name: str
    status: Status = "critical"
    notes: str = ""
    output: str = ""
    shown_output: str = ""
    service_id: str = ""
    service_name: str = ""
    service_tags: tuple[str, ...] = ()
    type: str = "ttl"
    ttl_s: float = 0.0
    deregister_after_s: float = 0.0
    create_index: int = 0
    modify_index: int = 0


class Catalog:
    """Services and checks of the one node.

    Attributes:
        services_index, checks_index: of the latest change in either.
        changes: names changed since they were last taken.
    """

    def __init__(self) -> None:
        self._services: dict[str, Service] = {}
        self._checks: dict[str, Check] = {}
        self._service_indexes: dict[str, int] = {}
        self._deadlines_s: dict[str, float] = {}
        self._critical_since_s: dict[str, float] = {}
        self._outputs_due_s: dict[str, float] = {}
        self.services_index = 0
        self.checks_index = 0
        self.changes: set[Change] = set()

    def service(self, service_id: str) -> Service | None:
        """The service, or None."""
        return self._services.get(service_id)

    def services(self, name: str | None = None) -> list[Service]:
        """Services by id, all or of one name."""
        return sorted(
            (service for service in self._services.values() if name is None or service.name == name),
            key=lambda service: service.id,
        )

    def service_index(self, name: str) -> int:
        """The index to wait after for one service's health."""
        return self._service_indexes.get(name, max(self.services_index, self.checks_index))

    def check(self, check_id: str) -> Check | None:
        """The check, or None."""
        return self._checks.get(check_id)

    def checks(self) -> list[Check]:
        """All checks by id."""
        return sorted(self._checks.values(), key=lambda check: check.id)

    def checks_of(self, service_id: str) -> list[Check]:
        """The checks that belong to a service; of the node itself for ''."""
        return [check for check in self.checks() if check.service_id == service_id]

    def put_service(self, new: Service, at: int) -> None:
        """Register or replace a service; an identical one changes nothing."""
        old = self._services.get(new.id)
        if old is not None and replace(new, create_index=old.create_index, modify_index=old.modify_index) == old:
            return
        self._services[new.id] = replace(new, create_index=old.create_index if old else at, modify_index=at)
        self._service_changed({new.name, old.name if old else new.name}, at)

    def put_check(self, new: Check, at: int, now_s: float) -> None:
        """Register or replace a check; one that is known keeps its status and output, and its TTL starts again."""
        old = self._checks.get(new.id)
        if old is not None:
            new = replace(new, status=old.status, output=old.output, shown_output=old.output)
        if new.ttl_s > 0:
            self._deadlines_s[new.id] = now_s + new.ttl_s
        self._store_check(new, at, now_s)

    def update_check(self, check_id: str, status: Status, output: str, at: int, now_s: float) -> bool:
        """Report a TTL check's status; False where there is no such check."""
        check = self._checks.get(check_id)
        if check is None or check.ttl_s <= 0:
            return False
        self._deadlines_s[check_id] = now_s + check.ttl_s
        self._set_status(check, status, _clipped(output), at, now_s)
        return True

    def remove_service(self, service_id: str, at: int) -> None:
        """Remove a service and its checks; an unknown one is removed already."""
        service = self._services.pop(service_id, None)
        if service is None:
            return
        for check in self.checks_of(service_id):
            self.remove_check(check.id, at)
        self._service_changed({service.name}, at)

    def remove_check(self, check_id: str, at: int) -> None:
        """Remove a check; an unknown one is removed already."""
        check = self._checks.pop(check_id, None)
        if check is None:
            return
        for times in (self._deadlines_s, self._critical_since_s, self._outputs_due_s):
            times.pop(check_id, None)
        self._check_changed(check, at)

    def expire(self, at: int, now_s: float) -> None:
        """Do what time alone does: checks that run out, services critical for too long, outputs held back."""
        for check_id in _due(self._deadlines_s, now_s):
            del self._deadlines_s[check_id]
            check = self._checks[check_id]
            said = f" (last output before timeout follows): {check.output}" if check.output else ""
            self._set_status(check, "critical", f"TTL expired{said}", at, now_s)
        for check_id in _due(self._removals_due_s(), now_s):
            if check_id in self._checks:
                self.remove_service(self._checks[check_id].service_id, at)
        for check_id in _due(self._outputs_due_s, now_s):
            self._store_check(self._checks[check_id], at, now_s)

    def next_deadline_s(self) -> float | None:
        """When `expire` has something to do next."""
        times_s = (*self._deadlines_s.values(), *self._removals_due_s().values(), *self._outputs_due_s.values())
        return min(times_s, default=None)

    def _removals_due_s(self) -> dict[str, float]:
        return {
            check_id: since_s + self._checks[check_id].deregister_after_s
            for check_id, since_s in self._critical_since_s.items()
            if self._checks[check_id].deregister_after_s > 0
        }

    def _set_status(self, check: Check, status: Status, output: str, at: int, now_s: float) -> None:
        updated = replace(check, status=status, output=output)
        if status != check.status:
            self._store_check(updated, at, now_s)
            return
        self._checks[check.id] = updated
        if output != check.shown_output:
            self._outputs_due_s.setdefault(check.id, now_s + OUTPUT_DELAY_S)

    def _store_check(self, new: Check, at: int, now_s: float) -> None:
        self._outputs_due_s.pop(new.id, None)
        if new.status == "critical":
            self._critical_since_s.setdefault(new.id, now_s)
        else:
            self._critical_since_s.pop(new.id, None)
        new = replace(new, shown_output=new.output)
        old = self._checks.get(new.id)
        if old is not None and replace(new, create_index=old.create_index, modify_index=old.modify_index) == old:
            return
        self._checks[new.id] = replace(new, create_index=old.create_index if old else at, modify_index=at)
        self._check_changed(new, at)

    def _check_changed(self, check: Check, at: int) -> None:
        self.checks_index = at
        self.changes.add(("check", check.id))
        names = {check.service_name} if check.service_id else {service.name for service in self._services.values()}
        self._mark(names, at)

    def _service_changed(self, names: Iterable[str], at: int) -> None:
        self.services_index = at
        self._mark(names, at)

    def _mark(self, names: Iterable[str], at: int) -> None:
        for name in names:
            self._service_indexes[name] = at
            self.changes.add(("service", name))


def _due(times_s: dict[str, float], now_s: float) -> list[str]:
    return [name for name, time_s in times_s.items() if time_s <= now_s]


def _clipped(output: str) -> str:
    size = len(output.encode())
    if size <= OUTPUT_MAX_BYTES:
        return output
    head = output.encode()[:OUTPUT_MAX_BYTES].decode(errors="ignore")
    return f"{head} ... (captured {OUTPUT_MAX_BYTES} of {size} bytes)"
