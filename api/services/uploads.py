"""A file on its way in: no more than a chunk or two of it are in memory at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from api.services.files import FileService, FileTerms, Upload
from api.services.job_drafts import Maker
from engine.errors import InvalidField
from engine.records.files import CHUNK_BYTES, StoredFile
from utilities.hop import Hop


class Form(Protocol):
    """Takes the body's pieces, and gives what is the file's in them. `complete`: the form has come to its end."""

    complete: bool

    def feed(self, piece: bytes) -> Sequence[bytes]: ...


@dataclass(frozen=True, slots=True)
class Content:
    """A form, the body that it is read from, and what it says of the file when all of it has come."""

    form: Form
    body: AsyncIterator[bytes]
    terms: Callable[[], FileTerms]


async def receive(
    files: FileService, content: Content, maker: Maker, key: str | None, hop: Hop
) -> tuple[StoredFile, bool]:
    """The file, and whether an earlier upload with the same key made it; nothing is left of one that fails.

    Raises TooLarge, InvalidField and KeyReused.
    """
    upload = await hop(files.begin, maker.owner.client_id, maker.by)
    try:
        await _read(content, upload, hop)
        return await hop(files.finish, upload, content.terms(), key)
    except BaseException:
        await asyncio.shield(hop(files.give_up, upload))
        raise


async def _read(content: Content, upload: Upload, hop: Hop) -> None:
    waiting = bytearray()
    async for piece in content.body:
        for data in content.form.feed(piece):
            waiting += data
        if len(waiting) >= CHUNK_BYTES:
            await hop(upload.add, bytes(waiting))
            waiting.clear()
    if not content.form.complete:
        raise InvalidField("body", "the form breaks off")
    if waiting:
        await hop(upload.add, bytes(waiting))
