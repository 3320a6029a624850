"""Simulated tasks: what a prompt is worth, item by item. Pure, and the same in every process.

A world is a landscape and a seed. Its notes (items) have fields; each field has a house rule (demo.conventions), and a
model writes a field as wanted far more often when the prompt holds the rule. What is assumed, and was fixed before any
optimizer was compared on it:

- A world has ten rules out of sixteen. Without its rule a field is right with a probability of 0.10 to 0.45, with it of
  0.88 to 0.98, drawn once per world and rule. Each note has two or three fields and a difficulty of 0.80 to 1.00.
- Some rules help only beside another one (`needing` of them): rules interact.
- Distractors, sentences that sound like good advice, multiply every probability by `harm` each.
- Whether one field of one note comes out right under one prompt is decided by noise of which one half belongs to the
  note (the same note is hard under every prompt) and one half to the very text of the prompt: asking again gives the
  same answer, another wording of the same rules gives another one for some notes.
- Worked examples in a prompt (dspy's demonstrations) convey a rule that they show with a probability of one half each,
  and a rule so conveyed works nine tenths as well as one that is spelled out.
- A task is scored by a program (the share of right fields, or all or nothing) or by a simulated judge with noise. The
  feedback is rich (field, what came, what was wanted) or vague (that something is wrong).
"""

import hashlib
import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

from demo.conventions import CONVENTIONS, DISTRACTORS, STEM, Convention

RULES = 10
TIERS = {"": 1.0, "large": 1.0, "medium": 0.9, "small": 0.8}
"""How much of a probability, or of a meta-model's insight, a size of model has."""
NORMAL = NormalDist()
DEMONSTRATED = 0.5
DEMONSTRATED_STRENGTH = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Landscape:
    """`needing` is how many rules need another one, `traps` how often a meta-model adds a distractor."""

    all_or_nothing: bool = False
    needing: int = 1
    harm: float = 0.85
    traps: float = 0.2
    judged: bool = False
    judge_noise: float = 0.0
    vague: bool = False
    starts_at_optimum: bool = False


LANDSCAPES = {
    "fields": Landscape(),
    "exact": Landscape(all_or_nothing=True),
    "chain": Landscape(needing=6),
    "traps": Landscape(harm=0.75, traps=0.5),
    "judged": Landscape(judged=True, judge_noise=0.15),
    "vague": Landscape(judged=True, judge_noise=0.15, vague=True),
    "optimum": Landscape(starts_at_optimum=True),
    "optimum-judged": Landscape(judged=True, judge_noise=0.2, starts_at_optimum=True),
}
"""The first six are for comparisons; in the last two the first prompt cannot be made better."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A convention as it is in one world; `needs` is the field whose rule must be there too."""

    convention: Convention
    without: float
    with_it: float
    needs: str | None


def fingerprint(*about: object) -> bytes:
    return hashlib.sha256(repr(about).encode()).digest()


def drawn(*about: object) -> random.Random:
    """A generator that depends on its arguments alone."""
    return random.Random(fingerprint(*about))


def normal(*about: object) -> float:
    """One standard normal value that depends on its arguments alone."""
    return NORMAL.inv_cdf((int.from_bytes(fingerprint(*about)[:6], "big") + 0.5) / 2**48)


@dataclass(frozen=True, slots=True)
class Note:
    """An item: its fields with their numbers, and with what luck each meets every prompt (a standard normal value)."""

    values: dict[str, int]
    luck: dict[str, float]
    difficulty: float


class World:
    """A landscape with a seed. `world(name, seed)` keeps the ones that were made."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed, self.landscape = name, seed, LANDSCAPES[name]
        dice = drawn("world", name, seed)
        chosen = dice.sample(CONVENTIONS, RULES)
        fields = [one.field for one in chosen]
        needing = set(fields[1 : 1 + self.landscape.needing])
        self.rules = {
            one.field: Rule(
                convention=one,
                without=dice.uniform(0.10, 0.45),
                with_it=dice.uniform(0.88, 0.98),
                needs=fields[place - 1] if one.field in needing else None,
            )
            for place, one in enumerate(chosen)
        }

        self._notes: dict[int, Note] = {}

    @property
    def first_prompt(self) -> str:
        return self.best_prompt if self.landscape.starts_at_optimum else STEM

    @property
    def best_prompt(self) -> str:
        """Every rule and no distractor."""
        return "\n".join([STEM, *(rule.convention.sentences[0] for rule in self.rules.values())])

    def note(self, number: int) -> str:
        """The item's text."""
        values = self._note(number).values
        parts = [self.rules[field].convention.raw.format(n=value) for field, value in values.items()]
        return f"Note #{number}: {', '.join(parts)}."

    def wanted(self, number: int) -> dict[str, str]:
        values = self._note(number).values
        return {field: self.rules[field].convention.right.format(n=value) for field, value in values.items()}

    def answer(self, prompt: str, number: int, *, tier: str = "", shown: Sequence[int] = ()) -> dict[str, str]:
        """What the working model answers for a note; `shown` are the notes of worked examples in the prompt."""
        note, wanted = self._note(number), self.wanted(number)
        text = fingerprint("text", self.name, self.seed, prompt, tuple(shown), tier)
        answer = {}
        for field, chance in self._chances(prompt, number, tier, shown).items():
            luck = (note.luck[field] + normal(text, number, field)) / math.sqrt(2)
            wrong = self.rules[field].convention.wrong.format(n=note.values[field])
            answer[field] = wanted[field] if NORMAL.cdf(luck) < chance else wrong
        return answer

    def worth(self, prompt: str, numbers: Iterable[int], *, tier: str = "", shown: Sequence[int] = ()) -> float:
        """The expected true score of a prompt over notes: no noise of any single answer is in it."""
        each = [list(self._chances(prompt, number, tier, shown).values()) for number in numbers]
        scores = [math.prod(one) if self.landscape.all_or_nothing else sum(one) / len(one) for one in each]
        return sum(scores) / len(scores)

    def score(self, number: int, answer: dict[str, Any]) -> float:
        """The true score in [0, 1] of an answer."""
        wanted = self.wanted(number)
        right = sum(answer.get(field) == value for field, value in wanted.items())
        return float(right == len(wanted)) if self.landscape.all_or_nothing else right / len(wanted)

    def feedback(self, number: int, answer: dict[str, Any]) -> str:
        wanted = self.wanted(number)
        wrong = [field for field, value in wanted.items() if answer.get(field) != value]
        if not wrong:
            return "All as wanted."
        if self.landscape.vague:
            return "Some of it is not as it is wanted here."
        return "\n".join(f'{field}: got "{answer.get(field)}", expected "{wanted[field]}"' for field in wrong)

    def judged(self, number: int, answer: dict[str, Any], *, tier: str = "") -> float:
        """The score that the judge gives: the true one with noise that hangs on the note and the answer."""
        noise = self.landscape.judge_noise * {"medium": 2.0, "small": 3.0}.get(tier, 1.0)
        luck = normal("judge", self.name, self.seed, tier, number, sorted(answer.items()))
        return round(min(max(self.score(number, answer) + noise * luck, 0.0), 1.0), 3)

    def rules_in(self, text: str) -> set[str]:
        """The fields whose rules a text holds."""
        return {field for field, rule in self.rules.items() if rule.convention.key in text}

    def _note(self, number: int) -> Note:
        note = self._notes.get(number)
        if note is None:
            dice = drawn("note", self.name, self.seed, number)
            fields = dice.sample(sorted(self.rules), 2 if self.landscape.all_or_nothing else 3)
            note = self._notes[number] = Note(
                values={field: dice.randrange(10, 100) for field in fields},
                luck={field: dice.gauss(0, 1) for field in fields},
                difficulty=dice.uniform(0.8, 1.0),
            )
        return note

    def _chances(self, prompt: str, number: int, tier: str, shown: Sequence[int]) -> dict[str, float]:
        """By field, how probable it is that it is right."""
        told, note = self.rules_in(prompt), self._note(number)
        harm = self.landscape.harm ** sum(sentence in prompt for sentence in DISTRACTORS)
        factor = note.difficulty * harm * TIERS[tier]
        return {field: factor * self._strength(field, told, number, shown) for field in note.values}

    def _strength(self, field: str, told: set[str], number: int, shown: Sequence[int]) -> float:
        rule = self.rules[field]
        if field in told and (rule.needs is None or rule.needs in told):
            return rule.with_it
        if self._is_conveyed(field, number, shown):
            return max(DEMONSTRATED_STRENGTH * rule.with_it, rule.without)
        return rule.without

    def _is_conveyed(self, field: str, number: int, shown: Sequence[int]) -> bool:
        showing = [one for one in shown if field in self._note(one).values]
        return any(
            drawn("conveyed", self.name, self.seed, field, one, number).random() < DEMONSTRATED for one in showing
        )


@lru_cache(maxsize=512)
def world(name: str, seed: int) -> World:
    """Raises KeyError for an unknown landscape."""
    return World(name, seed)


def as_text(answer: dict[str, Any]) -> str:
    return json.dumps(answer, sort_keys=True)
