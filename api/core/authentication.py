"""Who calls: the administrator, a client, or both."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from api.core.gate import Gate
from engine.errors import InvalidField, Unauthenticated
from engine.jobs.queue import Page
from engine.records.store import RecordStore, Where
from engine.records.values import Client
from utilities.clock import Clock
from utilities.keys import KeyHasher, same_secret

CACHE_SECONDS = 1.0
"""How long a replica may go on serving a key that was rotated, or a client that was disabled, through another one."""

LARGEST_CACHE = 10_000
ADMIN = "admin"
LONGEST_OWNER = 255

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a request's headers say. Secrets never show in a repr."""

    client_id: str | None = None
    client_key: str | None = field(default=None, repr=False)
    admin_key: str | None = field(default=None, repr=False)
    bearer: str | None = field(default=None, repr=False)


_FIELDS = {
    b"client_id": "client_id",
    b"client-id": "client_id",
    b"client_api_key": "client_key",
    b"client-api-key": "client_key",
    b"admin_api_key": "admin_key",
    b"admin-api-key": "admin_key",
    b"authorization": "bearer",
    b"x-api-key": "bearer",
}


def credentials_of(headers: list[tuple[bytes, bytes]]) -> Credentials:
    """The credentials in raw ASGI headers; where a header comes in both spellings, the first counts."""
    found: dict[str, str] = {}
    for name, value in headers:
        which = _FIELDS.get(name)
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer" and token.strip():
                found.setdefault("bearer", token.strip())
        elif which is not None and value:
            found.setdefault(which, value.decode("latin-1"))
    return Credentials(**found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls. `client_id` is a client that proved itself, also beside a valid admin key; `named` is the owner an
    admin names by a bare client_id header, which nobody has checked."""

    admin: bool
    client_id: str | None = None
    named: str | None = None

    @property
    def by(self) -> str:
        """Who did it, for a resource's history: `admin` or a client id."""
        return ADMIN if self.admin or self.client_id is None else self.client_id

    @property
    def visible_to(self) -> str | None:
        """None for an admin, who sees everything, else the client's id."""
        return None if self.admin else self.client_id

    def owner(self) -> str:
        """For whom the caller creates things; raises InvalidField where an admin names nobody fit."""
        owner = self.client_id or self.named
        if owner is None:
            raise InvalidField("client_id", "an admin names the owner by this header")
        if len(owner) > LONGEST_OWNER:
            raise InvalidField("client_id", f"longer than {LONGEST_OWNER} characters")
        return owner


@dataclass(frozen=True, slots=True)
class _Known:
    client: Client
    stale_at: float


class Authenticator:
    """Judges credentials. A client that proved itself is remembered for CACHE_SECONDS; nobody else is.

    Belongs to one event loop. Costs a few microseconds for a remembered client, one read for any other.
    """

    def __init__(
        self, clients: RecordStore[Client], hasher: KeyHasher, admin_key: str, gate: Gate, clock: Clock
    ) -> None:
        self._clients = clients
        self._hasher = hasher
        self._admin_key = admin_key
        self._gate = gate
        self._clock = clock
        self._known: dict[tuple[str | None, str], _Known] = {}
        self._generation = 0

    def forget(self) -> None:
        """Clients have changed: from now on nobody is remembered. From any thread."""
        self._generation += 1
        self._known = {}

    def admin(self, credentials: Credentials) -> Caller:
        """The administrator; raises Unauthenticated."""
        if credentials.admin_key is None:
            log.warning("authentication_failed", kind="admin", reason="no key")
            raise Unauthenticated("Admin API key is required")
        if not self._is_admin(credentials):
            log.warning("authentication_failed", kind="admin", reason="wrong key")
            raise Unauthenticated("Invalid admin API key")
        return Caller(admin=True)

    async def either(self, credentials: Credentials) -> Caller:
        """The administrator or a client; raises Unauthenticated, alike for every reason."""
        admin = self._is_admin(credentials)
        client = await self._client(credentials)
        if admin:
            return Caller(admin=True, client_id=client, named=credentials.client_id)
        if client is None:
            named = (credentials.client_id or "")[:64]
            log.warning("authentication_failed", kind="client", client_id=named)
            raise Unauthenticated("Client ID and API key, or an admin API key, are needed for authentication")
        return Caller(admin=False, client_id=client)

    def _is_admin(self, credentials: Credentials) -> bool:
        return credentials.admin_key is not None and same_secret(credentials.admin_key, self._admin_key)

    async def _client(self, credentials: Credentials) -> str | None:
        """The id of the enabled client whose key this is. A key in its own header needs the id beside it."""
        identifier, key = credentials.client_id, credentials.client_key
        if key is None:
            key = credentials.bearer
        elif identifier is None:
            return None
        if key is None:
            return None
        lookup = self._hasher.lookup(key)
        known = self._known.get((identifier, lookup))
        if known is not None and known.stale_at > self._clock.monotonic():
            return known.client.id
        return await self._read(identifier, key, lookup)

    async def _read(self, identifier: str | None, key: str, lookup: str) -> str | None:
        generation, stale_at = self._generation, self._clock.monotonic() + CACHE_SECONDS
        client = await self._gate(self._find, identifier, lookup)
        if client is None or not client.enabled or not self._hasher.matches(key, client.key_salt, client.key_hash):
            return None
        if generation == self._generation:
            if len(self._known) >= LARGEST_CACHE:
                self._known = {}
            self._known[identifier, lookup] = _Known(client, stale_at)
        return client.id

    def _find(self, identifier: str | None, lookup: str) -> Client | None:
        if identifier is not None:
            return self._clients.get(identifier)
        found = self._clients.find(Where(equals={"keyLookup": [lookup]}), Page(limit=1))
        return found[0] if found else None


HEADER_PARAMETERS: Mapping[str, dict[str, object]] = {
    name: {
        "name": name,
        "in": "header",
        "required": False,
        "schema": {"anyOf": [{"type": "string"}, {"type": "null"}], "title": name},
    }
    for name in ("client_id", "client_api_key", "admin_api_key")
}
"""How the OpenAPI document shows the credentials' headers."""
