"""Owns what programs send: path, query and body of each operation, as strict types. Pure.

What is done with them is left to the operations. Descriptions here stand in the OpenAPI document.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

MAX_LIMIT: Final = 200
MAX_OVERRIDE_MIN: Final = 24 * 60

_SOMETHING: Final = r"[^\s\x1c-\x1f\x85\ufeff]"
"""A character that is no white space, for Python and for ECMAScript: each has some of its own."""

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
"""Of a tier or a host: what can stand in a key."""
BuildId = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$", description="the build's id", examples=["2026-11-24.1"])
]
Reason = Annotated[
    str,
    Meta(
        pattern=_SOMETHING,
        max_length=4000,
        description="why; one line of it, of 500 characters, is in the audit",
        examples=["looked at staging"],
    ),
]
Note = Annotated[str, Meta(max_length=4000, description="a note for whoever comes next")]
Person = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$", description="a person's name", examples=["ben"])
]
Index = Annotated[
    int, Meta(ge=1, le=2**63 - 1, description="`index` of the rollout that the decision was made on", examples=[4711])
]
Number = Annotated[int, Meta(ge=1, le=999_999_999, description="number of a rollout", examples=[1])]
Text = Annotated[str, Meta(max_length=100)]


class _Sent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is sent: every name known, every type strict."""


class RolloutPath(_Sent, frozen=True):
    """Names a rollout."""

    number: Number


class HostPath(_Sent, frozen=True):
    """Names a host."""

    tier: Annotated[Name, Meta(examples=["prod"])]
    host: Annotated[Name, Meta(examples=["web-1"])]


class RolloutsQuery(_Sent, frozen=True):
    """Which rollouts."""

    limit: Annotated[int, Meta(ge=1, le=50, description="how many at most")] = 20
    before: Annotated[Number, Meta(description="only those with a lower number")] | UnsetType = UNSET


class HostsQuery(_Sent, frozen=True):
    """Which hosts."""

    tier: Annotated[str, Meta(max_length=63, description="only hosts of this tier")] | UnsetType = UNSET
    name: Annotated[str, Meta(max_length=100, description="only hosts whose name or running build has it")] = ""
    standing: Annotated[
        Literal["any", "trouble", "failed", "silent", "retrying", "held", "busy", "behind", "good"],
        Meta(description="only hosts that stand so to their order; `trouble`: those that are not good"),
    ] = "any"
    limit: Annotated[int, Meta(ge=1, le=10_000, description="how many at most")] = 1000
    offset: Annotated[int, Meta(ge=0, le=1_000_000, description="so many are left out before")] = 0


class AuditQuery(_Sent, frozen=True):
    """Which records."""

    who: Annotated[Text, Meta(description="only records by whom this is in the name of")] = ""
    what: Annotated[Text, Meta(description="only records that say this, in whatever case")] = ""
    rollout: Annotated[Number, Meta(description="only records of this rollout")] | UnsetType = UNSET
    before: Annotated[int, Meta(ge=1, le=9_999_999_999, description="only records with a lower number")] | UnsetType = (
        UNSET
    )
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="how many at most")] = 100


class PlanWish(_Sent, frozen=True):
    """What to plan: a build by its id, or by the URL of its manifest."""

    reason: Reason
    build: BuildId | UnsetType = UNSET
    manifest: (
        Annotated[
            str,
            Meta(
                pattern=r"^(https?|s3)://\S+$",
                max_length=2000,
                description="URL of the build's manifest",
                examples=["https://builds.example.com/shop-2026-11-24.1.json"],
            ),
        ]
        | UnsetType
    ) = UNSET
    first_tier: Annotated[Name, Meta(description="leave out the tiers before it, as for a hotfix")] | UnsetType = UNSET

    def __post_init__(self) -> None:
        """Refuse what names no build, or two."""
        if (self.build is UNSET) == (self.manifest is UNSET):
            raise ValueError("give either `build` or `manifest`")


Planning = Annotated[PlanWish, Meta(extra_json_schema={"oneOf": [{"required": ["build"]}, {"required": ["manifest"]}]})]


class Start(_Sent, frozen=True):
    """Which plan to start."""

    plan: Annotated[str, Meta(min_length=1, description="`sealed` of a plan that this person made within the hour")]
    override_min: Annotated[
        int,
        Meta(ge=0, le=MAX_OVERRIDE_MIN, description="pierce windows, lock and slots for so many minutes; for admins"),
    ] = 0
    confirmed: Annotated[
        tuple[Text, ...],
        Meta(max_length=100, description="names of the plan's `confirmations`: each is true"),
    ] = ()


class Act(_Sent, frozen=True):
    """What to do to a rollout."""

    action: Literal["approve", "resume", "pause", "advance", "finish", "hold", "abort", "rollback"]
    reason: Reason
    index: Index


class Aside(_Sent, frozen=True):
    """Which host is not waited for."""

    tier: Annotated[Name, Meta(examples=["prod"])]
    host: Annotated[Name, Meta(examples=["web-1"])]
    reason: Reason
    index: Index


class Back(Aside, frozen=True):
    """Which host is waited for again."""


class Overriding(_Sent, frozen=True):
    """How long windows, lock and slots do not count."""

    minutes: Annotated[int, Meta(ge=0, le=MAX_OVERRIDE_MIN, description="0: no longer")]
    reason: Reason
    index: Index


class Taking(_Sent, frozen=True):
    """Taking the command."""

    reason: Note = ""
    force: Annotated[bool, Meta(description="also where somebody else has it; for admins")] = False


class HandingOver(_Sent, frozen=True):
    """Handing the command over."""

    to: Person
    reason: Reason

    def __post_init__(self) -> None:
        """Refuse a line end after the name, which `$` lets pass here, and in a schema does not."""
        if not self.to.isprintable():
            raise ValueError("`to` is no name")


class Releasing(_Sent, frozen=True):
    """Giving the command back."""

    reason: Note = ""


class Because(_Sent, frozen=True):
    """A reason."""

    reason: Reason


class OfBuild(_Sent, frozen=True):
    """A build, and a reason."""

    build: BuildId
    reason: Reason
