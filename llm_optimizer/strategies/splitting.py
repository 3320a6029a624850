"""Which examples a search may learn from, validates on, and never sees. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from utilities.draws import draws

SMALLEST_HOLDOUT = 30
HOLDOUT_SHARE = 0.3
TOO_FEW = 20
FEWEST_VALIDATION = 8
MOST_VALIDATION = 60
ROLLOUTS_PER_VALIDATION = 20
RUNG_SHARE = 4
HALVING = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Ids. `validated` is False where there are too few examples for parts: then there is no holdout and the other two
    are the same, so that what a search finds is not proven by anything.
    """

    feedback: tuple[str, ...]
    validation: tuple[str, ...]
    holdout: tuple[str, ...]
    validated: bool = True


def validation_size(rollouts: int, arms: int = 1) -> int:
    """How many validation examples a budget is best spent with: more make each step dearer, fewer make it blind.

    With several combinations of models (`arms`) a quarter of what each may spend before the first halving: by then an
    arm has to try texts, not only to score the first one.
    """
    if arms == 1:
        wanted = rollouts // ROLLOUTS_PER_VALIDATION
    else:
        wanted = int(rollouts / (arms * (1 + math.log(arms, HALVING)))) // RUNG_SHARE
    return max(FEWEST_VALIDATION, min(MOST_VALIDATION, wanted))


def split(
    tags: Mapping[str, Sequence[str]],
    *,
    seed: int,
    rollouts: int,
    holdout: int | None = None,
    validation: int | None = None,
    arms: int = 1,
) -> Split:
    """`tags` has every example's id with its tags; each part gets its share of every group of equal tags.

    `holdout` and `validation` are sizes; by default at least 30 and 30 % (at most half), and what `rollouts` and
    `arms` suggest (at most half of the rest).
    """
    order = _stratified(tags, seed)
    if len(order) < TOO_FEW:
        return Split(feedback=order, validation=order, holdout=(), validated=False)
    kept_back = max(SMALLEST_HOLDOUT, math.ceil(HOLDOUT_SHARE * len(order))) if holdout is None else holdout
    kept_back = min(kept_back, len(order) // 2)
    wanted = validation_size(rollouts, arms) if validation is None else validation
    until = kept_back + min(wanted, (len(order) - kept_back) // 2)
    return Split(holdout=order[:kept_back], validation=order[kept_back:until], feedback=order[until:])


def _stratified(tags: Mapping[str, Sequence[str]], seed: int) -> tuple[str, ...]:
    """All ids in an order of which every stretch has about the same share of each group."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for one in sorted(tags):
        groups.setdefault(tuple(sorted(tags[one])), []).append(one)
    placed: list[tuple[float, int, str]] = []
    for number, name in enumerate(sorted(groups)):
        members = groups[name]
        draws(seed, "split", number).shuffle(members)
        placed += [((at + 0.5) / len(members), number, one) for at, one in enumerate(members)]
    return tuple(one for _, _, one in sorted(placed))
