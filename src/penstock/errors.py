"""The errors that Penstock raises, split by what the catcher does next.

    PenstockError
        ConfigError     a setting or an argument is wrong: fix the call
        MissingExtra    an optional package is not installed: install it
        SourceError     the source cannot be listed at all: fix the path or the access
        ModelError      a model cannot be found or is of an unknown kind
        QueryError      a search or a `where` cannot be understood: fix the query
        StoreError      the store cannot be read or written
            FormatError     it was written by a newer Penstock: upgrade
            LeaseError      another writer holds it: wait, or stop that writer
        ShardError      an exported shard is not what its manifest promises: fetch or write it again
        GateError       a run is not worth what it must be: change the flow, or ask for less
        RowError        one row cannot be processed: the run records it and goes on
        WorkerDied      a worker process ended: look at what the step does, or at the memory

Every error keeps its facts as attributes, says what was expected, what was
found and what to do, and survives pickling out of a worker process.
"""

from __future__ import annotations

import signal


class PenstockError(Exception):
    """The root: catching it catches everything that Penstock raises on purpose."""


class ConfigError(PenstockError):
    """A setting is wrong.

    Attributes:
        setting: The setting's name, as the user wrote it.
        value: What was found.
        problem: What was expected and what to do.
    """

    def __init__(self, setting: str, value: object, problem: str) -> None:
        super().__init__(setting, value, problem)
        self.setting, self.value, self.problem = setting, value, problem

    def __str__(self) -> str:
        return f"{self.setting} is {self.value!r}: {self.problem}."


class MissingExtra(PenstockError):  # noqa: N818 - reads as what it is
    """An optional package is needed and not installed.

    Attributes:
        extra: The extra of the `penstock` distribution that brings the package.
        purpose: What needed it.
    """

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(extra, purpose)
        self.extra, self.purpose = extra, purpose

    def __str__(self) -> str:
        return (
            f"{self.purpose} needs the extra {self.extra!r}. "
            f"Install it: pip install 'penstock[{self.extra}]'."
        )


class _PlaceError(PenstockError):
    """Something at a named place is not as it should be: the shape that three errors share."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(place, problem)
        self.place, self.problem = place, problem

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}."


class SourceError(_PlaceError):
    """The source cannot be listed at all.

    Attributes:
        place: The path or URL.
        problem: What was expected, what was found and what to do.
    """


class ModelError(_PlaceError):
    """A model cannot be found, read or built.

    Attributes:
        place: The model's name or folder.
        problem: What was expected, what was found and what to do.
    """


class QueryError(_PlaceError):
    """A search or a `where` cannot be understood.

    Attributes:
        place: The expression or setting in question.
        problem: What was expected, what was found and what to do.
    """


class StoreError(_PlaceError):
    """The store cannot be read or written.

    Attributes:
        place: The store's path.
        problem: What was expected, what was found and what to do.
    """


class FormatError(StoreError):
    """The store was written by a newer Penstock."""


class LeaseError(StoreError):
    """Another writer holds the store, or took it over."""


class ShardError(PenstockError):
    """A shard's bytes do not match what its manifest promises.

    Attributes:
        path: The shard, as the manifest names it.
        offset: Byte where reading stopped, from the start of the file.
        problem: What was expected and what was found.
    """

    def __init__(self, path: str, offset: int, problem: str) -> None:
        super().__init__(path, offset, problem)
        self.path, self.offset, self.problem = path, offset, problem

    def __str__(self) -> str:
        return (
            f"{self.path}, byte {self.offset}: {self.problem}. "
            "Fetch the shard again, or delete it and export again."
        )


class GateError(PenstockError):
    """A run was finished and judged, and is not published: it misses what was required of it.

    Attributes:
        run: The name that it would have had.
        missed: Measure, least value and value found of each requirement missed.
    """

    def __init__(self, run: str, missed: list[tuple[str, float, float]]) -> None:
        super().__init__(run, missed)
        self.run, self.missed = run, missed

    def __str__(self) -> str:
        parts = [
            f"{measure} is {found:.4f}, {least - found:.4f} below the {least:g} required"
            for measure, least, found in self.missed
        ]
        return (
            f"run {self.run} is not published: {'; '.join(parts)}. The run before it stands. "
            "What was computed is kept for another try with the same flow."
        )


class RowError(PenstockError):
    """One row cannot be processed; the run records it and goes on.

    A user's own step may raise it to give a reason and an advice; any other
    exception is recorded under its class name.

    Attributes:
        error: A short stable name for the kind of failure, such as ``binary-file``.
        message: What was found.
        advice: What the user can do about it.
    """

    def __init__(self, error: str, message: str, advice: str = "") -> None:
        super().__init__(error, message, advice)
        self.error, self.message, self.advice = error, message, advice

    def __str__(self) -> str:
        return f"{self.error}: {self.message}"


class WorkerDied(PenstockError):  # noqa: N818 - reads as what it is
    """A worker process ended in the middle of its work.

    Attributes:
        stage: The stage whose worker it was.
        exit_code: Its exit status; negative, the signal that killed it.
    """

    def __init__(self, stage: str, exit_code: int) -> None:
        super().__init__(stage, exit_code)
        self.stage, self.exit_code = stage, exit_code

    def __str__(self) -> str:
        advice = "Look at what its function calls: native code or an exit?"
        how = f"with exit code {self.exit_code}"
        if self.exit_code < 0:
            try:
                how += f" ({signal.Signals(-self.exit_code).name})"
            except ValueError:
                how += f" (signal {-self.exit_code})"
            if self.exit_code == -signal.SIGKILL:
                advice = (
                    "Was memory short? The system kills the largest process then: "
                    "use fewer workers or smaller batches."
                )
        return f"a worker process of stage {self.stage!r} died {how}. {advice}"
