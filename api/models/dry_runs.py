"""Trying an evaluator: bodies in and out."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from api.models.base import StrictBody
from api.models.evaluators import MetricOutcomeModel, OutcomeModel, measured_to_wire, outcome_to_wire
from api.models.job import Format, Prompts, Temperature, Text
from api.models.runs import ProcessingMetrics
from api.services.dry_runs import CallDraft, Tried, Trying
from api.services.summary import metrics_of
from engine.evaluation.values import Sample
from engine.records.datasets import DatasetItem

_SECONDS = 60.0


class DryRunRequest(StrictBody):
    """One item, with its `output` or with a `model` that gives one, told by `prompts` and `instructions`."""

    input: Any = None
    expected: Any = None
    tags: Annotated[list[Text], Field(max_length=50)] = Field(default_factory=list)
    output: Any = Field(None, description="As a job's responseData, or a text.")
    model: Text | None = None
    prompts: Prompts = Field(default_factory=list, description="Ids of prompts.")
    instructions: Text | None = Field(None, description="Text that follows the prompts.")
    temperature: Temperature = 0.0
    response_format: Format = None
    timeout: float = Field(_SECONDS, ge=0, le=600, description="Seconds to wait for each call.")

    @model_validator(mode="after")
    def _one_of_both(self) -> "DryRunRequest":
        if (self.output is None) == (self.model is None):
            raise ValueError("either output or model is needed")
        if self.model is not None and not self.prompts and self.instructions is None:
            raise ValueError("a model needs prompts or instructions")
        if self.model is not None and self.input is None:
            raise ValueError("a model needs an input")
        return self

    def trying(self, evaluator_id: str) -> Trying:
        sample = Sample(output=self.output, input=self.input, expected=self.expected, tags=tuple(self.tags))
        if self.model is None:
            return Trying(sample=sample)
        work = CallDraft(
            model=self.model,
            request_data=DatasetItem(id="", input=self.input).request_data,
            working_prompts=self.prompts,
            instructions=self.instructions,
            temperature=self.temperature,
            response_format="json" if self.response_format is None else self.response_format,
            client_reference={"evaluatorId": evaluator_id, "role": "work"},
        )
        return Trying(sample=sample, work=work)


class DryRunResponse(OutcomeModel):
    """What all metrics together say of the `output`, and each of them. `jobIds` are those of the calls."""

    output: Any = None
    metrics: list[MetricOutcomeModel]
    job_ids: list[str]
    processing_metrics: ProcessingMetrics | None = None


def tried_to_wire(tried: Tried) -> dict[str, Any]:
    return {
        **outcome_to_wire(tried.outcome),
        "output": tried.output,
        "metrics": [measured_to_wire(each) for each in tried.measured],
        "jobIds": tried.jobs,
        "processingMetrics": metrics_of(tried.totals),
    }
