"""Health: answers out."""

from datetime import datetime
from typing import Any

from api.services.health import Readiness


def healthy_to_wire(now: datetime, version: str) -> dict[str, Any]:
    return {"status": "healthy", "service": "metasync-api", "timestamp": now, "version": version}


def alive_to_wire(now: datetime) -> dict[str, Any]:
    return {"status": "alive", "service": "metasync-api", "timestamp": now}


def readiness_to_wire(readiness: Readiness, now: datetime, database: str) -> dict[str, Any]:
    up = readiness.database_answers
    found: dict[str, Any] = {"status": "healthy" if up else "unhealthy", "database": database}
    if not up:
        found["error"] = "The database does not answer"
    broken = dict(readiness.provider_problems)
    return {
        "status": "ready" if up else "not_ready",
        "service": "metasync-api",
        "timestamp": now,
        "checks": {
            "database": found,
            "providers": {"status": "degraded" if broken else "healthy", "problems": broken},
        },
    }
