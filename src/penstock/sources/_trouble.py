"""What can be wrong with one item, and how it is told."""

from __future__ import annotations

import errno

from penstock.records import Failure

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})


class Trouble(Exception):  # noqa: N818 - never leaves this package
    """One item cannot be read; becomes a `Failure`.

    Attributes:
        error: Short stable name of the kind of failure.
        message: What was expected and what was found.
        advice: What to do.
        transient: Whether trying again may help.
        version: The item's version, where it is known.
    """

    def __init__(
        self,
        error: str,
        message: str,
        advice: str,
        *,
        transient: bool = False,
        version: str | None = None,
    ) -> None:
        super().__init__(error, message)
        self.error, self.message, self.advice = error, message, advice
        self.transient, self.version = transient, version

    def failure(self, item: str, *, doc_id: str | None = None, step: str = "read") -> Failure:
        """The row of the failures table."""
        return Failure(
            doc_id=item if doc_id is None else doc_id,
            item=item,
            step=step,
            error=self.error,
            message=self.message,
            advice=self.advice,
            transient=self.transient,
        )


def from_os_error(err: OSError, what: str = "file", version: str | None = None) -> Trouble:
    """The trouble behind an error of the operating system."""
    if err.errno in _GONE:
        return Trouble(
            "vanished",
            f"the {what} was listed and is gone now",
            "Nothing to do if it was deleted on purpose: the next build removes it.",
            transient=True,
        )
    reason = err.strerror or str(err) or type(err).__name__
    return Trouble(
        "unreadable",
        f"the {what} cannot be read: {reason}",
        "Give this user read permission, or check the disk or the network share; "
        "the next build tries again.",
        transient=True,
        version=version,
    )


def not_regular(kind: str, version: str | None = None) -> Trouble:
    """A FIFO, socket or device where a file was expected."""
    return Trouble(
        "not-a-regular-file",
        f"expected a regular file, found a {kind}; it was not opened",
        "Move it out of the source's folder, or exclude it by a pattern.",
        version=version,
    )
