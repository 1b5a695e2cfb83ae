"""Plan the rows of batches from lengths alone, a window of the order at a time.

The plan is made for all ranks at once, before any token is read. Its rows form one
stream; a step is the next so many rows of it, and may reach over a window's end.
Each rank takes its share of a step's rows. So the number of steps, and how many
labels count in each, are known to every rank without asking the others.

    samples  a row is a sample; a step is `global_batch_size` rows
    packed   a row is `seq_len` tokens, filled best-fit-decreasing with whole documents
             and pieces of those that are longer; a step is `global_batch_size` rows
    budget   a row is a sample, or a piece of at most `seq_len` tokens of it; a step has
             rows of like length, as many as `max_tokens` holds when all are as long as
             the longest
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from penstock.errors import ConfigError
from penstock.loader.order import Order, order_key
from penstock.loader.samples import I32, I64, Samples

Mark = tuple[int, ...]
"""Where a window begins: rows of the epoch before it, or steps where rows differ in number
between steps; then what its course counts by."""


class Window(NamedTuple):
    """A window's samples in their order."""

    sources: I32 | None
    """Which of several `Samples` each is of; None: of the only one."""
    positions: I64
    lengths: I32
    key: int
    """Chooses how what is made of them is shuffled."""
    following: tuple[int, ...]
    """The next window, as the course counts."""


class Course(Protocol):
    """An epoch's windows, one after another."""

    @property
    def start(self) -> tuple[int, ...]:
        """The first window."""
        ...

    def window(self, mark: Mark) -> Window | None:
        """The window there; None at the end."""
        ...


class OrderedCourse:
    """One `Samples` in the order of an epoch; counts by windows."""

    start = (0,)

    def __init__(self, order: Order, samples: Samples) -> None:
        self._order, self._samples = order, samples

    def window(self, mark: Mark) -> Window | None:
        """See `Course`."""
        _, index = mark
        if index >= self._order.num_windows:
            return None
        positions, lengths = self._order.window(index, self._samples)
        return Window(None, positions, lengths, order_key(self._order.key, index), (index + 1,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a row and a step are; see the module."""

    seq_len: int | None
    global_batch_size: int | None
    max_tokens: int | None

    @property
    def packed(self) -> bool:
        """Rows hold several samples, and are of one length."""
        return self.seq_len is not None and self.global_batch_size is not None


class Plan(NamedTuple):
    """The rows of a window."""

    sources: I32 | None
    """Per piece, as the next three; see `Window`."""
    positions: I64
    starts: I64
    """A piece's first token in its sample."""
    lengths: I32
    rows: I64
    """Where each row's pieces begin, and the end: (num_rows + 1,)."""
    labels: I64
    """How many labels count in all rows before each, and in all: (num_rows + 1,)."""
    steps: I64 | None
    """Rows at which steps begin, and the end; None: steps do not end with windows."""
    following: Mark

    @property
    def num_rows(self) -> int:
        """How many rows the window makes."""
        return len(self.rows) - 1


class Cursor(NamedTuple):
    """A place between two steps."""

    step: int
    mark: Mark
    row: int
    """Rows of that window that were served."""


class Step(NamedTuple):
    """The rows of all ranks for one step."""

    parts: list[tuple[Plan, int, int]]
    """Plans, and which of their rows: from, and up to without."""
    num_rows: int
    """How many these are."""
    num_label_tokens: int
    following: Cursor


def make_plan(mark: Mark, window: Window, rules: Rules) -> Plan:
    """Make rows of the samples of the window there.

    Raises:
        ConfigError: A sample is longer than a step's budget and may not be cut.
    """
    from penstock.kernels.packing import best_fit, by_row, cut
    from penstock.kernels.shuffling import shuffled

    key = np.uint64(order_key(window.key, "rows"))
    steps = None
    if rules.packed:
        assert rules.seq_len is not None
        sample, starts, lengths = cut(window.lengths, rules.seq_len)
        row, num_rows = best_fit(lengths, rules.seq_len)
        order, rows = by_row(row, num_rows, shuffled(num_rows, key))
    elif rules.max_tokens is not None:
        _refuse_longer(window, rules)
        sample, starts, lengths = cut(window.lengths, rules.seq_len or rules.max_tokens)
        order, steps = _budgeted(lengths, rules.max_tokens, key)
        rows = np.arange(len(order) + 1)
    else:
        order = sample = np.arange(len(window.lengths))
        starts, lengths = np.zeros(len(order), np.int64), window.lengths
        rows = np.arange(len(order) + 1)
    sample, starts, lengths = sample[order], starts[order], lengths[order]
    labels = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(np.maximum(lengths - 1, 0), out=labels[1:])
    sources = None if window.sources is None else window.sources[sample]
    positions = window.positions[sample]
    following = (mark[0] + len(rows if steps is None else steps) - 1, *window.following)
    return Plan(sources, positions, starts, lengths, rows, labels[rows], steps, following)


def _refuse_longer(window: Window, rules: Rules) -> None:
    if rules.seq_len is None and len(window.lengths):
        longest = int(window.lengths.max())
        if longest > (rules.max_tokens or 0):
            problem = (
                f"there is a sample of {longest} tokens, which may not be cut; raise it to that, "
                "or give seq_len to cut longer ones into pieces of so many tokens"
            )
            raise ConfigError("max_tokens", rules.max_tokens, problem)


def _budgeted(lengths: I32, budget: int, key: np.uint64) -> tuple[I64, I64]:
    """Pieces in the order of their steps, and where each step begins among them."""
    from penstock.kernels.packing import by_length, by_row, groups
    from penstock.kernels.shuffling import shuffled

    ordered = by_length(lengths, int(lengths.max(initial=0)))
    begins = groups(lengths[ordered], budget)
    num_steps = len(begins) - 1
    step = np.repeat(np.arange(num_steps), np.diff(begins))
    order, steps = by_row(step, num_steps, shuffled(num_steps, key))
    return ordered[order], steps


class Planner:
    """Cuts the rows of a course into steps.

    Cost: two windows' plans in memory.
    """

    def __init__(self, course: Course, rules: Rules) -> None:
        self._course, self._rules = course, rules
        self._plans: dict[Mark, Plan | None] = {}

    @property
    def start(self) -> Cursor:
        """Before the first step."""
        return Cursor(0, (0, *self._course.start), 0)

    def plan(self, mark: Mark) -> Plan | None:
        """The rows of the window there; None at the end."""
        if mark not in self._plans:
            while len(self._plans) > 1:
                del self._plans[next(iter(self._plans))]
            window = self._course.window(mark)
            self._plans[mark] = None if window is None else make_plan(mark, window, self._rules)
        return self._plans[mark]

    def step(self, cursor: Cursor) -> Step | None:
        """The step after a place; None where the epoch has no more. The last may be short."""
        parts: list[tuple[Plan, int, int]] = []
        num_rows = labels = 0
        number, mark, row = cursor
        wanted = self._rules.global_batch_size
        while (wanted is None or num_rows < wanted) and (plan := self.plan(mark)) is not None:
            end = plan.num_rows
            if plan.steps is not None and row < end:
                end = int(plan.steps[np.searchsorted(plan.steps, row, "right")])
            elif wanted is not None:
                end = min(end, row + wanted - num_rows)
            if end > row:
                parts.append((plan, row, end))
                num_rows += end - row
                labels += int(plan.labels[end] - plan.labels[row])
            row = end
            if row == plan.num_rows:
                mark, row = plan.following, 0
            if plan.steps is not None and parts:
                break
        return Step(parts, num_rows, labels, Cursor(number + 1, mark, row)) if parts else None

    def rest(self, cursor: Cursor) -> Iterator[Plan]:
        """Plans from a window on, kept nowhere."""
        mark = cursor.mark
        while (window := self._course.window(mark)) is not None:
            plan = make_plan(mark, window, self._rules)
            mark = plan.following
            yield plan
