"""Owns the order of a release: gate, tag and branch, build, upload, record; and going on after it was cut short.

Each step is left to its module. What is promised, whenever this is killed and however often it is run:

- The tag comes first and is never moved: an id that was begun is never given to another build.
- The record comes last, and is written once, with the audit's: what is recorded can be deployed, and nothing
  half is recorded.
- In between, `resume` goes on with the same commit. Nothing is made twice that is there already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Final, Protocol

from artifact import Manifest, Refused
from artifact.locate import reference
from checkpoint.release.choosing import build_before, build_named, build_to_mend, build_with, unfinished_of
from checkpoint.release.git import Git
from checkpoint.release.ledger import Standing
from checkpoint.release.naming import Begun, next_id
from checkpoint.release.places import Place
from checkpoint.release.records import BuildKey
from checkpoint.release.settings import ReleaseTable
from checkpoint.release.uploading import Uploader
from checkpoint.release.workshop import Workshop
from fleet import VERSION, Build

_ATTEMPTS: Final = 10
"""Ids that somebody else may take while we try."""


class Records(Protocol):
    """What is asked of `checkpoint.release.ledger.Ledger`."""

    def builds(self) -> tuple[BuildKey, ...]:
        """Every record, the newest first."""

    def standing(self) -> Standing:
        """Records, orders and denied builds."""

    def record(self, build: Build, *, by: str, at: datetime) -> bool:
        """Write a record where there is none, and the audit's with it."""


class Releaser:
    """Cuts releases of one app.

    Args:
        app: the app.
        table: the configuration.
        git: the repository.
        workshop: makes builds.
        records: what is in Consul.
        places: where builds go, as in the table.
        uploader: brings them there.
        by: who releases.
        now: the time, with a zone.
        say: tells people what is going on, a line each.
    """

    def __init__(
        self,
        app: str,
        table: ReleaseTable,
        *,
        git: Git,
        workshop: Workshop,
        records: Records,
        places: Sequence[Place],
        uploader: Uploader,
        by: str,
        now: Callable[[], datetime],
        say: Callable[[str], None],
    ) -> None:
        self._app = app
        self._table = table
        self._git = git
        self._workshop = workshop
        self._records = records
        self._url_base = tuple(place.table.seen_at for place in places)
        self._uploader = uploader
        self._by = by
        self._now = now
        self._say = say

    def cut(
        self,
        commit: str | None = None,
        *,
        notes: str | None = None,
        is_new: bool = False,
        is_again: bool = False,
        is_dry: bool = False,
    ) -> Build | None:
        """Release a commit of the main branch, by default its newest; None for a dry run.

        A release of the same commit that was cut short on this machine is gone on with.

        Args:
            commit: what to release.
            notes: what is new, for people.
            is_new: leave a release that was begun, and not recorded, for good.
            is_again: release a commit that has a build already.
            is_dry: ask the gate, say what would be made, and make nothing.

        Raises:
            Refused: `gate_failed`, `release_unfinished`, `nothing_new`, `not_on_main` and what each step raises.
            ConfigError, TransientError: likewise.
        """
        with self._workshop.alone():
            self._git.fetch()
            main = self._git.main_commit()
            chosen = main if commit is None else self._git.resolve(commit)
            if not self._git.is_ancestor(chosen, main):
                raise Refused(
                    f"{chosen[:12]} is not on {self._table.main}: merge it, or pick it with `hotcold release hotfix`",
                    kind="not_on_main",
                )
            keys = self._records.builds()
            unfinished = () if is_new else unfinished_of(self._git.begun(self._app), keys)
            if unfinished:
                last = unfinished[-1]
                is_ours = self._workshop.is_here(last.id) and last.hotfix_of is None
                if not is_ours or last.commit != chosen or is_dry:
                    raise self._not_finished(last)
                self._say(f"going on with {last.id}, begun by {last.by} at {last.at}")
                self._workshop.check_gate(chosen, hotfix_of=None)
                return self._finish(last, keys)
            has = build_with(chosen, keys)
            if has is not None and not is_again:
                raise Refused(
                    f"build {has} has {chosen[:12]} already: nothing was cut; to build it anew under the next id, "
                    "give --again",
                    kind="nothing_new",
                )
            self._workshop.check_gate(chosen, hotfix_of=None)
            plan = self._plan(chosen, keys, notes=notes)
            if is_dry:
                self._describe(plan, keys)
                return None
            return self._finish(self._begin(plan, keys, is_moving=False), keys)

    def hotfix(
        self,
        picks: Sequence[str],
        onto: str | None = None,
        *,
        notes: str | None = None,
        is_new: bool = False,
        is_dry: bool = False,
    ) -> Build | None:
        """Pick commits onto the release branch of a build and release the result; None for a dry run.

        The gate is asked about each picked commit: those are what people and tests have seen.

        Args:
            picks: commits, in the order in which they are to be applied.
            onto: id of the build; None: the one that every tier with an order is ordered to run.
            notes: what is new, for people.
            is_new: leave a release that was begun, and not recorded, for good.
            is_dry: ask the gate, pick, say what would be made, and make nothing.

        Raises:
            Refused: `pick_conflict`, `pick_empty`, `branch_moved`, `which_build` and as `cut`; nothing was made then.
            ConfigError, TransientError: likewise.
        """
        with self._workshop.alone():
            self._git.fetch()
            standing = self._records.standing()
            keys = standing.builds
            if not is_new:
                self._check_finished(keys)
            base = build_to_mend(keys, standing.tiers) if onto is None else build_named(onto, keys)
            commits = [self._git.resolve(pick) for pick in picks]
            self._check_picks(commits)
            before = self._branch_before(base, keys)
            for commit in commits:
                self._workshop.check_gate(commit, hotfix_of=base.build.id)
            with self._workshop.worktree(base.revision) as worktree:
                picked = self._git.pick(worktree, commits)
            plan = self._plan(picked, keys, notes=notes, base=base, picks=tuple(commits))
            if is_dry:
                self._describe(plan, keys)
                return None
            return self._finish(self._begin(plan, keys, is_moving=True, before=before), keys)

    def resume(self, build_id: str, *, take_over: bool = False) -> Build:
        """Go on with a release that was cut short; harmless where it is recorded already.

        Args:
            build_id: its id.
            take_over: go on also where it was begun on another machine, which must not be at it any more.

        Raises:
            Refused: `not_begun`, `begun_elsewhere`, and as `cut`.
            ConfigError, TransientError: as `cut`.
        """
        with self._workshop.alone():
            self._git.fetch()
            keys = self._records.builds()
            recorded = next((key.build for key in keys if key.id == build_id), None)
            if recorded is not None:
                self._say(f"{build_id} is recorded: nothing is left to do")
                self._workshop.close(build_id)
                return recorded
            begun = next((each for each in self._git.begun(self._app) if each.id == build_id), None)
            if begun is None:
                raise Refused(f"no release {build_id} of {self._app} was ever begun", kind="not_begun")
            if not self._workshop.is_here(build_id) and not take_over:
                raise Refused(
                    f"{build_id} was begun by {begun.by} at {begun.at}, elsewhere: go on there; or, when nobody is at "
                    "it any more, give --take-over to build it here",
                    kind="begun_elsewhere",
                )
            for commit in begun.picks or (begun.commit,):
                self._workshop.check_gate(commit, hotfix_of=begun.hotfix_of)
            self._workshop.open(build_id)
            return self._finish(begun, keys)

    # --- deciding -----------------------------------------------------------------------------------------------------

    def _check_finished(self, keys: Sequence[BuildKey]) -> None:
        unfinished = unfinished_of(self._git.begun(self._app), keys)
        if unfinished:
            raise self._not_finished(unfinished[-1])

    def _not_finished(self, begun: Begun) -> Refused:
        return Refused(
            f"{begun.id}, of commit {begun.commit[:12]}, was begun by {begun.by} at {begun.at} and is not recorded: go "
            f"on with `hotcold release resume {begun.id} --app {self._app}`, or leave it for good by adding --new: its "
            "id is not used again",
            kind="release_unfinished",
        )

    def _plan(
        self,
        commit: str,
        keys: Sequence[BuildKey],
        *,
        notes: str | None,
        base: Build | None = None,
        picks: tuple[str, ...] = (),
    ) -> Begun:
        moment = self._now()
        build_id = next_id(moment.date(), {*self._git.taken_ids(), *(key.id for key in keys)})
        return Begun(
            id=build_id,
            app=self._app,
            commit=commit,
            branch=f"{self._table.branch_prefix}{build_id}" if base is None else base.branch,
            by=self._by,
            at=moment.isoformat(timespec="seconds"),
            hotfix_of=None if base is None else base.build.id,
            picks=picks,
            notes=notes,
        )

    def _check_picks(self, commits: Sequence[str]) -> None:
        main = self._git.main_commit()
        for commit in commits:
            if self._git.is_merge(commit):
                raise Refused(f"{commit[:12]} is a merge: pick the commits that it merged", kind="pick_merge")
            if not self._git.is_ancestor(commit, main):
                self._say(f"warning: {commit[:12]} is not on {self._table.main}: the next cut will lack it")

    def _branch_before(self, base: Build, keys: Sequence[BuildKey]) -> str | None:
        """Where the release branch is; a pick onto anything but its end would quietly bring what came after."""
        tip = self._git.branch_commit(base.branch)
        if tip is None or tip == base.revision:
            return tip
        later = build_with(tip, keys)
        gone_on = f"to build {later}: give --onto {later}" if later else f"to {tip[:12]}, which no recorded build has"
        raise Refused(
            f"branch {base.branch} has gone on from build {base.build.id} {gone_on}. Nothing was changed",
            kind="branch_moved",
        )

    # --- doing --------------------------------------------------------------------------------------------------------

    def _describe(self, plan: Begun, keys: Sequence[BuildKey]) -> None:
        before = build_before(plan, keys)
        since = before.revision if before is not None and self._git.is_known(before.revision) else None
        commits = self._git.log(plan.commit, since)
        self._say(f"would cut {plan.id} of {plan.commit[:12]}, on branch {plan.branch}, tag {self._tag(plan)}")
        self._say(f"{commits.count} commits since {before.build.id if before is not None else 'the beginning'}")
        for commit in commits.shown:
            self._say(f"  {commit.sha[:12]} {commit.subject} ({commit.author})")
        for url in self._url_base:
            self._say(f"would upload to {url}")
        self._say("dry run: nothing was made")

    def _begin(self, plan: Begun, keys: Sequence[BuildKey], *, is_moving: bool, before: str | None = None) -> Begun:
        for _ in range(_ATTEMPTS):
            self._workshop.open(plan.id)  # first: whoever finds the tag shall know that we are at it
            try:
                is_ours = self._git.reserve(plan, before=before)
            except BaseException:
                if self._git.is_known(f"refs/tags/{self._tag(plan)}"):
                    self._say(self._left(plan))
                else:
                    self._workshop.forget(plan.id)
                raise
            if is_ours:
                self._say(f"tag {self._tag(plan)} and branch {plan.branch} are at {plan.commit[:12]}")
                return plan
            self._workshop.forget(plan.id)
            taken = plan.id
            build_id = next_id(self._now().date(), {*self._git.taken_ids(), *(key.id for key in keys), taken})
            branch = plan.branch if is_moving else f"{self._table.branch_prefix}{build_id}"
            plan = replace(plan, id=build_id, branch=branch)
            self._say(f"{taken} was taken by somebody else meanwhile; trying {build_id}")
        raise Refused(f"others take every id before us, {plan.id} for one: nothing was begun", kind="id_taken")

    def _finish(self, begun: Begun, keys: Sequence[BuildKey]) -> Build:
        with self._told(begun):
            self._git.ensure_branch(begun)
            before = build_before(begun, keys)
            against = before.manifest if before is not None and self._wants_patch(before) else None
            manifest, document = self._workshop.make(begun, self._url_base, against)
            files = sorted(
                path for path in document.parent.iterdir() if path != document and not path.name.startswith(".")
            )
            self._uploader.upload(files, document)
            build = self._described(begun, manifest, document.name, before)
            if self._records.record(build, by=self._by, at=self._now()):
                self._say(f"recorded {begun.id}, and in the audit")
            self._workshop.close(begun.id)
            return build

    def _wants_patch(self, before: Build) -> bool:
        return self._table.patches and self._table.format == "tar.zst" and before.build.index is not None

    def _described(self, begun: Begun, manifest: Manifest, name: str, before: Build | None) -> Build:
        location = f"{self._url_base[0]}/{name}"
        since = before
        if before is not None and not self._git.is_known(before.revision):
            self._say(f"commit {before.revision[:12]} of build {before.build.id} is not in {self._git.repo}")
            since = None
        commits = self._git.log(begun.commit, None if since is None else since.revision)
        lacking = self._git.log(self._git.main_commit(), begun.commit)
        return Build(
            v=VERSION,
            app=self._app,
            build=reference(manifest, location),
            manifest=location,
            revision=begun.commit,
            branch=begun.branch,
            tag=self._tag(begun),
            by=begun.by,
            at=begun.at,
            since=None if since is None else since.build.id,
            commits=commits.shown,
            commit_count=commits.count,
            not_yet=lacking.shown,
            not_yet_count=lacking.count,
            hotfix_of=begun.hotfix_of,
            picks=begun.picks,
            notes=begun.notes,
        )

    def _tag(self, begun: Begun) -> str:
        return f"{self._table.tag_prefix}{begun.id}"

    @contextmanager
    def _told(self, begun: Begun) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._say(self._left(begun))
            raise

    def _left(self, begun: Begun) -> str:
        return (
            f"{begun.id} is begun, tagged and not recorded: nobody can deploy it yet. When the cause is mended, go on "
            f"with: hotcold release resume {begun.id} --app {self._app}"
        )
