"""Mix several kinds of samples by weight, within one order.

Each part is in its own shuffled order, as if it were alone. The mixture draws from
the parts in turn, always from the one that is owed the most, counting samples or
tokens in integers. So after any number of draws each part has its share to within a
sample or so, and what is drawn depends on nothing but the place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from penstock.errors import ConfigError
from penstock.fingerprint import fingerprint
from penstock.loader.order import Order, order_key
from penstock.loader.plan import Mark, Rules, Window
from penstock.loader.samples import I32, I64, Samples

_PARTS_OF_ONE = 1_000_000
_ENDLESS = 2**62
_NO_LIMIT = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of the kinds that are mixed."""

    samples: Samples
    weight: float
    """Its share, as part of the sum of all. Integers are taken as they are, other
    numbers to a millionth of the sum."""
    repeat: int | None = 1
    """How often each of its samples comes in an epoch. None: again and again in new
    orders, as long as another part lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Several kinds of samples, served in given shares.

    An epoch ends when every part with a number of repeats has been served so often; a
    part that ends earlier leaves, and the others share by their weights. A part whose last
    weight is 0 is not waited for. A part's second time begins when its first is over.

    Raises:
        ConfigError: There are no parts or samples, a weight or a step is wrong, or no
            part is waited for, so that an epoch would never end.

    Guarantees: while the weights and the parts that take part stay the same, no part is
        ahead of its share by more than one sample, nor behind by more than one for each
        other part. With `global_batch_size` and no `seq_len`, samples are served as they
        are drawn, so this holds for every batch. Rows that are packed, or of like length,
        are shuffled within a window, so there it holds for every window.
    """

    parts: Mapping[str, Part]
    by: str = "tokens"
    """Whether weights are shares of "tokens" or of "samples"."""
    schedule: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Weights of all parts from a step of the epoch on, in place of the parts' own. Exactly
    from there on where samples are served as they are drawn; else from the window after on,
    and windows are cut to end at about that step."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("Mixture.parts", "empty", "expected at least one part")
        if self.by not in ("tokens", "samples"):
            raise ConfigError("Mixture.by", self.by, "must be 'tokens' or 'samples'")
        for name, part in self.parts.items():
            if part.samples.num_samples == 0:
                raise ConfigError(f"part {name!r}", "empty", "expected at least one sample")
            if part.repeat is not None and part.repeat < 1:
                raise ConfigError(f"part {name!r}, repeat", part.repeat, "must be at least 1")
        for step, weights in self.schedule.items():
            if step < 1:
                raise ConfigError("Mixture.schedule", step, "steps must be at least 1")
            if set(weights) != set(self.parts):
                problem = f"expected weights for exactly {', '.join(map(repr, self.parts))}"
                raise ConfigError(f"Mixture.schedule, step {step}", sorted(weights), problem)
        if not any(self.times):
            problem = "expected one with a number of repeats and a weight that is not 0 in the end"
            raise ConfigError("Mixture.parts", "none that an epoch could end with", problem)

    @property
    def times(self) -> list[int | None]:
        """How often each part is served in an epoch; None: as often as others let it."""
        last = self.stretches()[-1][1]
        parts = zip(self.parts.values(), last, strict=True)
        return [part.repeat if weight else None for part, weight in parts]

    def stretches(self) -> list[tuple[int, list[int]]]:
        """First steps, and the weights from there on, as integers in the order of the parts."""
        own = {name: part.weight for name, part in self.parts.items()}
        steps = {0: own, **self.schedule}
        return [
            (step, _integers([steps[step][name] for name in self.parts])) for step in sorted(steps)
        ]

    @property
    def settings(self) -> str:
        """32 hexadecimal digits that name all but the samples."""
        repeats = {name: part.repeat for name, part in self.parts.items()}
        return fingerprint((self.by, self.stretches(), list(repeats.items())))

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that name the samples of all parts."""
        return fingerprint([(name, part.samples.fingerprint) for name, part in self.parts.items()])


def _integers(weights: list[float]) -> list[int]:
    for weight in weights:
        if not 0 <= weight < 2**31:
            raise ConfigError("weight", weight, "must be at least 0 and below 2**31")
    if not any(weights):
        raise ConfigError("weights", weights, "expected one above 0")
    if all(weight == int(weight) for weight in weights) and sum(weights) < 2**31:
        return [int(weight) for weight in weights]
    exact = [Fraction(weight) for weight in weights]
    rounded = [round(weight * _PARTS_OF_ONE / sum(exact)) for weight in exact]
    for weight, found in zip(weights, rounded, strict=True):
        if weight and not found:
            raise ConfigError("weight", weight, "must be at least a millionth of the sum of all")
    return rounded


class MixedCourse:
    """A mixture's windows in the order of an epoch.

    What the course counts by: which stretch of the schedule the window before was of,
    how many samples of each part were drawn before, and what is owed to each.
    """

    def __init__(
        self, mixture: Mixture, rules: Rules, *, seed: int, epoch: int, block_size: int, blocks: int
    ) -> None:
        self._mixture, self._rules = mixture, rules
        self._block_size, self._blocks = block_size, blocks
        self._key = order_key(mixture.settings, mixture.fingerprint, seed, epoch)
        self._stretches = mixture.stretches()
        self._streams = [
            _Stream(name, part.samples, (seed, epoch), block_size, blocks)
            for name, part in mixture.parts.items()
        ]
        self._repeats = [part.repeat for part in mixture.parts.values()]
        self._must_end = np.array([times is not None for times in mixture.times])

    @property
    def start(self) -> tuple[int, ...]:
        """Nothing is drawn, nothing owed."""
        return (0, *[0] * (2 * len(self._streams)))

    def window(self, mark: Mark) -> Window | None:
        """See `Course`."""
        units, before, *counts = mark
        drawn = np.array(counts[: len(self._streams)], np.int64)
        owed = np.array(counts[len(self._streams) :], np.int64)
        left = self._left(drawn)
        if not np.any(self._must_end & (left > 0)):
            return None
        stretch = self._stretch(units, left)
        if stretch != before:
            owed[:] = 0
        weights = np.array(self._stretches[stretch][1], np.int64) * (left > 0)
        most, budget = self._limits(units, stretch)
        sources, positions, lengths = self._draw(drawn, owed, left, weights, most, budget)
        drawn += np.bincount(sources, minlength=len(drawn))
        following = (stretch, *drawn.tolist(), *owed.tolist())
        key = order_key(self._key, *mark)
        return Window(sources, positions, lengths, key, following)

    def _left(self, drawn: I64) -> I64:
        sizes = [stream.samples.num_samples for stream in self._streams]
        ends = [
            _ENDLESS if repeat is None else repeat * size
            for repeat, size in zip(self._repeats, sizes, strict=True)
        ]
        return np.array(ends, np.int64) - drawn

    def _stretch(self, units: int, left: I64) -> int:
        """Which weights hold: those of the step, or the next that someone has who is left."""
        step = units // (self._rules.global_batch_size or 1)
        current = max(i for i, (first, _) in enumerate(self._stretches) if first <= step)
        for i in range(current, len(self._stretches)):
            if np.any((np.array(self._stretches[i][1]) > 0) & (left > 0)):
                return i
        raise AssertionError("the last weights leave no part out that must end")

    def _limits(self, units: int, stretch: int) -> tuple[int, int]:
        """Samples and tokens of a window at most, so that it ends where the weights change."""
        most, rules = self._block_size * self._blocks, self._rules
        later = [first for first, _ in self._stretches[stretch + 1 :]]
        if not later:
            return most, _NO_LIMIT
        if rules.global_batch_size is None:
            assert rules.max_tokens is not None
            return most, max(1, later[0] - units) * rules.max_tokens
        rows = max(1, later[0] * rules.global_batch_size - units)
        if rules.seq_len is None:
            return min(most, rows), _NO_LIMIT
        return most, rows * rules.seq_len

    def _draw(
        self, drawn: I64, owed: I64, left: I64, weights: I64, most: int, budget: int
    ) -> tuple[I32, I64, I32]:
        """Draw a window; the part, the position and the length of each sample."""
        from penstock.kernels.mixing import draw

        count = len(self._streams)
        known: list[list[tuple[I64, I32]]] = [[] for _ in range(count)]
        have = np.zeros(count, np.int64)  # known samples of each part
        used = np.zeros(count, np.int64)
        got: list[tuple[I32, I64, I32]] = []
        wanting = 0  # the number of a part of which more must be known
        while wanting >= 0:
            if have[wanting] == used[wanting] and weights[wanting]:
                more = self._streams[wanting].after(int(drawn[wanting] + have[wanting]))
                known[wanting].append(more)
                have[wanting] += len(more[0])
            positions, lengths = _joined(known)
            begins = np.cumsum(have) - have
            taken = begins + used
            sources, places = np.empty(most, np.int32), np.empty(most, np.int64)
            n, wanting = draw(
                *(lengths, taken, begins + have, left, self._must_end, weights, owed),
                *(self._mixture.by == "tokens", most, budget, sources, places),
            )
            used = taken - begins
            got.append((sources[:n], positions[places[:n]], lengths[places[:n]]))
            most -= n
            budget -= int(got[-1][2].sum(dtype=np.int64))
        columns = [np.concatenate(column) for column in zip(*got, strict=True)]
        return columns[0], columns[1], columns[2]


def _joined(known: list[list[tuple[I64, I32]]]) -> tuple[I64, I32]:
    """All streams' known samples, one stream after another."""
    pieces = [piece for pieces in known for piece in pieces]
    positions = [np.empty(0, np.int64), *(piece[0] for piece in pieces)]
    lengths = [np.empty(0, np.int32), *(piece[1] for piece in pieces)]
    return np.concatenate(positions), np.concatenate(lengths)


class _Stream:
    """A part's samples in order, time after time."""

    def __init__(
        self, name: str, samples: Samples, seed: tuple[int, int], block_size: int, blocks: int
    ) -> None:
        self._name, self.samples, self._seed = name, samples, seed
        self._sizes = {"block_size": block_size, "blocks_per_window": blocks}
        self._last: tuple[tuple[int, int], tuple[I64, I32]] | None = None

    def after(self, place: int) -> tuple[I64, I32]:
        """Positions and lengths from a place on, as far as they are of one window."""
        time, place = divmod(place, self.samples.num_samples)
        order = Order(
            num_samples=self.samples.num_samples,
            key=order_key(self._name, self.samples.fingerprint, *self._seed, time),
            **self._sizes,
        )
        index, skip = order.find(place)
        if self._last is None or self._last[0] != (time, index):
            self._last = (time, index), order.window(index, self.samples)
        positions, lengths = self._last[1]
        return positions[skip:], lengths[skip:]
