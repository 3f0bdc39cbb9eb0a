"""Owns putting files to S3 and to stores that speak its protocol; reading is left to `artifact.s3`, and its extra.

Where the store is, and who may write, is found in the environment's usual variables, or from the machine's role.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, urlsplit

from artifact import ConfigError, PullSettings, TransientError
from artifact.s3 import s3_store
from checkpoint.release.places import Content, content_at
from checkpoint.release.settings import UploadTable

# artifact.s3 has said already what to install where this is missing.
import obstore  # isort: skip
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError  # isort: skip


class S3Place:
    """`s3://bucket/prefix`."""

    def __init__(self, table: UploadTable) -> None:
        self.table = table
        parts = urlsplit(table.to)
        self._prefix = parts.path.strip("/")
        try:
            self._store = s3_store(parts.netloc, PullSettings(), timeout=timedelta(seconds=table.timeout_s))
        except (BaseError, ValueError) as error:
            raise ConfigError(f"{table.to}: {_said(error)}; check AWS_REGION and AWS_ENDPOINT_URL") from error

    def find(self, name: str) -> Content | None:
        """See `checkpoint.release.places.Place`."""
        return content_at(f"{self.table.to.rstrip('/')}/{quote(name)}")

    def put(self, name: str, path: Path) -> None:
        """See `checkpoint.release.places.Place`; a large file goes in parts, and is there when all of them are."""
        try:
            obstore.put(self._store, f"{self._prefix}/{name}" if self._prefix else name, path)
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise ConfigError(
                f"{self.table.to} does not let us write {name}: give this machine a role, or a key in its environment",
                kind="http_403",
            ) from error
        except FileNotFoundError as error:
            raise ConfigError(f"{self.table.to}: there is no such bucket; make it first", kind="http_404") from error
        except (BaseError, OSError) as error:
            raise TransientError(
                f"{self.table.to}: {name} cannot be written: {_said(error)}; check AWS_REGION, AWS_ENDPOINT_URL and "
                "the network",
                kind="upload_failed",
            ) from error


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
