"""Owns what the agent remembers over restarts: order, when it joined, refusal, hold, watch, absence, starts.

Release directories and their records are left to `swapper`. Every file is written durably and read strictly; one that
cannot be read is reported and counts as absent, so that a damaged file never stops the agent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from agent.states import Refusal
from artifact import HotcoldError, TransientError
from fleet import Order, decode_order, encode
from swapper import remove_temporary, write_durably

ORDER: Final = "order.json"
REFUSAL: Final = "refusal.json"
HOLD: Final = "hold.json"
ABSENCE: Final = "out-of-service.json"
WATCH: Final = "watch.json"
STARTS: Final = "starts.json"
MAINTENANCE: Final = "maintenance.json"
JOINED: Final = "joined.json"


class Hold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The operator's wish that nothing is started."""

    reason: str


class Absence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The host left service for a deploy and has not returned. `swapped`: its workers must be told of a new tree."""

    swapped: bool


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The release directory that is on watch; of no meaning once another one is hot."""

    release: str


class Starts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often the agent was started since it last came to rest."""

    count: int


class OutOfService(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ids of the Consul services that were put into maintenance mode and are not known to be back."""

    services: tuple[str, ...]


class Joined(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Consul's index at which this host reported for the first time; None: it had not, when that last mattered."""

    index: int | None


_Kept = TypeVar("_Kept", Refusal, Hold, Absence, Watch, Starts, OutOfService, Joined)


@dataclass(frozen=True)
class Recollection:
    """What a former life left. `problems` name files that could not be read."""

    order: Order | None
    refusal: Refusal | None
    hold: Hold | None
    absence: Absence | None
    watch: Watch | None
    starts: Starts | None
    out_of_service: OutOfService | None
    joined: Joined | None
    problems: tuple[str, ...]


class Memory:
    """The agent's own files in its state directory. Blocking."""

    def __init__(self, state_dir: Path) -> None:
        self._dir = state_dir

    def recall(self) -> Recollection:
        """Read everything. Never raises for a damaged file."""
        problems: list[str] = []
        return Recollection(
            order=self._recall_order(problems),
            refusal=self._recall(REFUSAL, Refusal, problems),
            hold=self._recall(HOLD, Hold, problems),
            absence=self._recall(ABSENCE, Absence, problems),
            watch=self._recall(WATCH, Watch, problems),
            starts=self._recall(STARTS, Starts, problems),
            out_of_service=self._recall(MAINTENANCE, OutOfService, problems),
            joined=self._recall(JOINED, Joined, problems),
            problems=tuple(problems),
        )

    def remove_leftovers(self) -> None:
        """Remove what a crash while something was kept has left.

        Raises:
            TransientError, ConfigError: the disk cannot be written; what is left only takes room.
        """
        for name in (ORDER, REFUSAL, HOLD, ABSENCE, WATCH, STARTS, MAINTENANCE, JOINED):
            remove_temporary(self._dir / name)

    def keep_order(self, order: Order) -> None:
        """Remember the order with the highest serial that this host obeys."""
        write_durably(self._dir / ORDER, encode(order))

    def keep_joined(self, joined: Joined) -> None:
        """Remember when this host joined its tier."""
        self._keep(JOINED, joined)

    def keep_refusal(self, refusal: Refusal | None) -> None:
        """Remember the refusal, or forget it."""
        self._keep(REFUSAL, refusal)

    def keep_hold(self, hold: Hold | None) -> None:
        """Remember the hold, or forget it."""
        self._keep(HOLD, hold)

    def keep_absence(self, absence: Absence | None) -> None:
        """Remember that the host is out of service, or that it is back."""
        self._keep(ABSENCE, absence)

    def keep_watch(self, watch: Watch | None) -> None:
        """Remember what is on watch, or that nothing is."""
        self._keep(WATCH, watch)

    def keep_starts(self, starts: Starts | None) -> None:
        """Remember how often the agent was started without coming to rest; None: it has come to rest."""
        self._keep(STARTS, starts)

    def is_absent(self) -> bool:
        """Whether the host left service and has not returned."""
        return (self._dir / ABSENCE).exists()

    def keep_out_of_service(self, left: OutOfService | None) -> None:
        """Remember which Consul services are in maintenance mode by our doing, or that none is."""
        self._keep(MAINTENANCE, left)

    def _keep(self, name: str, value: msgspec.Struct | Refusal | None) -> None:
        if value is None:
            try:
                (self._dir / name).unlink(missing_ok=True)
            except OSError as error:
                raise TransientError(f"cannot remove {self._dir / name}: {error}", kind="os_error") from error
        else:
            write_durably(self._dir / name, msgspec.json.encode(value))

    def _recall_order(self, problems: list[str]) -> Order | None:
        data = self._read(ORDER, problems)
        if data is None:
            return None
        try:
            return decode_order(data)
        except HotcoldError as error:
            problems.append(f"{self._dir / ORDER}: {error}; orders of any serial are obeyed until the next one is kept")
            return None

    def _recall(self, name: str, kind: type[_Kept], problems: list[str]) -> _Kept | None:
        data = self._read(name, problems)
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            problems.append(f"{self._dir / name}: cannot be decoded, counts as absent: {error}")
            return None

    def _read(self, name: str, problems: list[str]) -> bytes | None:
        try:
            return (self._dir / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            problems.append(f"{self._dir / name}: cannot be read, counts as absent: {error}")
            return None
