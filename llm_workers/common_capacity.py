"""A lane's part in what replicas share of its model, through one document: how far its limits are booked, who holds how
much of its concurrency, and until when it is shut and why."""

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from engine.llm import JsonObject, ModelPaused
from engine.records.values import Model
from engine.shared import SharedDocuments
from llm_workers.capacity import Ask, Grant, granted
from llm_workers.corrections import Correction
from llm_workers.lane import Lane
from llm_workers.lane_terms import Denied, LaneTerms, Reason, Shut
from utilities.clock import Clock

_LEAST_RETRY = 0.5


class CommonCapacity:
    """Synchronous; what reaches the storage raises StorageUnavailable. `replica` names this process and no other."""

    def __init__(self, shared: SharedDocuments, clock: Clock, replica: str, terms: LaneTerms) -> None:
        self._shared = shared
        self._clock = clock
        self._replica = replica
        self._terms = terms

    def ask(self, lane: Lane, estimates: Sequence[int]) -> Grant:
        """Instants (seconds of the steady clock) for calls of so many tokens, and this replica's part of the rest."""
        now, asked_at = self._clock.now(), self._clock.monotonic()
        correction = lane.corrections.take()
        ask = self._ask_of(lane, estimates, correction)

        def change(document: JsonObject) -> tuple[JsonObject, tuple[Grant, JsonObject]]:
            changed, grant = granted(document, ask, lane.model.limits, now.timestamp(), self._terms.window)
            return changed, (grant, changed)

        try:
            grant, document = self._shared.change(key_of(lane.model), change, now)
        except BaseException:
            lane.corrections.not_told(correction)
            raise
        shifted = grant.shifted(self._clock.monotonic() - self._clock.now().timestamp())
        lane.learn(shifted, asked_at)
        self.heed(lane, document, asked_at)
        return shifted

    def heed_all(self, lanes: Sequence[Lane]) -> None:
        """What other replicas have announced, with one query; and renews this one's part of concurrencies."""
        asked_at = self._clock.monotonic()
        documents = self._shared.get_many([key_of(lane.model) for lane in lanes])
        for lane in lanes:
            self.heed(lane, documents.get(key_of(lane.model), {}), asked_at)
            if lane.model.limits.concurrency is not None:
                self.ask(lane, ())

    def heed(self, lane: Lane, document: JsonObject, asked_at: float) -> None:
        """How far others have booked the limits, and a pause that one has announced for the model as it is now."""
        lane.heard_at = asked_at
        shift = self._clock.monotonic() - self._clock.now().timestamp()
        lane.book(document.get("requestsFreeAt", 0.0) + shift, document.get("tokensFreeAt", 0.0) + shift)
        shut = document.get("shut")
        if shut is None or shut["revision"] != lane.model.revision:
            return
        seconds = shut["until"] - self._clock.now().timestamp()
        if seconds > 0:
            lane.shut(Shut(self._clock.monotonic() + seconds, Reason(shut["reason"]), shut["text"]))

    def announce(self, lane: Lane, shut: Shut) -> None:
        """Tells the other replicas; the latest instant stands."""
        now = self._clock.now()
        until = now.timestamp() + shut.until - self._clock.monotonic()
        entry = {"until": until, "reason": str(shut.reason), "text": shut.text, "revision": lane.model.revision}
        self._shared.change(key_of(lane.model), lambda document: (_with_shut(document, entry), None), now)

    def used_up(self, lane: Lane, grant: Grant) -> ModelPaused:
        """The error for a call that would have had to wait beyond the horizon."""
        requests = -math.inf if grant.requests_free_at is None else grant.requests_free_at
        tokens = -math.inf if grant.tokens_free_at is None else grant.tokens_free_at
        reason = Reason.REQUESTS if requests >= tokens else Reason.TOKENS
        seconds = max(requests, tokens) - self._clock.monotonic() - self._terms.lookahead
        limits = lane.model.limits
        limit = limits.requests_per_minute if reason is Reason.REQUESTS else limits.tokens_per_minute
        return self.paused(lane, Denied(seconds, reason, f"its limit of {limit} {reason} a minute is used up"))

    def paused(self, lane: Lane, denied: Denied) -> ModelPaused:
        seconds = timedelta(seconds=max(denied.seconds, _LEAST_RETRY))
        until = (self._clock.now() + seconds).isoformat(timespec="seconds")
        return ModelPaused(
            f"model {lane.model.name} takes no call before {until} ({denied.reason}): {denied.text}",
            reason=str(denied.reason),
            retry_after=seconds,
        )

    def _ask_of(self, lane: Lane, estimates: Sequence[int], correction: Correction) -> Ask:
        return Ask(
            replica=self._replica,
            estimates=estimates,
            correction=correction,
            running=lane.running,
            wanted=lane.wanted(),
            horizon=self._terms.horizon,
        )


def _with_shut(document: JsonObject, entry: dict[str, Any]) -> JsonObject:
    standing = document.get("shut")
    if standing is not None and standing["until"] >= entry["until"] and standing["revision"] == entry["revision"]:
        return document
    return {**document, "shut": entry}


def key_of(model: Model) -> str:
    """The model's document among the shared ones."""
    return f"model:{model.id}"
