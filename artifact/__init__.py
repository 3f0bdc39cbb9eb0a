"""Builds as files: pack a tree, describe it, fetch and open it safely.

Knows nothing of Consul, of `hot` and `cold`, or of who ordered the build.

Importing this package costs an idle agent next to nothing. The verbs stand in modules of their own, and only the
first is for the agent: `artifact.pull.pull`, `artifact.pack.pack`, `artifact.pack.git_revision`,
`artifact.locate.load_manifest`, `artifact.locate.reference`.
"""

from artifact.errors import ArtifactRejected, ConfigError, HotcoldError, IllegalTransition, Refused, TransientError
from artifact.limits import Limits
from artifact.manifest import (
    FORMATS,
    IndexRef,
    Manifest,
    ManifestRef,
    PatchRef,
    check_build_id,
    decode_manifest,
    encode_manifest,
)
from artifact.pullwire import Progress, PullSettings

__all__ = [
    "FORMATS",
    "ArtifactRejected",
    "ConfigError",
    "HotcoldError",
    "IllegalTransition",
    "IndexRef",
    "Limits",
    "Manifest",
    "ManifestRef",
    "PatchRef",
    "Progress",
    "PullSettings",
    "Refused",
    "TransientError",
    "check_build_id",
    "decode_manifest",
    "encode_manifest",
]
