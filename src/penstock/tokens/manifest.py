"""What a published run's tokens consist of: plain facts that go into its manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from penstock.errors import StoreError

FORMAT = 1
"""Raised when the files or the order change, so that old tokens are made anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentManifest:
    """One immutable segment.

    Attributes:
        folder: Its folder inside that of the tokens.
        deleted: File of its deleted rows, or None for none.
        num_rows: Rows in the files.
        num_deleted: Rows of those that are deleted.
    """

    folder: str
    deleted: str | None
    num_rows: int
    num_deleted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensManifest:
    """All tokens of a run, by the names of their files.

    Attributes:
        made_by: Fingerprint of the step that made them.
        tokenizer: File of the tokenizer, for decoding.
        settings: Of the step, but for the tokenizer.
        dtype: `uint16` where every token of the vocabulary fits, else `uint32`.
        segments: The oldest first.
        order: Folder that says which segment each position's sample is in; None where
            there is one segment with nothing deleted.
        num_samples: Samples that can be read.
        num_tokens: Tokens of these.
        fingerprint: Names the samples and their order: the same for the same documents
            and step, whatever the store's history.
    """

    made_by: str
    tokenizer: str
    settings: dict[str, Any]
    dtype: str
    segments: tuple[SegmentManifest, ...] = ()
    order: str | None = None
    num_samples: int = 0
    num_tokens: int = 0
    fingerprint: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values that `json.dumps` takes."""
        facts = asdict(self)
        return facts | {"format": FORMAT, "segments": [asdict(each) for each in self.segments]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            StoreError: It is of another format, so the tokens must be made anew.
        """
        if value.get("format") != FORMAT:
            raise StoreError(
                "tokens", f"expected format {FORMAT}, found {value.get('format')!r}; {AGAIN}"
            )
        facts = {name: value[name] for name in cls.__slots__}
        facts["segments"] = tuple(SegmentManifest(**segment) for segment in value["segments"])
        return cls(**facts)

    def names(self) -> Iterable[str]:
        """Every folder and file that they consist of, relative to their folder."""
        yield self.tokenizer
        if self.order is not None:
            yield self.order
        for segment in self.segments:
            yield segment.folder
            if segment.deleted is not None:
                yield segment.deleted


AGAIN = "make them anew: penstock tokenizer rebuild STORE"
