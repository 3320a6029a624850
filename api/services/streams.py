"""Streams: opened, and looked at afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from api.services.idempotency import RequestKey
from api.services.job_drafts import Maker
from api.services.job_flows import check_flow, flows_of
from api.services.references import Catalogue, Wanted
from api.services.said_again import Said
from api.services.stream_keys import StreamKeys
from engine.errors import NotFound, UnknownReference
from engine.jobs.queue import Page
from engine.llm import JsonObject
from engine.metadata import Metadata
from engine.records.control import LiveStream, LiveStreams
from engine.records.store import RecordStore
from engine.records.streams import Stream, StreamQuery, StreamStatus, StreamStore, StreamSums
from engine.records.values import PromptFlow
from utilities.clock import Clock
from utilities.hop import Hop
from utilities.ids import ObjectIds

MOST_GROUPS = 1000


class StreamDraft(Protocol):
    """A stream as it was asked for."""

    @property
    def user_prompt(self) -> str: ...
    @property
    def additional_prompts(self) -> Sequence[str] | None: ...
    @property
    def prompt_flow(self) -> str | None: ...
    @property
    def model(self) -> str: ...
    @property
    def temperature(self) -> float: ...
    @property
    def client_reference(self) -> JsonObject | None: ...


@dataclass(frozen=True, slots=True)
class StreamGroup:
    """The sums of a group, and one of its streams."""

    sums: StreamSums
    sample: Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Analytics:
    """`streams` is a page of the completed ones that the query means, `total` counts them."""

    query: StreamQuery
    streams: Sequence[Stream]
    total: int
    groups: Sequence[StreamGroup]


class StreamService:
    """Synchronous but for `open` and `open_chat`, which are for the event loop that streams."""

    def __init__(
        self,
        store: StreamStore,
        flows: RecordStore[PromptFlow],
        live: LiveStreams,
        catalogue: Catalogue,
        keys: StreamKeys,
        *,
        clock: Clock,
        ids: ObjectIds,
    ) -> None:
        self._store = store
        self._flows = flows
        self._live = live
        self._catalogue = catalogue
        self._keys = keys
        self._clock = clock
        self._ids = ids

    async def open(self, draft: StreamDraft, maker: Maker, hop: Hop) -> LiveStream:
        """Raises UnknownReference, InvalidField for a flow without prompts, and what LiveStreams.open raises."""
        prompts = await hop(self._checked, draft, maker)
        stream = Stream(
            id=self._ids.new(),
            client_id=maker.owner.client_id,
            model=draft.model,
            temperature=draft.temperature,
            user_prompt=draft.user_prompt,
            additional_prompts=prompts,
            client_reference=draft.client_reference,
            metadata=Metadata(created_at=self._clock.now(), created_by=maker.by),
        )
        return await self._live.open(stream)

    async def open_chat(
        self, endpoint: str, chat: JsonObject, maker: Maker, hop: Hop, key: RequestKey | None
    ) -> LiveStream:
        """`chat` is the body of a request to a vendor's endpoint of that path. Raises as `open` does.

        With a `key` that has been answered, it is what was Said then. Raises what StreamKeys raises.
        """
        if key is None:
            return await self._live.open(await self._chat(endpoint, chat, maker, hop))
        owner = maker.owner.client_id
        standing = await hop(self._keys.standing, owner, key)
        if isinstance(standing, Stream):
            return Said(standing)
        stream = replace(await self._chat(endpoint, chat, maker, hop), repeatable=True)
        return await self._live.open(stream, partial(hop, self._keys.take, owner, standing, stream.id))

    async def _chat(self, endpoint: str, chat: JsonObject, maker: Maker, hop: Hop) -> Stream:
        known = await hop(self._catalogue.known, [wanted := Wanted((), (chat["model"],))])
        known.check(wanted, maker.owner)
        return Stream(
            id=self._ids.new(),
            client_id=maker.owner.client_id,
            model=chat["model"],
            temperature=0.0,
            user_prompt="",
            chat=chat,
            endpoint=endpoint,
            metadata=Metadata(created_at=self._clock.now(), created_by=maker.by),
        )

    def get(self, stream_id: str, visible_to: str | None) -> Stream:
        """Raises NotFound, alike for what is not there and what is another client's."""
        stream = self._store.get(stream_id)
        if stream is None or visible_to not in (None, stream.client_id):
            raise NotFound("Stream", stream_id)
        return stream

    def list(self, query: StreamQuery, page: Page) -> tuple[list[Stream], int]:
        return self._store.find(query, page), self._store.count(query)

    def summary(self, query: StreamQuery) -> Sequence[StreamSums]:
        return self._store.by_status(query)

    def analytics(self, query: StreamQuery, page: Page) -> Analytics:
        completed = replace(query, status=str(StreamStatus.COMPLETED))
        rows = self._store.by_group(completed, MOST_GROUPS)
        samples = self._store.get_many([row.sample_id for row in rows])
        groups = [StreamGroup(row, samples[row.sample_id]) for row in rows if row.sample_id in samples]
        streams, total = self.list(completed, page)
        return Analytics(query=query, streams=streams, total=total, groups=groups)

    def _checked(self, draft: StreamDraft, maker: Maker) -> tuple[str, ...]:
        """Its prompts. Errors name what is missing as callers of this endpoint have always read it: Model, Prompt."""
        named = draft.prompt_flow
        flows = flows_of(self._flows, [named])
        try:
            check_flow(named, flows, maker.owner)
            prompts = tuple(draft.additional_prompts or ()) if named is None else flows[named].prompt_ids
            wanted = Wanted(prompts, (draft.model,))
            self._catalogue.known([wanted]).check(wanted, maker.owner)
        except UnknownReference as error:
            raise UnknownReference(error.field.capitalize(), error.name) from error
        return prompts
