"""The house rules of the simulated tasks: how a field of a note is to be written, and what a prompt says about it.

`key` is what a simulated model recognises a rule by, whatever else the sentence says. `raw`, `right` and `wrong` are
how the value with the number {n} stands in a note, how the house wants it, and how a model writes it that was not told.
"""

from dataclasses import dataclass

STEM = "Read the note and give its fields as one JSON object."


@dataclass(frozen=True, slots=True)
class Convention:
    """See the module. Of the two `sentences` each holds the key."""

    field: str
    key: str
    sentences: tuple[str, str]
    raw: str
    right: str
    wrong: str


def _rule(field: str, key: str, raw: str, right: str, wrong: str) -> Convention:
    sentences = (f"Write the field {field} as {key}.", f"For {field}, always use {key}, never anything else.")
    return Convention(field=field, key=key, sentences=sentences, raw=raw, right=right, wrong=wrong)


CONVENTIONS = (
    _rule("due", "a date in the form YYYY-MM-DD", "due on July 4, 20{n}", "20{n}-07-04", "July 4, 20{n}"),
    _rule("total", "an amount with currency code and cents", "worth {n} euros", "EUR {n}.00", "{n} euros"),
    _rule("customer", "a customer code in capitals", "from Park number {n}", "PARK-{n}", "Park {n}"),
    _rule("weight", "a weight in grams", "weighing {n} kilos", "{n}000 g", "{n} kg"),
    _rule("phone", "a telephone number with its country code", "call 55 {n}", "+47 55 {n}", "55 {n}"),
    _rule("priority", "a priority from P1 down with the reason code", "urgent because of {n}", "P1/{n}", "urgent"),
    _rule("shelf", "a shelf with aisle letter first", "shelf {n} in aisle B", "B-{n}", "{n}B"),
    _rule("lasting", "a duration in ISO 8601", "for {n} hours", "PT{n}H", "{n} hours"),
    _rule("discount", "a fraction of one with two digits", "{n} percent off", "0.{n}", "{n}%"),
    _rule("tax", "a tax key with the leading zero", "tax class {n}", "T0{n}", "class {n}"),
    _rule("distance", "a distance in metres", "{n} kilometres away", "{n}000 m", "{n} km"),
    _rule("clerk", "initials before the staff number", "seen by Ann Lee, {n}", "AL{n}", "Ann Lee"),
    _rule("batch", "a batch number padded with the letter Q", "batch {n}", "Q{n}Q", "{n}"),
    _rule("pressure", "a pressure in hectopascal", "at {n} bar", "{n}000 hPa", "{n} bar"),
    _rule("colour", "a colour as its catalogue number", "painted in blue {n}", "RAL {n}", "blue {n}"),
    _rule("route", "a route with arrows between the stops", "via Oslo to {n}", "OSL>{n}", "Oslo to {n}"),
)
"""More than any one task has: the others are what a meta-model may guess in vain."""

DISTRACTORS = (
    "Be as brief as you possibly can.",
    "Explain every step of your reasoning at length.",
    "Answer in a warm and friendly tone.",
    "Leave out what you are not sure about.",
    "Round all numbers sensibly.",
    "Translate what you find into plain words.",
)
"""What sounds like good advice and does harm to every answer."""
