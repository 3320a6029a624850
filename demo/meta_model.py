"""A simulated meta-model: it edits a prompt by what it is shown, not perfectly. Pure.

What is assumed, whoever asks and however the request is laid out:

- A rule whose field the feedback calls wrong ("field: got …, expected …") is added with a probability of 0.6; an edit
  adds up to two.
- A rule that a worked example shows (a JSON object with a field written as wanted) is found with 0.25, up to one an
  edit, two where there is no feedback.
- A rule that stands in another prompt of the request is taken over with 0.3, up to one; with 0.8, as many as there are,
  where the request is one of two prompts and no feedback.
- With 0.15 an edit loses one of the rules that were there. A distractor that is there goes with 0.25. A new one comes
  with the landscape's `traps`, with 0.5 where there is nothing to go by; those that stand elsewhere in the request
  (tried before) are avoided seven times in ten.
- With 0.05 a rule is guessed, mostly in vain.

A smaller model has less insight: the first three probabilities shrink with its size.
"""

import json
import random
import re
from collections.abc import Iterable
from typing import Any

from demo.conventions import CONVENTIONS, DISTRACTORS, STEM, Convention
from demo.landscape import TIERS, World, drawn

ADDED = 0.6
MOST_ADDED = 2
INFERRED = 0.25
TAKEN_OVER = 0.3
COMBINED = 0.8
LOST = 0.15
CLEANED = 0.25
ASTRAY = 0.5
AVOIDED = 0.7
GUESSED = 0.05
_FENCED = re.compile(r"```[^\n`]*\n(.*?)\n?```", re.DOTALL)
_OBJECT = re.compile(r"\{[^{}]*\}")


def objects(text: str) -> list[dict[str, Any]]:
    """The flat JSON objects in a text, also those in a JSON string."""
    found = []
    for match in _OBJECT.findall(text):
        for spelling in (match, match.replace('\\"', '"')):
            try:
                value = json.loads(spelling)
            except ValueError:
                continue
            found.append(value)
            break
    return found


def prompts_in(text: str) -> list[str]:
    """The prompts of a request, the one to edit first."""
    fenced = [block for block in _FENCED.findall(text) if STEM in block]
    if fenced:
        return fenced
    attempts = [f"{STEM}{part.partition('Resulting Score')[0]}" for part in text.split(STEM)[1:]]
    return [re.split(r"\[\[ ##|\n\[\d+\]|Instruction #", attempt)[0].strip() for attempt in reversed(attempts)] or [
        STEM
    ]


def edited(world: World, text: str, *, seed: int | None = None, index: int = 0, tier: str = "") -> str:
    """A new prompt for the request `text`; `seed` and `index` tell answers to the same request apart."""
    dice = drawn("meta", world.name, world.seed, text, seed, index, tier)
    current, *others = prompts_in(text)
    insight = TIERS[tier] ** 3
    held = [one for one in CONVENTIONS if one.key in current]
    bad = [sentence for sentence in DISTRACTORS if sentence in current]
    hinted = _missing(_hinted(text), held)
    shown = _missing(_shown(text), held)
    elsewhere = _missing((one for one in CONVENTIONS if any(one.key in other for other in others)), held)
    merging = len(others) == 1 and not hinted
    new = _drawn_from(dice, hinted, ADDED * insight, MOST_ADDED)
    new += _drawn_from(dice, _missing(shown, new), INFERRED * insight, 1 if hinted else 2)
    chance, most = (COMBINED, len(elsewhere)) if merging else (TAKEN_OVER, 1)
    new += _drawn_from(dice, _missing(elsewhere, new), chance * insight, most)
    if dice.random() < GUESSED:
        new += _drawn_from(dice, _missing(CONVENTIONS, [*held, *new]), 1.0, 1)
    if held and dice.random() < LOST:
        held.remove(dice.choice(held))
    bad = [sentence for sentence in bad if dice.random() >= CLEANED]
    blind = not (hinted or shown or elsewhere)
    if dice.random() < (ASTRAY if blind else world.landscape.traps):
        bad += _distraction(dice, current, text)
    return "\n".join([STEM, *(dice.choice(one.sentences) for one in [*held, *new]), *bad])


def _missing(of: Iterable[Convention], held: Iterable[Convention]) -> list[Convention]:
    known = {one.field for one in held}
    return [one for one in of if one.field not in known]


def _drawn_from(dice: random.Random, of: list[Convention], chance: float, most: int) -> list[Convention]:
    mixed = dice.sample(of, len(of))
    return [one for one in mixed if dice.random() < chance][:most]


def _hinted(text: str) -> list[Convention]:
    return [one for one in CONVENTIONS if re.search(rf"\b{one.field}\b[^\n]*\bexpected\b", text)]


def _shown(text: str) -> list[Convention]:
    """The conventions that an object in the text keeps to."""
    found = objects(text)
    return [
        one for one in CONVENTIONS if any(isinstance(row, dict) and _keeps_to(one, row.get(one.field)) for row in found)
    ]


def _keeps_to(convention: Convention, value: object) -> bool:
    pattern = re.escape(convention.right).replace(r"\{n\}", r"\d+")
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _distraction(dice: random.Random, current: str, text: str) -> list[str]:
    fresh = [sentence for sentence in DISTRACTORS if sentence not in current]
    if dice.random() < AVOIDED:
        fresh = [sentence for sentence in fresh if sentence not in text]
    return [dice.choice(fresh)] if fresh else []
