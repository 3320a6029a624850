"""What a search is about, as it was when the run began: examples, how answers are scored, models with their prices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.llm import JsonObject
from engine.records.runs import Run
from engine.records.searches import Combination
from llm_optimizer.allowance import Tariff
from llm_optimizer.rollouts import RolloutSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One item of the dataset. `expected` is any JSON, None where nothing is expected."""

    id: str
    input: Any
    expected: Any = None
    tags: tuple[str, ...] = ()
    weight: float = 1.0

    @property
    def request_data(self) -> JsonObject:
        return self.input if isinstance(self.input, dict) else {"input": self.input}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What an answer is worth: `score` in [0, 1], None where it could not be scored, and `problem` says why."""

    score: float | None
    feedback: str = ""
    problem: str | None = None


class Scoring(Protocol):
    """How answers are scored. Pure: what has to be asked of a judge is handed out, and its answers handed in."""

    @property
    def calls(self) -> int:
        """How many judge calls one answer takes."""
        ...

    @property
    def models(self) -> tuple[str, ...]:
        """The judges' models, one for each call."""
        ...

    @property
    def pairwise(self) -> bool:
        """Whether it can only say which of two answers is better."""
        ...

    @property
    def can_compare(self) -> bool:
        """Whether it can say which of two answers is better."""
        ...

    def settled(self, example: Example, output: str) -> bool:
        """Whether no judge can change what the answer's mark is."""
        ...

    def asks(self, example: Example, output: str) -> tuple[RolloutSpec, ...]:
        """The judge calls for an answer; none of them is made for one that is settled."""
        ...

    def mark(self, example: Example, output: str, judged: Sequence[JsonObject | None]) -> Mark:
        """The score, from the judges' answers in the order of `asks`; None stands for one that failed.

        Of an answer that is settled there are none."""
        ...

    def compares(self, example: Example, first: str, second: str) -> tuple[RolloutSpec, ...]:
        """The judge calls that say which of two answers is better, in both orders."""
        ...

    def winner(self, judged: Sequence[JsonObject | None]) -> tuple[str | None, str]:
        """ "first", "second" or "tie", None where no judge said; and why."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """`prompt` is the text that is searched from; `others` are texts of prompts that follow it and do not change.

    `template` is the run's own meta prompt where that has the placeholders, else None. `tariffs` is by the names of
    models. `currency` is the models' common one, None where they have several. `scoring` ranks and proves; `own` are
    those of combinations with a judge of their own, by its name.
    """

    prompt: str
    others: tuple[str, ...]
    template: str | None
    examples: Mapping[str, Example]
    scoring: Scoring
    arms: tuple[Combination, ...]
    tariffs: Mapping[str, Tariff] = field(default_factory=dict)
    currency: str | None = None
    own: Mapping[str, Scoring] = field(default_factory=dict)

    def scoring_of(self, arm: int, *, reference: bool) -> Scoring:
        """By whom answers of a combination are scored: its own judge, or the one that all share."""
        judge = None if reference else self.arms[arm].judge
        return self.scoring if judge is None else self.own[judge]

    def instructions(self, text: str) -> str:
        """What a working call is told with `text` as its prompt."""
        return "\n\n".join((text, *self.others))


class Subjects(Protocol):
    """Where subjects come from. Synchronous; raises StorageUnavailable."""

    def pinned(self, run: Run) -> JsonObject:
        """The texts that the run starts with and keeps, whatever becomes of their prompts. Raises UnknownReference."""
        ...

    def load(self, run: Run, pinned: JsonObject) -> Subject:
        """Raises NotFound and UnknownReference where something else that the run names is gone."""
        ...

    def close(self) -> None: ...
