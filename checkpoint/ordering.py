"""Owns what the next order of a tier is: its serial, what the rest of the tier runs, who is chosen. Pure.

Writing it is left to `checkpoint.placing`.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from artifact import ConfigError, ManifestRef, Refused
from checkpoint.reading import HostKey, TierKey
from fleet import VERSION, Order, cutoff_for, wanted_build

ALL_PERCENT: Final = 100.0

_SHARE: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?%")

# Situations in which a host says of a build: not here.
_REJECTING: Final = frozenset({"rolled_back", "build_refused"})


@dataclass(frozen=True)
class Wish:
    """What a commander asks of one tier.

    Attributes:
        percent: share of the tier's hosts, above 0, at most 100.
        max_unavailable: hosts that may be out of service at once, as a count, or as a share such as "10%"; 0: no limit;
            None: as the present order has it.
        not_after: RFC 3339 time with a zone, or None.
    """

    app: str
    tier: str
    build: ManifestRef
    percent: float = ALL_PERCENT
    max_unavailable: int | str | None = None
    not_after: str | None = None
    reason: str = ""
    by: str = ""


def next_order(wish: Wish, key: TierKey, hosts: Sequence[HostKey], *, salt: str, at: str) -> Order:
    """The order that carries out `wish`.

    Raising or lowering the share of the build that is being rolled out keeps its salt and `previous`, so that the same
    hosts stay chosen; another build starts afresh, and its `previous` is what the tier is admitted at.

    Args:
        wish: what is asked.
        key: the tier's key; a faulty one counts as empty, except that its serial is exceeded.
        hosts: the tier's hosts.
        salt: for a build that is new to the tier.
        at: RFC 3339 time of writing.

    Raises:
        ConfigError: `percent` or `max_unavailable` out of range.
        Refused: the build's id is in use in this tier for another artifact.
    """
    if not 0 < wish.percent <= ALL_PERCENT:
        raise ConfigError(f"percent {wish.percent:g} is out of range: above 0, at most 100", kind="bad_percent")
    check_limit(wish.max_unavailable)
    current = key.order
    for known in (current.build, current.previous) if current is not None else ():
        if known is not None and known.id == wish.build.id and known.digest != wish.build.digest:
            raise Refused(
                f"build id {wish.build.id} is in use in {wish.app}/{wish.tier} for another artifact "
                f"({known.digest}, now {wish.build.digest}): an id is for ever; pack it again under a new one",
                kind="build_id_reused",
            )
    if current is not None and _is_same(current.build, wish.build):
        salt, previous = current.salt, current.previous
    else:
        previous = None if current is None else admitted_build(current, hosts)
    return Order(
        v=VERSION,
        app=wish.app,
        tier=wish.tier,
        serial=next_serial(key, hosts),
        build=wish.build,
        previous=previous,
        percent=wish.percent,
        cutoff=cutoff_for([host.host for host in hosts], salt, wish.percent),
        salt=salt,
        max_unavailable=_max_unavailable(wish.max_unavailable, current, len(hosts)),
        not_after=wish.not_after,
        reason=wish.reason,
        by=wish.by,
        at=at,
        known_index=known_index([host.joined for host in hosts], ()) if wish.percent < ALL_PERCENT else UNSET,
    )


def known_index(chosen: Iterable[int], newcomers: Iterable[int]) -> int | UnsetType:
    """What an order for a share names as `known_index`; unset where nobody who is chosen is known.

    All that were chosen joined before all newcomers, unless reports were deleted, or imported into another Consul. Then
    it is the index by which the fewest are taken for what they are not.

    Args:
        chosen: when each of the hosts that shall run the build joined.
        newcomers: when each of the hosts joined that must not, though its position is below the cutoff.
    """
    known, new = sorted(chosen), sorted(newcomers)
    mistakes = ((len(known) - bisect_right(known, each) + bisect_right(new, each), each) for each in known)
    return min(mistakes, default=(0, 0))[1] or UNSET


def rollback_order(
    key: TierKey, hosts: Sequence[HostKey], *, max_unavailable: int | str | None, reason: str, by: str, at: str
) -> Order:
    """The order that gives the whole tier the build before the present one.

    Its `previous` is the same build, so that a second rollback cannot roll forward to the bad one.

    Raises:
        Refused: there is no order, or none to go back to.
    """
    current = key.order
    if current is None:
        raise Refused("nothing is ordered here, so there is nothing to go back from", kind="nothing_to_roll_back")
    if current.previous is None or _is_same(current.previous, current.build):
        raise Refused(
            f"nothing to go back to: order {current.serial} ({current.build.id}) knows no build before it; "
            "deploy the manifest of the build you want",
            kind="nothing_to_roll_back",
        )
    return msgspec.structs.replace(
        current,
        serial=next_serial(key, hosts),
        build=current.previous,
        previous=current.previous,
        percent=ALL_PERCENT,
        cutoff=1.0,
        known_index=UNSET,
        max_unavailable=_max_unavailable(max_unavailable, current, len(hosts)),
        not_after=None,  # the rollout's window must not keep a host from going back
        reason=reason,
        by=by,
        at=at,
    )


def chosen_hosts(order: Order, hosts: Iterable[HostKey]) -> tuple[str, ...]:
    """Names of the hosts whose wanted build is the order's `build`."""
    return tuple(host.host for host in hosts if wanted_build(order, host.host, host.joined) == order.build)


def _is_same(one: ManifestRef, other: ManifestRef) -> bool:
    """Whether two references mean one build; places to fetch it from may differ."""
    return (one.id, one.digest) == (other.id, other.digest)


def admitted_build(current: Order, hosts: Sequence[HostKey]) -> ManifestRef | None:
    """The build that the tier at large may run while the next one is tried on a part of it.

    That is the present one once it was ordered for the whole tier, unless the tier answered by rejecting it: the hosts
    beyond the cutoff would then be sent to a build that failed, under a new serial which clears their refusal.
    """
    if current.percent < ALL_PERCENT:
        return current.previous
    answers = [host.report for host in hosts if host.report is not None and host.report.serial == current.serial]
    is_rejected = any(answer.state in _REJECTING and answer.wanted == current.build.id for answer in answers)
    is_running = any(answer.state == "steady" and answer.hot == current.build.id for answer in answers)
    return current.previous if is_rejected and not is_running else current.build


def next_serial(key: TierKey, hosts: Sequence[HostKey]) -> int:
    """Above the key's, and above all that hosts ever obeyed: with a restored snapshot's they would refuse all."""
    obeyed = [host.report.highest for host in hosts if host.report is not None]
    return max([key.claimed_serial, *obeyed], default=0) + 1


def check_limit(limit: int | str | None) -> None:
    """Refuse what is no limit on hosts out of service.

    Raises:
        ConfigError: neither a count, nor a share above 0 % and up to 100 %.
    """
    if isinstance(limit, str):
        is_limit = _SHARE.fullmatch(limit) is not None and 0 < float(limit[:-1]) <= ALL_PERCENT
    else:
        is_limit = limit is None or limit >= 0
    if not is_limit:
        raise ConfigError(
            f'max unavailable {limit!r}: must be a count from 0, or a share of the tier such as "10%"',
            kind="bad_max_unavailable",
        )


def _max_unavailable(wished: int | str | None, current: Order | None, host_count: int) -> int | None:
    if wished is None:
        return None if current is None else current.max_unavailable
    if isinstance(wished, str):
        # Rounded down, for it is a limit; but a limit of none would let nobody deploy.
        return max(1, math.floor(float(wished[:-1]) * host_count / 100 + 1e-9))
    return wished or None
