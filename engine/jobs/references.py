"""Exact matching of a job's clientReference, whatever type a value had: `5` matches 5 and "5", `true` true and "true".

A reference object is flattened to canonical `path=value` texts. A filter makes the same text, so that one equality
decides on every back-end. Arrays are not flattened: no filter matches into them.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from engine.errors import InvalidField
from engine.jobs.job import Job

_NUMBER = re.compile(r"-?(0|[1-9]\d{0,300})(\.\d{1,300})?([eE][+-]?\d{1,3})?")
_LONGEST = 200


def canonical_value(value: str | int | float | bool | None) -> str:
    """The text all equal values share: numbers by value, booleans and null as JSON spells them."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return _number_text(value) if _NUMBER.fullmatch(value) else value
    return _number_text(repr(value))


def _number_text(text: str) -> str:
    if re.fullmatch(r"-?\d+", text):
        return str(int(text)) if len(text) < 400 else text
    number = float(text)
    return str(int(number)) if number.is_integer() and abs(number) < 2**63 else repr(number)


def reference_text(path: str, value: str | int | float | bool | None) -> str:
    """`path=value`, hashed behind the path where it would be too long for an index."""
    text = f"{path}={canonical_value(value)}"
    if len(text) <= _LONGEST:
        return text
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def flatten(reference: Mapping[str, Any] | None) -> tuple[str, ...]:
    """All `path=value` texts of a reference object, each once, in order."""
    return tuple(dict.fromkeys(_walk("", reference))) if reference else ()


def canary_text(trial_id: str) -> str:
    """What the jobs share that a canary is scored on. No client's filter can ask for it."""
    return f"$canary={trial_id}"


def job_texts(job: Job) -> tuple[str, ...]:
    """All texts that a job is found by."""
    texts = flatten(job.client_reference)
    return texts if job.canary_trial is None else (*texts, canary_text(job.canary_trial))


def _walk(prefix: str, branch: Mapping[str, Any]) -> Iterator[str]:
    for name, value in branch.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _walk(f"{path}.", value)
        elif not isinstance(value, list):
            yield reference_text(path, value)


def filter_texts(filters: Mapping[str, str]) -> tuple[str, ...]:
    """The texts that must all be among a job's; empty field names are ignored.

    Raises InvalidField for a field name that starts with `$` or holds a NUL.
    """
    for name in filters:
        if name.startswith("$") or "\0" in name:
            raise InvalidField(f"clientReference.{name}".replace("\0", "\\0"), "not a valid field name")
    return tuple(dict.fromkeys(reference_text(name, value) for name, value in filters.items() if name))
