"""What every stored resource carries about its own history."""

from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Instants are aware UTC; the `_by` fields name a client id or `admin`."""

    created_at: datetime
    created_by: str | None = None
    updated_at: datetime | None = None
    updated_by: str | None = None
    deleted_at: datetime | None = None
    deleted_by: str | None = None
    archived_at: datetime | None = None

    @property
    def is_deleted(self) -> bool:
        return self.deleted_at is not None

    def touched(self, now: datetime, by: str | None) -> "Metadata":
        return replace(self, updated_at=now, updated_by=by)

    def deleted(self, now: datetime, by: str | None) -> "Metadata":
        return replace(self, deleted_at=now, deleted_by=by)
