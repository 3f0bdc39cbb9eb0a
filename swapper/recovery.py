"""Owns putting right what a crash, or an operation that failed half-way, left; decides from the disk alone.

Runs at every start and before every preparation; what is *found* on the disk is read by `disk`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import msgspec

from swapper.disk import Survey, choose_standby
from swapper.failures import explain, explained, tolerating_full_disk
from swapper.kernel import Kernel
from swapper.layout import COLD, TRASH_PREFIX, Layout
from swapper.links import Links
from swapper.records import VERSION, Counter, Record, Records
from swapper.removal import discard, empty_trash


def recover(
    found: Survey,
    *,
    layout: Layout,
    links: Links,
    records: Records,
    counter: Counter,
    releases_fd: int,
    kernel: Kernel,
    now: Callable[[], datetime],
    keeps_resumable: bool,
) -> dict[str, str]:
    """Make the disk such as if every operation had ended or never begun; idempotent.

    With `keeps_resumable`, preparations that can be gone on with stay.

    Never touches `hot`, a tree without a record, or a link that is not ours.

    Returns:
        Trees that could not be removed, by name, each with the reason; tried again the next time.

    Raises:
        ConfigError: kind `foreign_link`, or the disk is not writable.
        TransientError: the device failed.
    """
    found.hot_link.require_ours()
    found.cold_link.require_ours()
    links.remove_leftovers()
    records.remove_leftovers()
    counter.remove_leftovers()
    _aim_cold(found, links)
    leftover = [name for name in found.filling if not (keeps_resumable and found.records[name].is_resumable)]
    failures = dict(_remove_leftover_trees(found, leftover, layout, records, releases_fd, kernel))
    _remove_leftover_tables(found, layout, gone=leftover)
    _record_hot(found, records, now)
    return failures


def _aim_cold(found: Survey, links: Links) -> None:
    """Aim `cold` at the standby unless it shows a whole release that is not hot."""
    cold = found.disk.cold
    if cold is not None and cold.complete and cold != found.disk.hot:
        return
    standby = choose_standby(found.disk.releases, found.hot_link.release)
    if standby is not None:
        links.aim(COLD, standby.name)
    elif found.cold_link.release is not None:
        links.drop_cold()


def _remove_leftover_trees(  # noqa: PLR0917 - the seams of `recover`
    found: Survey, leftover: Sequence[str], layout: Layout, records: Records, releases_fd: int, kernel: Kernel
) -> Iterator[tuple[str, str]]:
    """Remove trees that never became releases; one that resists is no reason not to serve the others."""
    for trash in found.trash:
        try:
            empty_trash(trash, releases_fd=releases_fd)
        except OSError as error:
            yield trash, str(explain(error, "remove", layout.releases / trash))
    for name in leftover:
        try:
            discard(name, releases_fd=releases_fd, kernel=kernel)
        except OSError as error:
            yield f"{TRASH_PREFIX}{name}", str(explain(error, "remove", layout.releases / name))
        else:
            records.remove(name)
    for name in found.orphans:
        records.remove(name)


def _remove_leftover_tables(found: Survey, layout: Layout, *, gone: Sequence[str]) -> None:
    """Remove tables of releases that are gone, unless a preparation began with such a one's tree."""
    needed = {release.name for release in found.disk.releases}.difference(gone)
    needed |= {record.base for name, record in found.records.items() if record.base is not None and name not in gone}
    with explained("clean", layout.tables):
        for path in layout.tables.iterdir():
            if path.name not in needed:
                path.unlink(missing_ok=True)


def _record_hot(found: Survey, records: Records, now: Callable[[], datetime]) -> None:
    """Record what the link says: after a crash between swap and record, or when the record was lost."""
    hot = found.disk.hot
    if hot is None:
        return
    known = found.records.get(hot.name)
    if known is not None and (known.served > 0 or known.status != "complete"):
        return
    record = known or Record(
        v=VERSION,
        name=hot.name,
        build=hot.build_id,
        digest="",
        status="complete",
        served=0,
        proved=False,
        created=now().isoformat(),
    )
    with tolerating_full_disk():  # the link has the truth; the next start or preparation records it
        records.write(msgspec.structs.replace(record, served=found.highest_served + 1))
