"""Owns the list of all checks, in the order in which they are told; leaves each to its module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from hotcold.doctor.account import look_at_access, look_at_agent, look_at_permissions, look_at_unit
from hotcold.doctor.artifacts import look_at_artifacts
from hotcold.doctor.clock import look_at_clock
from hotcold.doctor.consul import look_at_consul
from hotcold.doctor.disk import look_at_exchange, look_at_layout, look_at_space
from hotcold.doctor.finding import Finding
from hotcold.doctor.nginx import look_at_nginx
from hotcold.doctor.patient import Patient
from hotcold.doctor.php import look_at_php
from hotcold.doctor.programs import look_at_gauges, look_at_programs, look_at_settings
from hotcold.doctor.rounds import Check

_CHECKS: dict[str, Callable[[Patient], Sequence[Finding]]] = {
    "config": look_at_settings,
    "programs": look_at_programs,
    "agent": look_at_agent,
    "unit": look_at_unit,
    "permissions": look_at_permissions,
    "access": look_at_access,
    "layout": look_at_layout,
    "exchange": look_at_exchange,
    "space": look_at_space,
    "consul": look_at_consul,
    "artifacts": look_at_artifacts,
    "clock": look_at_clock,
    "gauges": look_at_gauges,
    "nginx": look_at_nginx,
    "php": look_at_php,
}


def checks_of(patient: Patient) -> list[Check]:
    """All checks of one app on this host."""
    return [Check(name, partial(look, patient)) for name, look in _CHECKS.items()]
