"""`Loader`: batches for one rank, out of an order that no rank, worker or machine shapes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from penstock.errors import ConfigError
from penstock.loader.arguments import check_arguments, check_longest, whole_numbers
from penstock.loader.audit import Audit, Tally
from penstock.loader.batches import Batch, Share, read, share
from penstock.loader.growing import Moved, Remaining
from penstock.loader.memory import Memory
from penstock.loader.mixing import MixedCourse, Mixture
from penstock.loader.order import ORDER_VERSION, Order, order_key
from penstock.loader.plan import Course, Cursor, OrderedCourse, Plan, Planner, Rules, Step
from penstock.loader.samples import Samples

State = dict[str, Any]


class Loader:
    """Batches of one rank: a place in an endless stream of epochs.

    Iterating goes on from where the loader is to the end of the epoch; iterating again
    serves the next epoch, in another order. Every sample comes exactly once an epoch.

    Each batch is a dict:

    - `tokens` (rows, width) int32: `width` is `seq_len` when packing, else the longest row's
    - `labels` (rows, width) int64: the token after each, of the same document and row; else -100
    - `position_ids` (rows, width) int32: from 0 in each document
    - `segment_ids` (rows, width) int32: 1, 2, .. for a row's documents, 0 for padding
    - `cu_seqlens` (n + 1,) int32: where documents and paddings begin in the rows laid end to end
    - `max_seqlen`: the longest of these
    - `num_label_tokens`: labels that are not -100 in this step on all ranks together
    - `lengths` (rows,) int32: tokens of each row without padding; not when packing
    - `doc_ids`: the document of each segment, row after row; on request

    Args:
        samples: What to read; or a `Mixture` of several.
        seq_len: Tokens of a row. With `global_batch_size`, rows are packed with whole
            documents, and documents that are longer are cut. With `max_tokens`, it is the
            longest piece of a document; without it none is cut there.
        global_batch_size: Rows of a step over all ranks. Without `seq_len`, a row is a sample,
            padded to the longest of its batch.
        max_tokens: In place of `global_batch_size`: tokens of a step over all ranks, padding
            included; rows of a step are of like length.
        seed: Chooses the order, with `epoch`.
        epoch: The first epoch to serve.
        rank: Which of the ranks this is, from 0.
        world_size: How many there are. Each takes its share of a step: they differ by at most
            one row, and the number of steps does not differ.
        block_size: Neighbours in storage order that stay in one shuffle window.
        blocks_per_window: Blocks that are shuffled together, and packed together: more
            shuffle better, and take more open files and memory.
        last_step: What is left when a whole step cannot be filled: "pad" it with rows that
            have no labels, or "drop" it. Steps within `max_tokens` are always whole.
        pad_token: The token of padding.
        doc_ids: Name the documents in each batch.

    Raises:
        ConfigError: An argument is wrong, or there are no samples; while iterating, a sample
            is longer than `max_tokens` and `seq_len` was not given to cut it.

    Guarantees: batches depend on the samples, the arguments and the place alone. The rows of
        a step over all ranks do not depend on `world_size`.

    Cost: starts at once, whatever the number of samples; keeps the plans of two windows.
    """

    def __init__(
        self,
        samples: Samples | Mixture,
        *,
        seq_len: int | None = None,
        global_batch_size: int | None = None,
        max_tokens: int | None = None,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        block_size: int = 256,
        blocks_per_window: int = 256,
        last_step: str = "pad",
        pad_token: int = 0,
        doc_ids: bool = False,
    ) -> None:
        numbers = whole_numbers(
            {
                "seed": seed,
                "epoch": epoch,
                "seq_len": seq_len,
                "global_batch_size": global_batch_size,
                "max_tokens": max_tokens,
                "block_size": block_size,
                "blocks_per_window": blocks_per_window,
            }
        )
        self._settings: dict[str, Any] = {**numbers, "last_step": last_step}
        self._rules = Rules(
            **{name: numbers[name] for name in ("seq_len", "global_batch_size", "max_tokens")}
        )
        check_arguments(self._rules, self._settings, rank, world_size)
        self._samples = samples
        self._rank, self._world_size = rank, world_size
        self._pad_token, self._doc_ids, self._memory = pad_token, doc_ids, Memory()
        self._begin(epoch)
        for kind in self._kinds:
            if kind.num_samples == 0:
                raise ConfigError("samples", "empty", "expected at least one sample to serve")
            if max_tokens is not None and seq_len is None:
                check_longest(kind, max_tokens, world_size)

    def begin(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        settings = {**self._settings, "epoch": epoch}
        check_arguments(self._rules, settings, self._rank, self._world_size)
        self._begin(epoch)

    def for_rank(self, rank: int, world_size: int) -> Loader:
        """The same loader at the same place, for one of so many ranks.

        Raises:
            ConfigError: There is no such rank, or a rank would have no row.
        """
        check_arguments(self._rules, self._settings, rank, world_size)
        other = copy.copy(self)
        other._rank, other._world_size = rank, world_size
        other._tally = Tally(self._epoch, self._kinds, self._times)
        return other

    @property
    def rules(self) -> Rules:
        """What a row and a step are."""
        return self._rules

    @property
    def samples(self) -> Samples:
        """What is read.

        Raises:
            ConfigError: It is a mixture of several.
        """
        if isinstance(self._samples, Mixture):
            raise ConfigError("samples", "a Mixture", "must be of one kind for this")
        return self._samples

    def plans(self) -> Iterator[Plan]:
        """The rows of the windows of the whole epoch, one window after another."""
        return self._planner.rest(self._planner.start)

    def steps(self) -> Iterator[Step]:
        """The steps of the whole epoch, each over all ranks."""
        cursor = self._planner.start
        while (step := self._planner.step(cursor)) is not None and not self._drops(step):
            yield step
            cursor = step.following

    @property
    def before(self) -> list[Samples]:
        """The samples that this epoch had before it was `moved` to these."""
        return [link.base for link in self._before]

    @property
    def world_size(self) -> int:
        """How many ranks share each step."""
        return self._world_size

    def _begin(self, epoch: int, before: list[Moved] | None = None) -> None:
        """Go to the start of an epoch, or of what remains of it after others were served."""
        self._epoch, self._before = epoch, before or []
        if isinstance(self._samples, Mixture):
            self._kinds = [part.samples for part in self._samples.parts.values()]
            self._times: list[int | None] = self._samples.times
        else:
            rest = Remaining(self._samples, before) if before else self._samples
            self._kinds, self._times = [rest], [1]
        self._planner = Planner(self._course(epoch), self._rules)
        self._cursor = self._planner.start
        self._tally = Tally(epoch, self._kinds, self._times)

    def _course(self, epoch: int) -> Course:
        samples = self._samples
        size, blocks = self._settings["block_size"], self._settings["blocks_per_window"]
        if isinstance(samples, Mixture):
            where = {"seed": self._settings["seed"], "epoch": epoch}
            return MixedCourse(samples, self._rules, **where, block_size=size, blocks=blocks)
        return OrderedCourse(self._order(epoch), self._kinds[0])

    def _order(self, epoch: int) -> Order:
        samples, settings = self._kinds[0], self._settings
        return Order(
            num_samples=samples.num_samples,
            block_size=settings["block_size"],
            blocks_per_window=settings["blocks_per_window"],
            key=order_key(samples.fingerprint, settings["seed"], epoch),
        )

    @property
    def epoch(self) -> int:
        """The epoch that the next batch is of."""
        return self._epoch

    @property
    def step(self) -> int:
        """Steps of this epoch that are behind."""
        return self._cursor.step

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch; then the loader is at the start of the next."""
        while (step := self._planner.step(self._cursor)) is not None:
            if self._tally.epoch != self._epoch:
                self._tally = Tally(self._epoch, self._kinds, self._times)
            if self._drops(step):
                self._tally.drop(step)
                break
            part = self._share(step)
            batch = self._read(step, part)
            self._cursor = step.following
            self._tally.serve(part)
            yield batch
        tally = self._tally  # audit() still tells of it
        self._begin(self._epoch + 1)
        self._tally = tally

    def stream(self, *, worker: int = 0, num_workers: int = 1) -> Iterator[tuple[Batch, State]]:
        """One worker's batches of the rest of the epoch, each with the state after it.

        Workers take steps in turn: worker k has the steps k, k + num_workers, .. from
        here on, and its batches are those that the loader itself would give. The loader
        stays where it is.
        """
        cursor, turn = self._cursor, 0
        while (step := self._planner.step(cursor)) is not None and not self._drops(step):
            cursor = step.following
            if turn % num_workers == worker:
                yield self._read(step, self._share(step)), self._state(cursor)
            turn += 1

    def _drops(self, step: Step) -> bool:
        wanted = self._rules.global_batch_size
        short = wanted is not None and step.num_rows < wanted
        return short and self._settings["last_step"] == "drop"

    def _share(self, step: Step) -> Share:
        return share(step, self._rank, self._world_size, self._rules.global_batch_size)

    def _read(self, step: Step, part: Share) -> Batch:
        options: dict[str, Any] = {"pad_token": self._pad_token, "doc_ids": self._doc_ids}
        batch = read(self._kinds, part, self._rules, self._memory, **options)
        batch["num_label_tokens"] = step.num_label_tokens
        return batch

    def state_dict(self) -> State:
        """Where the loader is, and all that shaped the order: less than 1 KB as JSON.

        It holds for any rank of any number of ranks.
        """
        return self._state(self._cursor)

    def _state(self, cursor: Cursor) -> State:
        state = {**self._identity, "position": {"epoch": self._epoch, **_place(cursor)}}
        if self._before:
            links = [
                {"samples": link.base.fingerprint, **_place(link.cursor)} for link in self._before
            ]
            state["before"] = links
        return state

    @cached_property
    def _identity(self) -> State:
        return {
            "order_version": ORDER_VERSION,
            "samples": self._samples.fingerprint,
            "mixture": self._samples.settings if isinstance(self._samples, Mixture) else None,
            **self._settings,
        }

    def load_state_dict(self, state: Mapping[str, Any], *, before: Sequence[Samples] = ()) -> None:
        """Go to where another loader was, whatever its rank and world size.

        Args:
            state: What its `state_dict` gave.
            before: The samples that the epoch had before it was moved to these, in that order;
                only for a loader that was `moved` since the epoch began.

        Raises:
            ConfigError: The state is of other samples or settings; it names which.

        Cost: the next batch plans one window.
        """
        for name, own in self._identity.items():
            _compare(name, state.get(name), own)
        links = state.get("before", [])
        _compare("before", [link["samples"] for link in links], [old.fingerprint for old in before])
        position: Any = state.get("position")
        cursors = [_cursor(place) for place in (*links, position)]
        epoch = int(position.get("epoch", self._settings["epoch"]))
        self._begin(epoch, self._links(before, cursors, epoch))
        if len(cursors[-1].mark) != len(self._cursor.mark):
            raise ConfigError("state 'position'", position, "expected what state_dict() gave")
        self._cursor = cursors[-1]

    def moved(self, samples: Samples) -> Loader:
        """A loader of newer samples that goes on with this epoch where this one is.

        Documents of which this epoch has served a piece come no more in it, by name, even if
        their text is another now; what is not among the newer samples comes no more at all;
        all others come once, in an order of their own, whose steps count from 0 again. Later
        epochs are of all the newer samples, as if nothing had been before them.

        Between epochs this is the same as making a new loader with the next epoch.

        Raises:
            ConfigError: This loader is of a mixture.

        Cost: reads the names of all documents served in this epoch, and of all newer ones.
        """
        if isinstance(self._samples, Mixture):
            problem = "only between epochs can it get newer samples: make a loader with the next"
            raise ConfigError("samples", "a Mixture", problem)
        loader = Loader(samples, **self._arguments)
        loader._begin(self._epoch, [*self._before, self._link()] if self.step else self._before)
        return loader

    @property
    def _arguments(self) -> dict[str, Any]:
        ranks = {"rank": self._rank, "world_size": self._world_size}
        return {**self._settings, **ranks, "pad_token": self._pad_token, "doc_ids": self._doc_ids}

    def _link(self) -> Moved:
        assert not isinstance(self._samples, Mixture)
        order = self._order(self._epoch)
        return Moved(self._samples, self._kinds[0], order, self._planner, self._cursor)

    def _links(
        self, before: Sequence[Samples], cursors: Sequence[Cursor], epoch: int
    ) -> list[Moved]:
        """The samples that an epoch had before, each with what remained of it after the others."""
        links: list[Moved] = []
        for samples, cursor in zip(before, cursors, strict=False):
            loader = Loader(samples, **self._arguments)
            loader._begin(epoch, links)
            loader._cursor = cursor
            links = [*links, loader._link()]
        return links

    def __len__(self) -> int:
        """Steps of the epoch, the same on every rank.

        Cost: arithmetic where rows are samples; else one pass over all lengths, planning
        about 10 million samples a second, and remembered.
        """
        wanted = self._rules.global_batch_size
        if self._rules.seq_len is None and wanted is not None and None not in self._times:
            pairs = zip(self._kinds, self._times, strict=True)
            return self._in_steps(sum(kind.num_samples * (times or 0) for kind, times in pairs))
        if self._counted is None or self._counted[0] != self._epoch:
            plans = self._planner.rest(self._planner.start)
            if wanted is None:
                steps = sum(len(plan.steps) - 1 for plan in plans if plan.steps is not None)
            else:
                steps = self._in_steps(sum(plan.num_rows for plan in plans))
            self._counted = self._epoch, steps
        return self._counted[1]

    _counted: tuple[int, int] | None = None

    def _in_steps(self, num_rows: int) -> int:
        wanted = self._rules.global_batch_size
        assert wanted is not None
        drop = self._settings["last_step"] == "drop"
        return num_rows // wanted if drop else -(-num_rows // wanted)

    def audit(self) -> Audit:
        """What this object has served of an epoch, since that began or a state was loaded.

        It tells of the epoch of the last batch, also when that is over.

        Cost: one pass over all lengths, once.
        """
        return self._tally.audit()


def _place(cursor: Cursor) -> State:
    return {"step": cursor.step, "window": list(cursor.mark), "row": cursor.row}


def _cursor(place: Any) -> Cursor:
    try:
        mark = tuple(int(number) for number in place["window"])
        return Cursor(int(place["step"]), mark, int(place["row"]))
    except (KeyError, TypeError, ValueError) as err:
        raise ConfigError("state 'position'", place, "expected what state_dict() gave") from err


def _compare(name: str, found: object, own: object) -> None:
    if found != own:
        problem = (
            f"the state was saved with this, and this loader has {own!r}: "
            "make it of the same samples with the same arguments"
        )
        raise ConfigError(f"state {name!r}", found, problem)
