"""What a feature must be over given values, and how far an answer may lie from it.

Part of the reference model: standard library only, nothing shared with the product.
Every expected value judges an answer itself and says in words what is wrong with it.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol, cast

from streams.definitions.model import Feature, Function

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RELATIVE = 1e-9
"""Floating sums and means may differ by this share of the sum of absolute values."""

EPSILON = 2.0**-53
"""Relative rounding error of one operation on doubles."""

DISTINCT_EXACT_UP_TO = 64
"""A HyperLogLog of 2^12 registers still holds this few values one by one."""

DISTINCT_RELATIVE = 0.05
"""Three standard errors of a HyperLogLog of 2^12 registers: 3 * 1.04 / sqrt(4096)."""

QUANTILE_EXACT_UP_TO = 150
"""A KLL sketch with k = 200 still holds this few values one by one, merged or not."""

QUANTILE_RANK_ERROR = 0.0265
"""Twice the 99 % bound (1.33 %) of KLL with k = 200: thousands of answers are judged."""

FREQUENT_EXACT_UP_TO = 768
"""Distinct values that a frequent-items map of 2^10 slots holds before it drops any."""

FREQUENT_ERROR = 3.5 / 1024
"""Beyond that a count may be wrong by this share of all values."""

LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Expected(Protocol):
    """A value to be met."""

    def judge(self, actual: object) -> str | None:
        """What is wrong with `actual`; None if nothing is."""
        ...


@dataclass(frozen=True, slots=True)
class Exactly:
    """This value and no other; None is null."""

    value: object

    def judge(self, actual: object) -> str | None:
        if (actual is None) != (self.value is None) or _plain(actual) != _plain(self.value):
            return f"expected {self.value!r}, got {actual!r}"
        return None


@dataclass(frozen=True, slots=True)
class Near:
    """A floating value within an absolute tolerance."""

    value: float
    tolerance: float

    def judge(self, actual: object) -> str | None:
        if not isinstance(actual, int | float) or isinstance(actual, bool):
            return f"expected a number, got {actual!r}"
        if actual == self.value or abs(actual - self.value) <= self.tolerance:
            return None
        return f"expected {self.value!r} within {self.tolerance:g}, got {actual!r}"


@dataclass(frozen=True, slots=True)
class Distinct:
    """A number of distinct values, estimated by HyperLogLog."""

    number: int

    def judge(self, actual: object) -> str | None:
        few = self.number <= DISTINCT_EXACT_UP_TO
        allowed = 0 if few else math.ceil(self.number * DISTINCT_RELATIVE)
        if isinstance(actual, int) and abs(actual - self.number) <= allowed:
            return None
        return f"expected {self.number} distinct values within {allowed}, got {actual!r}"


@dataclass(frozen=True, slots=True)
class Ranked:
    """The `q` quantile of `ordered` (ascending, never empty), judged by rank."""

    ordered: array[float]
    q: float

    def judge(self, actual: object) -> str | None:
        if not isinstance(actual, int | float):
            return f"expected a number, got {actual!r}"
        n = len(self.ordered)
        error = 1 / n + (0.0 if n <= QUANTILE_EXACT_UP_TO else QUANTILE_RANK_ERROR)
        low = bisect_left(self.ordered, actual) / n - error
        high = bisect_right(self.ordered, actual) / n + error
        inside = self.ordered[0] <= actual <= self.ordered[-1]
        if inside and low - EPSILON * n <= self.q <= high + EPSILON * n:
            return None
        return f"expected rank {self.q} of {n} values, {actual!r} has {low:.4f} to {high:.4f}"


@dataclass(frozen=True, slots=True)
class Frequent:
    """The `k` most frequent values, most frequent first, ties in any order.

    `counts` holds at least every value that may be listed; each count may be wrong by
    `allowed`, and where that is 0 the list must be whole.
    """

    counts: Mapping[object, int]
    k: int
    allowed: int = 0

    @classmethod
    def over(cls, values: Sequence[object], k: int) -> Frequent:
        """What is frequent among `values`."""
        counts = Counter(values)
        if len(counts) > FREQUENT_EXACT_UP_TO:
            return cls(dict(counts), k, math.ceil(len(values) * FREQUENT_ERROR))
        least = counts.most_common(k)[-1][1]
        return cls({value: count for value, count in counts.items() if count >= least}, k)

    def judge(self, actual: object) -> str | None:
        if not isinstance(actual, list):
            return f"expected a list, got {actual!r}"
        found = [(_plain(item["value"]), cast("int", item["count"])) for item in actual]
        top = sorted(self.counts.values(), reverse=True)[: self.k]
        if not self.allowed and len(found) != len(top):
            return f"expected {len(top)} values, got {len(found)}"
        if len({value for value, _ in found}) != len(found) or len(found) > self.k:
            return f"expected at most {self.k} different values, got {found!r}"
        if [count for _, count in found] != sorted((c for _, c in found), reverse=True):
            return f"expected falling counts, got {found!r}"
        counts = {_plain(value): count for value, count in self.counts.items()}
        for value, count in found:
            if abs(count - counts.get(value, 0)) > self.allowed:
                return f"{value!r} does not occur {count} times, or is not among the {self.k} first"
        present = {value for value, _ in found}
        least = top[-1] + 2 * self.allowed
        for value, count in counts.items():
            if count > least and value not in present:
                return f"{value!r} occurs {count} times and is not listed"
        return None


def expect(feature: Feature, values: Sequence[object]) -> Expected:
    """What `feature` is over `values`.

    `values` are the non-null results of its expression (1 for `count: "*"`), NaN taken as
    null, of the events that pass its filters, in order of event time, source partition
    and offset.
    """
    function = feature.function
    if function is Function.COUNT:
        return Exactly(len(values))
    if function is Function.APPROX_DISTINCT:
        return Distinct(len(set(values)))
    if not values:
        return Exactly(None)
    if function is Function.FIRST:
        return Exactly(values[0])
    if function is Function.LAST:
        return Exactly(values[-1])
    if function is Function.TOP_K:
        assert feature.k is not None
        return Frequent.over(values, feature.k)
    if function is Function.QUANTILE:
        assert feature.q is not None
        return Ranked(array("d", sorted(cast("Sequence[float]", values))), feature.q)
    return NUMERIC[function](cast("Sequence[float]", values))


def nothing(feature: Feature) -> Expected:
    """What `feature` is in a vector of kind `empty`: counts are 0 and the rest null."""
    return expect(feature, ())


def _min(values: Sequence[float]) -> Expected:
    return Exactly(min(values))


def _max(values: Sequence[float]) -> Expected:
    return Exactly(max(values))


def _sum(values: Sequence[float]) -> Expected:
    if _all_integers(values):
        total = sum(values)
        return Exactly(total if LONG_MIN <= total <= LONG_MAX else None)
    return Near(_total(values), RELATIVE * _magnitude(values))


def _mean(values: Sequence[float]) -> Expected:
    n = len(values)
    total = sum(values) if _all_integers(values) else _total(values)
    return Near(total / n, RELATIVE * _magnitude(values) / n)


def _variance(values: Sequence[float]) -> Expected:
    if len(values) < 2:
        return Exactly(None)
    return Near(*_sample_variance(values))


def _stddev(values: Sequence[float]) -> Expected:
    if len(values) < 2:
        return Exactly(None)
    variance, tolerance = _sample_variance(values)
    root = math.sqrt(variance)
    low = math.sqrt(max(0.0, variance - tolerance))
    return Near(root, max(root - low, math.sqrt(variance + tolerance) - root))


NUMERIC: Mapping[Function, Callable[[Sequence[float]], Expected]] = {
    Function.SUM: _sum,
    Function.MEAN: _mean,
    Function.MIN: _min,
    Function.MAX: _max,
    Function.VARIANCE: _variance,
    Function.STDDEV: _stddev,
}


def _sample_variance(values: Sequence[float]) -> tuple[float, float]:
    """Sample variance and the error that a stable one-pass algorithm may make.

    A mergeable (Welford, Chan) variance is off by about n * eps * |mean| * sigma beside
    its relative error (Chan, Golub, LeVeque 1983); the textbook sum of squares is off by
    n * eps * mean^2 and must fail.
    """
    n = len(values)
    if _all_integers(values):
        total = cast("int", sum(values))
        squares = cast("int", sum(value * value for value in values))
        variance = (n * squares - total * total) / (n * (n - 1))
    else:
        mean = _total(values) / n
        variance = math.fsum((value - mean) * (value - mean) for value in values) / (n - 1)
    rounding = (n + 16) * EPSILON * float(max(map(abs, values)))
    slack = RELATIVE * variance + rounding * math.sqrt(variance) + rounding * rounding
    # Squares of the smallest numbers are rounded to multiples of the smallest of all.
    return variance, slack + (n + 16) * math.ulp(0.0)


def _all_integers(values: Sequence[float]) -> bool:
    return set(map(type, values)) <= {int, bool}


def _total(values: Sequence[float]) -> float:
    try:
        return math.fsum(values)
    except OverflowError:
        return float(sum(values))


def _magnitude(values: Sequence[float]) -> float:
    return float(sum(map(abs, values)))


def _plain(value: object) -> object:
    """Timestamps as milliseconds since the epoch, however a client decoded them."""
    if isinstance(value, datetime):
        return (value - EPOCH) / timedelta(milliseconds=1)
    return value
