"""Releases: builds cut from the main branch or mended on a release branch, uploaded, and recorded with their commits.

Deploying them is left to the commander's other parts. Nothing here imports another part of `checkpoint` but what reads
Consul.
"""

from checkpoint.release.cutting import Releaser
from checkpoint.release.git import Git
from checkpoint.release.ledger import Ledger, Standing
from checkpoint.release.places import Place, place_of
from checkpoint.release.records import BuildKey, read_build_keys, read_builds, record
from checkpoint.release.settings import ReleaseTable, UploadTable, check_release, load_release, parse_release
from checkpoint.release.uploading import Uploader
from checkpoint.release.workshop import Workshop

__all__ = [
    "BuildKey",
    "Git",
    "Ledger",
    "Place",
    "ReleaseTable",
    "Releaser",
    "Standing",
    "UploadTable",
    "Uploader",
    "Workshop",
    "check_release",
    "load_release",
    "parse_release",
    "place_of",
    "read_build_keys",
    "read_builds",
    "record",
]
