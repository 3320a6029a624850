"""What the HTTP side needs to be told."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """`database` is the name that readiness shows. Secrets never show in a repr."""

    docs_user: str
    docs_secret: str = field(repr=False)
    admin_key: str = field(repr=False)
    pepper: str = field(repr=False)
    database: str
    version: str = "0.1.0"
    max_body_bytes: int = 64 * 1024 * 1024
