"""A toy to search in: an answer is right where the prompt holds the word that its example needs.

Examples need one of a few words, or none. The meta-model adds one word that it was told of by the feedback, or at times
a useless one. A judge, where there is one, gives the score and says what is missing.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import orjson

from engine.errors import NotFound
from engine.jobs.job import Job
from engine.jobs.outcome import Completed, DeadLettered, Outcome
from engine.llm import JsonObject
from engine.pricing import Prices
from engine.records.runs import Run
from engine.records.searches import Combination
from llm_optimizer.allowance import Tariff
from llm_optimizer.rollouts import Role, RolloutSpec
from llm_optimizer.subject import Example, Mark, Subject
from tests.support.factories import make_failure

WORDS = ("alpha", "beta", "gamma", "delta")
PROMPT = "Answer."
PRICES = Prices(tokens=1000, currency="USD", input=Decimal(1), output=Decimal(2))


def example(number: int) -> Example:
    """Every fifth needs nothing."""
    kinds = (*WORDS, "")
    word = kinds[number % len(kinds)]
    return Example(id=f"e{number:03d}", input={"text": f"example {number}", "needs": word}, expected=word or "none")


@dataclass(frozen=True)
class WordScoring:
    """Right or wrong, by the answer itself or by a judge (`judged`)."""

    judged: bool = False
    pairwise: bool = False

    @property
    def calls(self) -> int:
        return int(self.judged)

    @property
    def models(self) -> tuple[str, ...]:
        return ("judge",) if self.judged else ()

    @property
    def can_compare(self) -> bool:
        return self.pairwise

    def settled(self, example: Example, output: str) -> bool:
        return False

    def asks(self, example: Example, output: str) -> tuple[RolloutSpec, ...]:
        if not self.judged:
            return ()
        data = {"input": example.input, "output": output}
        wanted: JsonObject = {"type": "json_schema", "schema": {"type": "object"}}
        return (
            RolloutSpec(
                role=Role.EVAL, model="judge", instructions="Judge it.", request_data=data, response_format=wanted
            ),
        )

    def mark(self, example: Example, output: str, judged: Sequence[JsonObject | None]) -> Mark:
        if not self.judged:
            return _mark(float(output == "right"), example.input["needs"])
        [answer] = judged
        if answer is None:
            return Mark(score=None, problem="the judge gave no answer")
        return _mark(orjson.loads(answer["text"])["score"], example.input["needs"])

    def compares(self, example: Example, first: str, second: str) -> tuple[RolloutSpec, ...]:
        return ()

    def winner(self, judged: Sequence[JsonObject | None]) -> tuple[str | None, str]:
        return None, ""


def _mark(score: float, needs: str) -> Mark:
    return Mark(score=score, feedback="" if score == 1.0 else f"the word {needs} is missing")


@dataclass
class Toy:
    """Implements Subjects, and plays all models. `calls` counts jobs by role; `broken` are roles that fail at times.

    `told` are the instructions that models had, by role. A `wavering` judge is off by so much, in turn up and down.
    `weights` are those of examples by the word that they need. `limit` is of all models' answers, in tokens. `gone`:
    the dataset was deleted.
    """

    examples: int = 100
    judged: bool = False
    prompt: str = PROMPT
    broken: frozenset[str] = frozenset()
    always_useless: bool = False
    wavering: float = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)
    told: dict[str, list[str]] = field(default_factory=dict)
    judged_before: Counter[str] = field(default_factory=Counter)
    limit: int | None = None
    gone: bool = False
    calls: dict[str, int] = field(default_factory=dict)

    def pinned(self, run: Run) -> JsonObject:
        return {"prompt": self.prompt}

    def load(self, run: Run, pinned: JsonObject) -> Subject:
        if self.gone:
            raise NotFound("Dataset", "d")
        plain = [example(number) for number in range(self.examples)]
        known = [replace(one, weight=self.weights.get(one.input["needs"], 1.0)) for one in plain]
        return Subject(
            prompt=pinned["prompt"],
            others=(),
            template=None,
            examples={one.id: one for one in known},
            scoring=WordScoring(judged=self.judged),
            arms=(Combination("m", "editor"),),
            tariffs={name: Tariff(PRICES, self.limit) for name in ("m", "editor", "judge")},
            currency="USD",
        )

    def close(self) -> None:
        """Holds nothing."""

    def play(self, job: Job) -> Outcome:
        """What becomes of a job of a run."""
        role = str((job.client_reference or {}).get("role"))
        self.calls[role] = self.calls.get(role, 0) + 1
        self.told.setdefault(role, []).append(job.instructions or "")
        if role in self.broken and _number(_asked(job)) % 2:
            return DeadLettered(make_failure())
        return Completed(result={"text": self._answer(role, job)})

    def _answer(self, role: str, job: Job) -> str:
        told = job.instructions or ""
        if role == "meta":
            return self._edited(told)
        if role == "eval":
            mark = _mark(float(job.request_data["output"] == "right"), job.request_data["input"]["needs"])
            self.judged_before[_asked(job)] += 1
            off = self.wavering * (1 if self.judged_before[_asked(job)] % 2 else -1)
            score = min(max((mark.score or 0.0) + off, 0.0), 1.0) if off else mark.score
            return orjson.dumps({"score": score, "feedback": mark.feedback}).decode()
        return "right" if job.request_data["needs"] in told else "wrong"

    def _edited(self, told: str) -> str:
        """The text between the first fences, with a word more."""
        text = told.split("```")[1].strip()
        missing = [word for word in WORDS if f"the word {word} is missing" in told and word not in text]
        useless = self.always_useless or not missing or _number(told) % 4 == 0
        word = f"word{_number(told) % 1000}" if useless else missing[_number(told) % len(missing)]
        body: dict[str, Any] = {"rationale": "a word", "prompt": f"{text} {word}"}
        return orjson.dumps(body).decode()


def _asked(job: Job) -> str:
    return f"{job.instructions}{orjson.dumps(job.request_data).decode()}"


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
