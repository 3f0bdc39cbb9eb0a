"""Owns the check of PHP-FPM's settings for traps that serve the build before; what nginx passes on is `nginx`'s."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from agent.config import Settings
from hotcold.doctor.finding import Finding
from hotcold.doctor.nginx import serving_scopes
from hotcold.doctor.nginx_conf import read_configuration
from hotcold.doctor.patient import Patient

_LINE: Final = re.compile(r"^\s*(?P<name>[A-Za-z_.]+)\s*=\s*(?P<value>[^;\n]*)", re.MULTILINE)
_POOL_LINE: Final = re.compile(
    r"^\s*php(?:_admin)?_(?:value|flag)\[(?P<name>[A-Za-z_.]+)\]\s*=\s*(?P<value>[^;\n]*)", re.MULTILINE
)
_OFF: Final = frozenset({"0", "off", "no", "false", ""})
_PLACES: Final = (
    # php.ini, the directory of its parts, the directory of pools: Debian's for each version, then Red Hat's.
    ("php/*/fpm/php.ini", "conf.d", "pool.d"),
    ("php.ini", "php.d", "php-fpm.d"),
)


def look_at_php(patient: Patient) -> Sequence[Finding]:
    """Whether opcache could go on with code of the build before; nothing where no PHP-FPM is configured."""
    found = [(ini, settings) for ini, settings in _configurations(patient.etc)]
    if not found:
        return []
    if not _is_used(patient):
        return [Finding("php", "ok", "PHP-FPM is here, and nothing says that this app uses it")]
    findings = [finding for ini, settings in found for finding in traps(ini, settings, patient.settings)]
    return findings or [
        Finding(
            "php",
            "ok",
            f"{', '.join(str(ini) for ini, _ in found)}: nothing outlives a swap, given the path that nginx passes",
        )
    ]


def traps(ini: Path, php: Mapping[str, str], settings: Settings) -> Iterator[Finding]:
    """What is set that needs a reload after each swap, or never works."""
    if not _is_on(php, "opcache.enable", default=True):
        return
    is_reloaded = "after_swap" in settings.hooks
    reload = 'reload PHP-FPM after each swap: [hooks.after_swap] argv = ["systemctl", "reload", "php-fpm.service"]'
    if php.get("opcache.preload") and not is_reloaded:
        message = f"{ini}: opcache.preload keeps code of the build with which PHP-FPM started"
        yield Finding("php", "wrong", message, reload)
    if not _is_on(php, "opcache.use_cwd", default=True):
        message = f"{ini}: opcache.use_cwd = 0 takes files of the same relative name, of two builds too, for one"
        yield Finding("php", "wrong", message, "opcache.use_cwd = 1")
    if not _is_on(php, "opcache.validate_timestamps", default=True) and not is_reloaded:
        message = (
            f"{ini}: opcache.validate_timestamps = 0: what is reached by a path through hot stays with the first "
            "build, and entries of old builds stay until the cache is full"
        )
        yield Finding("php", "warning", message, reload)
    life_s = php.get("realpath_cache_ttl", "120")
    if life_s.isdecimal() and int(life_s) > _LONG_S and not is_reloaded:
        message = f"{ini}: realpath_cache_ttl = {life_s}: for so many s scripts see the old build at paths through hot"
        yield Finding("php", "warning", message, "lower it to 120, or open files by paths below __DIR__")


_LONG_S: Final = 600


def _is_on(php: Mapping[str, str], name: str, *, default: bool) -> bool:
    return php[name].lower() not in _OFF if name in php else default


def _configurations(etc: Path) -> Iterator[tuple[Path, Mapping[str, str]]]:
    """Each php.ini with what is in force: its parts in their order, then the pools, which win."""
    for pattern, parts, pools in _PLACES:
        for ini in sorted(etc.glob(pattern)):
            settings = dict(_settings(_LINE, [ini, *sorted((ini.parent / parts).glob("*.ini"))]))
            settings |= dict(_settings(_POOL_LINE, sorted((ini.parent / pools).glob("*.conf"))))
            yield ini, settings


def _settings(line: re.Pattern[str], paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace")
        yield from ((match["name"], match["value"].strip().strip("\"'")) for match in line.finditer(text))


def _is_used(patient: Patient) -> bool:
    """Whether the drain speaks of PHP, or nginx passes requests on from `hot`."""
    drain = patient.settings.drain
    named = [match.executable or match.command or match.unit or "" for match in drain.workers]
    if any("php" in name for name in named) or any(gauge.php_fpm is not None for gauge in drain.gauges):
        return True
    path = patient.etc / "nginx" / "nginx.conf"
    if not path.exists():
        return False
    directives, _ = read_configuration(path)
    return any(scope.fastcgi is not None for scope in serving_scopes(directives, patient.settings.identity.layout))
