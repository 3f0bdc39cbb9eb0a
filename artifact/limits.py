"""Owns how much an archive may become and cost, and counts while it is opened; leaves reading it to its readers."""

from __future__ import annotations

from typing import Final

import msgspec

from artifact.errors import ArtifactRejected

RATIO_FREE_BYTES: Final = 64 << 20
"""Below this much expanded data no ratio is judged: small archives of zeros are common and harmless."""


class CpuTimeSpent(BaseException):
    """Raised, from a signal, in the process that opens an archive: it has used up `max_cpu_s`.

    No Exception, so that no reader takes it for a fault of the data.
    """


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one archive may at most become on disk, and cost while it is opened.

    Attributes:
        max_bytes: expanded bytes, the archive's own headers included.
        max_files: entries, directories that only paths imply included.
        max_ratio: expanded bytes per byte of the whole archive, judged above `RATIO_FREE_BYTES`.
        max_memory_bytes: address space of the process that opens it.
        max_cpu_s: of one core, in that process.
        allow_case_collisions: accept names that differ only by case or Unicode normalisation.
    """

    max_bytes: int = 20 << 30
    max_files: int = 2_000_000
    max_ratio: int = 200
    max_memory_bytes: int = 1 << 30
    max_cpu_s: int = 600
    allow_case_collisions: bool = False


class Meter:
    """Counts one archive against its limits, before the counted bytes are written.

    Args:
        limits: what is allowed.
        archive_bytes: size of the whole archive. The ratio is judged against it, not against what was read so far,
            so that one highly compressible file at the front does not condemn a sound archive.
    """

    def __init__(self, limits: Limits, archive_bytes: int) -> None:
        self._limits = limits
        self._archive_bytes = archive_bytes
        self._expanded_bytes = 0
        self._ceiling_bytes = min(limits.max_bytes, max(RATIO_FREE_BYTES, limits.max_ratio * archive_bytes))
        self.entry = ""
        """Name of the entry in work, for messages; empty before the first."""

    def expect(self, size_bytes: int) -> None:
        """Refuse an entry whose announced size cannot fit, before its first byte is written.

        Raises:
            ArtifactRejected: kind `archive_too_big`.
        """
        self._check(self._expanded_bytes + size_bytes)

    def expanded(self, count_bytes: int) -> None:
        """Count bytes that came out of the archive.

        Raises:
            ArtifactRejected: kind `archive_too_big`.
        """
        self._expanded_bytes += count_bytes
        self._check(self._expanded_bytes)

    def check_count(self, entry_count: int) -> None:
        """Refuse one entry too many.

        Raises:
            ArtifactRejected: kind `archive_too_big`.
        """
        if entry_count > self._limits.max_files:
            raise ArtifactRejected(
                f"archive has more than {self._limits.max_files} entries (max_files), the first too many is "
                f"{self.entry!a}: raise the limit if the build really is that large",
                kind="archive_too_big",
            )

    def out_of_memory(self) -> ArtifactRejected:
        """The error for an archive that takes more than `max_memory_bytes`."""
        return self._too_costly(f"more than {self._limits.max_memory_bytes} bytes of memory (max_memory_bytes)")

    def out_of_time(self) -> ArtifactRejected:
        """The error for an archive that takes more than `max_cpu_s`."""
        return self._too_costly(f"more than {self._limits.max_cpu_s} s of CPU time (max_cpu_s)")

    def _too_costly(self, cost: str) -> ArtifactRejected:
        where = f"the last entry was {self.entry!a}" if self.entry else "before its first entry"
        return ArtifactRejected(
            f"opening the archive takes {cost}, {where}: raise the limit if the build really is that large",
            kind="archive_too_big",
        )

    def _check(self, total_bytes: int) -> None:
        if total_bytes <= self._ceiling_bytes:
            return
        if self._ceiling_bytes == self._limits.max_bytes:
            limit = "max_bytes"
        else:
            limit = f"max_ratio {self._limits.max_ratio} of an archive of {self._archive_bytes} bytes"
        raise ArtifactRejected(
            f"archive entry {self.entry!a} expands the archive to more than {self._ceiling_bytes} bytes ({limit}): "
            "raise the limit if the build really is that large",
            kind="archive_too_big",
        )
