"""Refuse what no loader could serve, before training starts."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from penstock.errors import ConfigError
from penstock.loader.audit import LENGTHS_AT_ONCE
from penstock.loader.plan import Rules
from penstock.loader.samples import Samples

_MOST_CHECKED = 1 << 24
"""Samples whose lengths are looked at before training: 16 million take about 20 ms."""


def whole_numbers(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The same as plain integers, so that a state of them is JSON; None stays.

    Raises:
        ConfigError: One is no whole number.
    """
    out: dict[str, Any] = {}
    for name, value in arguments.items():
        try:
            out[name] = None if value is None else operator.index(value)
        except TypeError as err:
            raise ConfigError(name, value, "must be a whole number") from err
    return out


def check_arguments(rules: Rules, settings: Mapping[str, Any], rank: int, world_size: int) -> None:
    """Raise ConfigError for what no loader could serve."""
    counts = {"seq_len": rules.seq_len, "global_batch_size": rules.global_batch_size}
    counts |= {"max_tokens": rules.max_tokens, "world_size": world_size}
    counts |= {name: settings[name] for name in ("block_size", "blocks_per_window")}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(name, value, "must be at least 1")
    if (rules.global_batch_size is None) == (rules.max_tokens is None):
        given = "neither" if rules.max_tokens is None else "both"
        problem = "give exactly one: rows of a step, or tokens of a step"
        raise ConfigError("global_batch_size and max_tokens", given, problem)
    if not 0 <= rank < world_size:
        raise ConfigError("rank", rank, f"must be in 0 to {world_size - 1}")
    if rules.global_batch_size is not None and rules.global_batch_size < world_size:
        problem = f"must be at least world_size, {world_size}, so that each rank has a row"
        raise ConfigError("global_batch_size", rules.global_batch_size, problem)
    if rules.max_tokens is not None:
        least = world_size * (rules.seq_len or 1)
        if rules.max_tokens < least:
            problem = f"must be at least {least}, so that each of {world_size} ranks has a row"
            raise ConfigError("max_tokens", rules.max_tokens, problem)
    if settings["last_step"] not in ("pad", "drop"):
        raise ConfigError("last_step", settings["last_step"], "must be 'pad' or 'drop'")
    if settings["epoch"] < 0:
        raise ConfigError("epoch", settings["epoch"], "must be at least 0")


def check_longest(samples: Samples, max_tokens: int, world_size: int) -> None:
    """Raise ConfigError if `max_tokens` cannot hold a sample as long as the longest on each rank.

    Of more samples than are looked at, a longer one raises when its window is planned.
    """
    longest = 0
    for first in range(0, min(samples.num_samples, _MOST_CHECKED), LENGTHS_AT_ONCE):
        last = min(first + LENGTHS_AT_ONCE, samples.num_samples)
        longest = max(longest, int(samples.lengths(first, last).max()))
    if max_tokens < world_size * longest:
        problem = (
            f"must be at least {world_size * longest}, as there is a sample of {longest} tokens "
            f"and each of {world_size} ranks gets one; or give seq_len to cut it"
        )
        raise ConfigError("max_tokens", max_tokens, problem)
