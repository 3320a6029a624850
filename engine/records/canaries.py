"""Canaries: prompts that take the place of one of a flow's for a share of its jobs, until they are found to be worse.

Pure: which jobs a canary gets, and what the pairs say of it. Whoever asks twice is told the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from engine.evaluation.statistics import LEVEL, Interval, paired, sign_flip_p
from utilities.draws import draws

if TYPE_CHECKING:
    from engine.records.values import Prompt, PromptFlow

OPERATION = "canary"
"""Of the jobs that ask a flow's own prompts what a canary was asked, and of those that judge both."""

MOST_SHARE = 0.5
"""Of a flow's jobs, for all of its canaries together."""

MOST_CANARIES = 10
DEFAULT_SAMPLE = 0.2
LOOKS = (20, 40, 80, 160)
"""After how many pairs it is asked whether the canary is worse, each time at an equal part of LEVEL."""

MOST_LOOKED_AT = 400
"""Jobs of one canary, also those that give no pair."""


class CanaryStatus(StrEnum):
    """`undecided` ended with hardly any pairs. All but the one that is rolled back keep their share."""

    RUNNING = "running"
    ROLLED_BACK = "rolled_back"
    NOT_WORSE = "not_worse"
    BETTER = "better"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Pair:
    """A canary's score minus that of the flow's own prompts for the same job; None where one of them has none."""

    job_id: str
    difference: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the last look said. `mean` and its interval are of the differences, below 0 where the canary is worse.

    `worse` and `better` are one-sided: the chances that a mean so low or so high is luck.
    """

    pairs: int
    mean: float
    interval: Interval | None
    worse: float
    better: float
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """One try of a prompt in a flow. `id` is the try's own: another one of the same prompt begins without pairs.

    It stands for the flow's prompt `replaces`. `passed` of the jobs in its sample, in their order, are done with;
    `looks` have been taken. `reason` says why it ended otherwise than by a look.
    """

    id: str
    prompt_id: str
    replaces: str
    share: float
    since: datetime
    status: CanaryStatus = CanaryStatus.RUNNING
    pairs: tuple[Pair, ...] = ()
    passed: int = 0
    looks: int = 0
    finding: Finding | None = None
    reason: str | None = None
    ended_at: datetime | None = None

    @property
    def has_share(self) -> bool:
        return self.status is not CanaryStatus.ROLLED_BACK

    @property
    def differences(self) -> list[float]:
        return [pair.difference for pair in self.pairs if pair.difference is not None]


def replaced_by(prompt: "Prompt", others: Sequence["Prompt"]) -> str | None:
    """The id of the one that `prompt` was made of, or is another version of; None where there is none."""
    parent = None if prompt.lineage is None else prompt.lineage.parent_id
    fitting = [other for other in others if other.id == parent]
    fitting += [other for other in others if other.name == prompt.name and other.type == prompt.type]
    return next((other.id for other in fitting if other.id != prompt.id), None)


def assigned(flow: "PromptFlow", job_id: str) -> Canary | None:
    """The canary that the job gets: each one's share of all jobs, and never two."""
    left = 1.0
    for canary in flow.canaries:
        if not canary.has_share or canary.replaces not in flow.prompt_ids:
            continue
        if _drawn(flow.id, "share", canary.prompt_id, job_id) < canary.share / left:
            return canary
        left -= canary.share
    return None


def is_sampled(flow: "PromptFlow", canary: Canary, job_id: str) -> bool:
    """Whether the job, which the canary gets, is to be scored."""
    running = canary.status is CanaryStatus.RUNNING
    return running and _drawn(flow.id, "sample", canary.prompt_id, job_id) < flow.canary_sample


def substituted(prompts: Sequence[str], canary: Canary) -> tuple[str, ...]:
    """The flow's prompts with the canary in its place."""
    return tuple(canary.prompt_id if prompt == canary.replaces else prompt for prompt in prompts)


def looked(canary: Canary, now: datetime) -> Canary:
    """The canary after every look that its pairs allow. A look is at the first pairs, however many there are."""
    while canary.status is CanaryStatus.RUNNING:
        differences, wanted = canary.differences, LOOKS[canary.looks]
        is_last = len(canary.pairs) >= MOST_LOOKED_AT and len(differences) < wanted
        if is_last and len(differences) < LOOKS[0]:
            return ended(canary, CanaryStatus.UNDECIDED, now, reason="too few of its jobs could be scored")
        if len(differences) < wanted and not is_last:
            return canary
        canary = _looked_once(canary, differences[:wanted], now, is_last=is_last or wanted == LOOKS[-1])
    return canary


def ended(canary: Canary, status: CanaryStatus, now: datetime, *, reason: str | None = None) -> Canary:
    return replace(canary, status=status, ended_at=now, reason=reason)


def _looked_once(canary: Canary, differences: Sequence[float], now: datetime, *, is_last: bool) -> Canary:
    worse = paired([-each for each in differences], canary.id)
    better = sign_flip_p(differences, canary.id)
    gap = worse.interval
    finding = Finding(
        pairs=worse.count,
        mean=0.0 - worse.mean,
        interval=None if gap is None else Interval(-gap.high, -gap.low),
        worse=worse.p,
        better=better,
        at=now,
    )
    canary = replace(canary, looks=canary.looks + 1, finding=finding)
    if worse.proves(level=LEVEL / len(LOOKS)):
        return ended(canary, CanaryStatus.ROLLED_BACK, now)
    if not is_last:
        return canary
    return ended(canary, CanaryStatus.BETTER if better < LEVEL else CanaryStatus.NOT_WORSE, now)


def _drawn(flow_id: str, purpose: str, prompt_id: str, job_id: str) -> float:
    return draws(flow_id, f"canary {purpose} {prompt_id} {job_id}", 0).random()
