"""What search must be worth: least values of measures, as ``ndcg@10>=0.40``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from penstock.errors import ConfigError
from penstock.index.evaluate import MEASURES, Measure, Metrics

_FORM = re.compile(r"\s*([a-z]+(?:@[0-9]+)?)\s*>=\s*([0-9.]+)\s*")


@dataclass(frozen=True, slots=True)
class Requirement:
    """The least value that a measure must have."""

    measure: Measure
    least: float

    def __str__(self) -> str:
        return f"{self.measure}>={self.least:g}"


def read_requirement(text: str) -> Requirement:
    """Read ``MEASURE>=NUMBER``.

    Raises:
        ConfigError: It is of another form, or of an unknown measure.
    """
    found = _FORM.fullmatch(text)
    for measure in get_args(Measure):
        if found and found[1] == measure and _is_share(found[2]):
            return Requirement(measure, float(found[2]))
    known = ", ".join(MEASURES)
    raise ConfigError(
        "require", text, f"must be MEASURE>=NUMBER, of {known} and in [0, 1], such as ndcg@10>=0.4"
    )


def missed(
    requirements: Iterable[Requirement], measured: Metrics
) -> tuple[tuple[Requirement, float], ...]:
    """The requirements that do not hold, each with what was measured."""
    found = ((each, getattr(measured, MEASURES[each.measure])) for each in requirements)
    return tuple((each, value) for each, value in found if value < each.least)


def _is_share(text: str) -> bool:
    try:
        return 0.0 <= float(text) <= 1.0
    except ValueError:
        return False
