"""The samples of a published run: what the loader reads of a store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.kernels import I64
from penstock.tokens.manifest import FORMAT, TokensManifest
from penstock.tokens.order import Order
from penstock.tokens.ragged import gather, read_only, row_lengths
from penstock.tokens.segments import Segment, damaged, rows_among
from penstock.tokens.write import name_hashes, row_order

I32 = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Tokens = npt.NDArray[Any]


class StoredTokens:
    """The token sequences of a run's kept documents, by position; see `penstock.loader.Samples`.

    Safe to use from many threads; a pickle names the files and opens them anew.

    Args:
        folder: Where they lie.
        manifest: What they consist of.
        held: Kept for as long as this is, as it keeps the files there.

    Attributes:
        folder: Where they lie.
        manifest: What they consist of.
        num_samples: How many there are.
        dtype: Of tokens.
    """

    def __init__(self, folder: Path, manifest: TokensManifest, held: object = None) -> None:
        self.folder, self.manifest, self._held = folder, manifest, held
        self.dtype = np.dtype(manifest.dtype)
        self._segments = tuple(Segment.open(folder, s, manifest.dtype) for s in manifest.segments)
        if manifest.order is None:
            self._order = Order.of(self._segments)
        else:
            self._order = Order.open(folder / manifest.order, self._segments)
        self._set_parts()
        self._kept: bytes | None = None

    def _set_parts(self) -> None:
        self.num_samples = self._order.num_samples
        self._tokens = [(each.tokens, each.offsets) for each in self._segments]
        self._names = [(each.id_bytes, each.id_offsets) for each in self._segments]

    @cached_property
    def fingerprint(self) -> str:
        """Names these samples and their order: the same for the same documents and step."""
        if self._kept is None:
            return self.manifest.fingerprint
        return samples_fingerprint(self.manifest.made_by, self._segments)

    @cached_property
    def num_tokens(self) -> int:
        """Tokens of all samples."""
        if self._kept is None:
            return self.manifest.num_tokens
        return count_tokens(self._segments)

    def lengths(self, first: int, last: int) -> I32:
        """Tokens of each sample at the positions `first` to `last`, without the latter; (n,)."""
        if self._order.starts is None and self._tokens:
            return np.diff(self._tokens[0][1][first : last + 1]).astype(np.int32)
        found = row_lengths(self._tokens, *self._order.locate(np.arange(first, last)))
        return found.astype(np.int32)

    def gather(
        self, positions: npt.ArrayLike, starts: I64 | None = None, lengths: I32 | None = None
    ) -> tuple[Tokens, I64]:
        """The samples at these positions, in the order asked; or a piece of each.

        Args:
            positions: (n,); the same one may come several times.
            starts: (n,), the first token of each piece, counted in its sample.
            lengths: (n,), the tokens of each piece.

        Returns:
            All tokens one after another, of `dtype`, and where each begins, (n + 1,) int64.
        """
        asked = np.asarray(positions, np.int64)
        if len(asked) == 0:
            return np.empty(0, self.dtype), np.zeros(1, np.int64)
        return gather(self._tokens, *self._order.locate(asked), starts, lengths)

    def doc_ids(self, positions: npt.ArrayLike) -> pa.Array:
        """Names of the documents of these samples, (n,) string."""
        from penstock.kernels import text_from_buffers

        asked = np.asarray(positions, np.int64)
        if len(asked) == 0:
            return pa.array([], pa.string())
        utf8, offsets = gather(self._names, *self._order.locate(asked))
        return text_from_buffers(offsets, utf8).cast(pa.string())

    def tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer` that made the tokens."""
        from penstock.models import open_tokenizer

        return open_tokenizer(self.tokenizer_json(), self.manifest.tokenizer)

    def tokenizer_json(self) -> bytes:
        """The JSON of that tokenizer.

        Raises:
            StoreError: Its file is missing.
        """
        path = self.folder / self.manifest.tokenizer
        try:
            return path.read_bytes()
        except OSError as err:
            raise damaged(path, str(err)) from err

    def decode(self, tokens: Tokens) -> str:
        """The text of some tokens, special ones too."""
        text: str = self.tokenizer().decode(tokens.tolist(), skip_special_tokens=False)
        return text

    def only(self, doc_ids: pa.Array) -> StoredTokens:
        """The samples of these documents alone, in the same order among each other."""
        wanted = name_hashes(doc_ids)
        wanted = np.ascontiguousarray(wanted[:, row_order(wanted)])
        found = [rows_among(each.hashes, wanted) & each.live for each in self._segments]
        return self._restricted(found)

    def _restricted(self, live: Sequence[Mask]) -> StoredTokens:
        """The samples of these rows alone; a mask for each segment."""
        some = object.__new__(StoredTokens)
        some.folder, some.manifest, some.dtype = self.folder, self.manifest, self.dtype
        some._held = self._held
        some._segments = tuple(
            segment.with_live(mask) for segment, mask in zip(self._segments, live, strict=True)
        )
        some._order = self._order.restricted(self._segments, some._segments)
        some._kept = b"".join(np.packbits(mask).tobytes() for mask in live)
        some._set_parts()
        return some

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.folder, self.manifest, self._kept)


def _reopen(folder: Path, manifest: TokensManifest, kept: bytes | None) -> StoredTokens:
    tokens = StoredTokens(folder, manifest)
    if kept is None:
        return tokens
    masks, start = [], 0
    for segment in tokens._segments:
        size = (segment.num_rows + 7) // 8
        bits = np.frombuffer(kept, np.uint8, size, start)
        masks.append(np.unpackbits(bits, count=segment.num_rows).view(np.bool_))
        start += size
    return tokens._restricted(masks)


def samples_fingerprint(made_by: str, segments: Sequence[Segment]) -> str:
    """Names the live rows of these segments, whichever segment each is in.

    Rows are ordered by their hashes alone, so a sum over them tells the order too.
    """
    from penstock.kernels.samples import digest_rows

    first = second = 0
    for segment in segments:
        one, other = digest_rows(read_only(segment.hashes), read_only(segment.live))
        first, second = first + int(one), second + int(other)
    num_rows = sum(segment.num_live for segment in segments)
    facts = f"{FORMAT}.{made_by}.{num_rows}.{first % 2**64}.{second % 2**64}"
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def count_tokens(segments: Sequence[Segment]) -> int:
    """Tokens of the live rows."""
    return sum(
        int(segment.offsets[-1])
        if segment.deleted is None
        else int(np.diff(segment.offsets)[segment.live].sum())
        for segment in segments
    )
