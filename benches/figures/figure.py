"""A figure with its bound: what was measured, how sure that is, and whether the bound is met."""

import dataclasses
import math
import random
import statistics


@dataclasses.dataclass(frozen=True)
class Figure:
    """One line of the table.

    `low` to `high` is where the true value is with 95 % confidence, or the values that were seen
    where there are too few for that. A bound is missed only if all of that lies beyond it: a run
    on a noisy machine must not call a miss what is none.
    """

    name: str
    unit: str
    sense: str  # "<=" or ">="
    bound: float | None  # None: it is only shown
    value: float
    low: float
    high: float

    def is_met(self):
        if self.bound is None:
            return True
        if math.isnan(self.value):
            return False
        return self.low <= self.bound if self.sense == "<=" else self.high >= self.bound

    def verdict(self):
        if self.bound is None:
            return "shown"
        return "met" if self.is_met() else "missed"

    def shown_bound(self):
        if self.bound is None:
            return "none"
        sign = {"<=": "≤", ">=": "≥"}[self.sense]
        return f"{sign} {shown(self.bound)}{self.shown_unit()}"

    def shown_value(self):
        text = f"{shown(self.value)}{self.shown_unit()}"
        if self.low != self.high:
            text += f" ({shown(self.low)} to {shown(self.high)})"
        return text

    def shown_unit(self):
        return f" {self.unit}" if self.unit else ""

    def to_json(self):
        return dataclasses.asdict(self) | {"verdict": self.verdict()}

    @classmethod
    def from_json(cls, values):
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})


def at_most(bound, unit, name, values):
    """A figure of a few values that is to be small: their median, and all that was seen."""
    return of_few("<=", bound, unit, name, values)


def at_least(bound, unit, name, values):
    return of_few(">=", bound, unit, name, values)


def of_few(sense, bound, unit, name, values):
    # What could not be measured is NaN, and misses its bound.
    values = [math.nan if value is None else value for value in values] or [math.nan]
    ends = (min(values), max(values))
    return Figure(name, unit, sense, bound, statistics.median(values), *ends)


def ratio(sense, bound, name, servers, floors):
    """The median of the ratios of rounds that were measured side by side, and the interval of it
    by the percentile bootstrap (Efron 1979)."""
    ratios = [quotient(*pair) for pair in zip(servers, floors, strict=True)]
    return Figure(name, "x", sense, bound, statistics.median(ratios), *bootstrap(ratios))


def ratio_of_all(sense, bound, name, servers, floors):
    """Of too few values for an interval, each of ours beside each of the floor's."""
    ratios = [quotient(ours, theirs) for ours in servers for theirs in floors]
    median = quotient(statistics.median(servers), statistics.median(floors))
    return Figure(name, "x", sense, bound, median, min(ratios), max(ratios))


def quotient(ours, theirs):
    # Nothing is to be said of a cost of which the kernel's clock has seen nothing.
    return ours / theirs if ours and theirs else math.nan


def bootstrap(values, draws=4000):
    """The 95 % confidence interval of the median; the same values give the same interval."""
    source = random.Random(1)
    medians = sorted(
        statistics.median(source.choices(values, k=len(values))) for _ in range(draws)
    )
    tail = draws // 40
    return medians[tail], medians[-1 - tail]


def shown(value):
    if math.isnan(value):
        return "unknown"
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}"
