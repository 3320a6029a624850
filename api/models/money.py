"""Amounts of money: bodies in and out."""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

from api.models.base import Answer, Body
from engine.budgets import BudgetState
from engine.pricing import QUANTUM
from engine.records.values import Budget, BudgetPeriod, Money

MOST = Decimal(9_000_000)
"""What a database's integers of 64 bits hold in units of QUANTUM, rounded down."""


def _in_quanta(amount: Decimal) -> Decimal:
    if amount != amount.quantize(QUANTUM):
        raise ValueError("must not have more than 12 decimal places")
    return amount


_SHOWN = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "maximum": int(MOST)},
        {"type": "string", "pattern": r"^[0-9]{1,7}(\.[0-9]{1,12})?$"},
    ]
}
"""The same for bodies in and out, so that the document needs no second schema of what holds an amount."""

Amount = Annotated[Decimal, Field(gt=0, le=MOST), AfterValidator(_in_quanta), WithJsonSchema(_SHOWN)]
Currency = Annotated[str, Field(min_length=1, max_length=100)]


class MoneyModel(Body):
    """`amount` as a number or, for more digits than numbers keep, a decimal text."""

    amount: Amount
    currency: Currency = Field(description="As models' prices name it: calls in another one are not counted.")

    def to_domain(self) -> Money:
        return Money(self.amount, self.currency)


class BudgetModel(MoneyModel):
    """What may be spent in a `period`: a day or a month of UTC, or in all."""

    period: BudgetPeriod

    def to_budget(self) -> Budget:
        return Budget(self.to_domain(), self.period)


def money_to_wire(money: Money) -> dict[str, Any]:
    return {"amount": float(money.amount), "currency": money.currency}


def budget_to_wire(budget: Budget | None) -> dict[str, Any] | None:
    return None if budget is None else {**money_to_wire(budget.limit), "period": budget.period}


class BudgetStateModel(Answer):
    """How it stands in its period. `left` is the amount less `spent` and `reserved`, not below 0."""

    currency: str
    spent: float
    reserved: float = Field(description="What replicas hold for calls, for some seconds longer than needed.")
    left: float
    period_ends: str | None = Field(description="null: never by itself.")
    exhausted: bool = Field(description="All of it has been spent: jobs wait.")


def state_to_wire(state: BudgetState | None) -> dict[str, Any] | None:
    """The fields of BudgetStateModel."""
    if state is None:
        return None
    return {
        "currency": state.purse.limit.currency,
        "spent": float(state.spent),
        "reserved": float(state.reserved),
        "left": float(state.left),
        "periodEnds": state.purse.ends_at,
        "exhausted": state.exhausted,
    }
