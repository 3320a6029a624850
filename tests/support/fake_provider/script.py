"""Rules that decide which calls go wrong, in the order they were added."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.fake_provider.faults import NO_FAULT, Fault, fault_of_model, fault_of_prompt
from tests.support.fake_provider.meter import TOKENS, Meter


@dataclass(slots=True)
class Rule:
    """Applies to calls for `model` (None: any) whose prompts contain `containing`.

    The first `skip` matching calls are left alone, the next `times` (None: all) get the fault. `when` decides by
    anything else, in-process only.
    """

    fault: Fault
    model: str | None = None
    containing: str = ""
    times: int | None = None
    skip: int = 0
    when: Callable[[str, str], bool] | None = None

    def takes(self, model: str, prompt: str) -> bool:
        if self.model not in (None, model) or self.containing not in prompt:
            return False
        if self.times == 0 or (self.when is not None and not self.when(model, prompt)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Script:
    """Safe to change while calls are being answered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._meters: dict[str, Meter] = {}

    def add(self, *rules: Rule) -> None:
        with self._lock:
            self._rules.extend(rules)

    def limit(self, model: str, meter: Meter) -> None:
        """From now on the model has these limits, which go before all else. A marker tells them a call's usage."""
        self._meters[model] = meter

    def meter(self, model: str) -> Meter | None:
        return self._meters.get(model)

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()
            self._meters.clear()

    def fault_for(self, model: str, prompt: str, now: float) -> Fault:
        """See the package's docstring for the order."""
        meter = self._meters.get(model)
        marked = fault_of_prompt(prompt)
        over = None if meter is None else meter.check(now, _tokens(marked))
        if over is not None:
            return over
        with self._lock:
            for rule in self._rules:
                if rule.takes(model, prompt):
                    return rule.fault
        return marked or fault_of_model(model) or NO_FAULT


def _tokens(marked: Fault | None) -> int:
    if marked is None or marked.kind != "usage":
        return TOKENS
    return marked.count("input", 0) + marked.count("output", 0)


def rule_of(document: Mapping[str, Any]) -> Rule:
    """{"fault": "status", "options": {"code": 503}, "model": ..., "containing": ..., "times": ..., "skip": ...}"""
    options = {name: str(value) for name, value in document.get("options", {}).items()}
    return Rule(
        Fault(document["fault"], options),
        model=document.get("model"),
        containing=document.get("containing", ""),
        times=document.get("times"),
        skip=document.get("skip", 0),
    )
