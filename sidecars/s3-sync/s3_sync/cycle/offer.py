"""
Decides what is published of a state: all of it, the readable files, or a fallback.

A gate stops a change, never a pod: if nothing is published yet, or only the newest state could
repair what is, and the gate refuses that state, the newest state that it accepts is published
instead, until it accepts a newer one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from s3_sync.layouts.layout import Layout
from s3_sync.layouts.publish import corrected, revert, take_back
from s3_sync.lease import Lease
from s3_sync.result import CycleResult
from s3_sync.s3.refusals import UNREADABLE
from s3_sync.source import Source, State
from s3_sync.tree.published import partial_name
from s3_sync.tree.target import Target, Torn
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.checks import Undecided
from sidecar_runtime.gate.gate import Gate, RevisionRefused
from sidecar_runtime.logs import get_logger

log = get_logger("gate")

Bring = Callable[[Layout, State[Any], Fence], Awaitable[CycleResult]]


@dataclass(slots=True)
class Offer:
    """
    A state that was offered to the gate, and the outcome.

    Args:
        name: The name of the revision, or of a partial state.
        missing: Files of the source that are missing in it, with the error.
        is_shown: Whether consumers see it.
        result: The changes made by publishing it.
        refusal: Why the gate refused the newest revision.
        fallback: The refused revision that this one replaces; empty if this is the newest.
        undecided: Why the gate must be asked again about the newest revision.
    """

    name: str
    missing: Mapping[str, SidecarError]
    is_shown: bool = False
    result: CycleResult = field(default_factory=CycleResult)
    refusal: RevisionRefused | None = None
    fallback: str = ""
    undecided: Undecided | None = None


class Offering:
    """
    Offers states to the gate and publishes them; for layouts that publish a state as a whole.

    Args:
        bring: Brings the tree of a layout up to date with a state.
        one_shot: A one-shot must end, so a gate that stays undecided counts as a refusal.
    """

    def __init__(
        self,
        gate: Gate | None,
        lease: Lease,
        source: Source[Any],
        bring: Bring,
        *,
        one_shot: bool,
    ) -> None:
        self._gate = gate
        self._one_shot = one_shot
        self._lease = lease
        self._source = source
        self._bring = bring
        # Names that the gate was asked about for the newest state; the last missing verdict.
        self._asked: list[str] = []
        self._no_verdict: Undecided | None = None

    @property
    def is_due(self) -> bool:
        """
        Whether a name that was refused the last time should be offered again unchanged.
        """
        gate = self._gate
        return gate is not None and any(gate.is_due(name) for name in self._asked)

    async def make(
        self,
        layout: Layout,
        state: State[Any],
        missing: Mapping[str, SidecarError],
        fence: Fence,
    ) -> Offer:
        """
        Publish the tree's files of a state, if the gate accepts them.

        Raises:
            Undecided: There is no verdict, and nothing to publish instead.
            Torn: Another process changes the tree, and the file cannot be restored.
            SidecarError, OSError, CycleAbandoned: From the layout or the source.
        """
        # Before the first publish, the files on disk may belong to another source.
        shown = layout.shown if self._lease.published.at is not None else None
        revert(missing, self._lease.torn, shown, layout.tree, fence)
        self._lease.look_again(layout)
        for path in self._lease.torn:
            raise Torn(path)
        offer = Offer(name_of(state, missing, layout.tree), missing)
        self._asked.clear()
        self._no_verdict = None
        # Before the gate's command edits files: the next cycle fixes them.
        is_good = self._is_good(layout)
        offer.refusal = self._ask(layout, offer, fence)
        if offer.refusal is not None:
            if not is_good:
                offer = await self._fall_back(layout, state, offer, fence)
            if offer.fallback:
                offer.result.add(self._lease.repair(layout, fence))
            elif self._lease.published.at is not None and self._is_whole(layout):
                take_back(layout.shown, layout.tree, fence)  # the tree repairs the published files
                self._lease.look_again(layout)
        return self._show(layout, offer, fence)

    def _is_good(self, layout: Layout) -> bool:
        """
        Whether the published files may stay: damage that is left now needs another state.
        """
        published = self._lease.published
        is_damaged = self._lease.damaged or published.unlisted or not self._is_whole(layout)
        return published.at is not None and not is_damaged

    def _is_whole(self, layout: Layout) -> bool:
        """
        Whether no release is partially in place: it is completed like a fallback. Without a file
        that the gate refuses, a listing may be less than what is in place.
        """
        return self._source.is_divisible or not layout.problem

    def _show(self, layout: Layout, offer: Offer, fence: Fence) -> Offer:
        """
        Publish an accepted offer, unless the gate's command has changed the tree meanwhile.
        """
        is_accepted = offer.refusal is None or bool(offer.fallback)
        if is_accepted and not self._lease.torn:
            if not layout.shows(offer.name):
                offer.result.add(layout.publish(offer.name, fence))
            offer.is_shown = not offer.result.failed
        return offer

    def _ask(self, layout: Layout, offer: Offer, fence: Fence) -> RevisionRefused | None:
        """
        Ask the gate about an offer that is not published yet.

        Raises:
            Undecided: There is no verdict, and the gate should be asked again first.
        """
        if self._gate is None:
            return None
        if layout.shows(offer.name):
            self._gate.rest()
            return None
        self._asked.append(offer.name)
        if layout.shown is not None and corrected(layout.tree, layout.shown):
            self._gate.forget(offer.name)  # the verdict was about other bytes
        changed = layout.changes().publish
        try:
            return self._gate.judge(offer.name, layout.tree.path, changed, fence)
        except Undecided as error:
            has_time = self._is_good(layout) and not self._one_shot
            silence = self._gate.silence(offer.name, error)
            if has_time or silence is None:
                raise
            offer.undecided = self._no_verdict = error
            return silence
        finally:
            self._lease.look_at_all(layout)  # the command may have changed the files it judged

    async def _fall_back(
        self, layout: Layout, state: State[Any], offer: Offer, fence: Fence
    ) -> Offer:
        """
        Return a fallback for a refused state; the unchanged offer if there is none.

        Raises:
            Undecided: There is no fallback, and the gate has given no verdict.
        """
        if self._source.is_divisible:
            found = self._without_refused(layout, offer, fence)
        else:
            found = await self._earlier(layout, offer, fence)
        if found is None:
            if self._no_verdict is not None:
                raise self._no_verdict
            return offer
        assert self._gate is not None
        self._gate.rest(is_refused=True)
        found.refusal, found.undecided = offer.refusal, offer.undecided
        found.fallback = state.revision
        log.warning(
            "gate_fallback",
            name=found.name,
            refused=state.revision,
            files_missing=len(found.missing),
        )
        return found

    def _without_refused(self, layout: Layout, offer: Offer, fence: Fence) -> Offer | None:
        """
        Remove the files that the gate names until it accepts the rest; None if it does not.
        """
        tree, missing, refusal = layout.tree, dict(offer.missing), offer.refusal
        while refusal is not None:
            named = refusal.paths & tree.managed.files.keys()
            for path in named:
                tree.delete(path, fence)
                missing[path] = SidecarError("file_refused", f"the gate refused {path!r}")
            if not named or not tree.managed.files:
                return None
            rest = Offer(partial_name(tree.managed.files), missing)
            refusal = self._ask(layout, rest, fence)
        return rest

    async def _earlier(self, layout: Layout, offer: Offer, fence: Fence) -> Offer | None:
        """
        Bring the newest earlier state that the gate accepts; None if there is none.

        Raises:
            SidecarError: There is none, and S3 refuses to read one of them.
        """
        unread = None
        for revision, read in self._source.earlier().items():
            try:
                state = await read()
                result = await self._bring(layout, state, fence)
            except SidecarError as error:
                if error.reason in UNREADABLE:
                    unread = unread or error
                elif not error.reason.startswith(("release_", "bundle_")):
                    raise
                log.warning("fallback_unusable", revision=revision, reason=error.reason)
                continue
            rest = Offer(revision, {})
            if not result.failed and self._ask(layout, rest, fence) is None:
                return rest
        if unread is not None:
            raise unread
        return None


def name_of(state: State[Any], missing: Mapping[str, SidecarError], tree: Target) -> str:
    """
    Return the name of the tree's files of a state: the revision, or a partial name.
    """
    return partial_name(tree.managed.files) if missing else state.revision
