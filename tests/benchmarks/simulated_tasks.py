"""The simulated provider as a world to search in without jobs: our strategies' items become its requests, in-process.

What is sent and what comes back is what goes over HTTP otherwise: `demo.simulated.completion` answers both.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from demo.landscape import World as Task
from demo.landscape import as_text
from demo.simulated import completion
from llm_optimizer.strategies import meta_prompts
from llm_optimizer.strategies.interface import Answer, Compare, Compared, Evaluate, Item, Propose, Scored, State
from llm_optimizer.strategies.meta_prompts import Example
from tests.benchmarks.optimizer_tasks import JUDGE_REQUEST


def note_id(number: int) -> str:
    return f"n{number}"


def number_of(example: str) -> int:
    return int(example[1:])


def note_ids(numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple(map(note_id, numbers))


@dataclass
class Simulated:
    """A search's world. `arms` are the sizes of the working and the meta-model of each combination."""

    task: Task
    arms: Sequence[tuple[str, str]] = (("", ""),)

    def answer(self, state: State, item: Item) -> Answer:
        if isinstance(item, Evaluate):
            return self._scored(state.candidates[item.candidate].text, item)
        return self._compared(state, item) if isinstance(item, Compare) else self._proposed(state, item)

    def score(self, prompt: str, number: int, tier: str = "") -> float:
        """What an evaluation of the prompt on this note would say."""
        return self._marked(number, self._output(prompt, number, tier))[0]

    def _output(self, prompt: str, number: int, tier: str) -> str:
        return self._ask("work", tier, ("system", prompt), ("user", self.task.note(number)))

    def _scored(self, prompt: str, item: Evaluate) -> Scored:
        number = number_of(item.example)
        output = self._output(prompt, number, self.arms[item.arm][0])
        score, feedback = self._marked(number, output)
        tells = meta_prompts.tells(feedback, as_text(self.task.wanted(number)))
        return Scored(key=item.key, score=score, output=output, feedback=feedback, tells=tells)

    def _compared(self, state: State, item: Compare) -> Compared:
        """The answer that scores higher is liked better; nothing else is told."""
        number, tier = number_of(item.example), self.arms[item.arm][0]
        first, second = (
            self._marked(number, self._output(state.candidates[one].text, number, tier))[0]
            for one in (item.first, item.second)
        )
        return Compared(key=item.key, winner="tie" if first == second else "first" if first > second else "second")

    def _marked(self, number: int, output: str) -> tuple[float, str]:
        """By the program where the task has one, by the judge where it has not."""
        if not self.task.landscape.judged:
            answer = json.loads(output)
            return self.task.score(number, answer), self.task.feedback(number, answer)
        wanted = as_text(self.task.wanted(number))
        request = JUDGE_REQUEST.format(note=self.task.note(number), answer=output, wanted=wanted)
        verdict = json.loads(self._ask("judge", "", ("user", request)))
        return verdict["score"], verdict["feedback"]

    def _proposed(self, state: State, item: Propose) -> Answer:
        numbers = {one: number_of(one) for one in meta_prompts.shown_ids(item)}
        examples = {
            one: Example(input=self.task.note(number), expected=as_text(self.task.wanted(number)))
            for one, number in numbers.items()
        }
        request = meta_prompts.request(state, item, examples)
        answer = self._ask("meta", self.arms[item.arm][1], ("user", request), seed=item.serial)
        return meta_prompts.read(state, item, examples, answer)

    def _ask(self, role: str, tier: str, *messages: tuple[str, str], **others: Any) -> str:
        model = ":".join(["sim", self.task.name, str(self.task.seed), role, *([tier] if tier else [])])
        rows = [{"role": who, "content": text} for who, text in messages]
        answer: str = completion({"model": model, "messages": rows, **others})["choices"][0]["message"]["content"]
        return answer
