"""Train a tokenizer on a store's kept documents: byte-level BPE, the same each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.build.decide import kept_documents
from penstock.errors import StoreError
from penstock.records import hash_column
from penstock.store import Store
from penstock.store.edits import Edits
from penstock.store.tables import take_rows

END_OF_TEXT = "<|endoftext|>"

_ROWS = 512
_HELD_OUT_BYTES = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedTokenizer:
    """A tokenizer, and how it came to be.

    Attributes:
        json: As the `tokenizers` library reads it.
        vocab_size: Tokens, special ones included.
        documents: Documents that it was trained on.
        num_bytes: Their text.
        bytes_per_token: On documents held out, or on these if there are no others.
        measured_on: Which of both.
        end: The token that may end a document.
    """

    json: bytes
    vocab_size: int
    documents: int
    num_bytes: int
    bytes_per_token: float
    measured_on: str
    end: str = END_OF_TEXT

    def facts(self) -> dict[str, Any]:
        """All but the JSON."""
        names = ("vocab_size", "documents", "num_bytes", "bytes_per_token", "measured_on", "end")
        return {name: getattr(self, name) for name in names}


def train_tokenizer(store: Store, *, vocab_size: int, max_bytes: int) -> TrainedTokenizer:
    """Train on kept documents, in the order of their names' hashes, up to so many bytes.

    Raises:
        StoreError: No document is kept.

    Guarantees: the same documents give the same tokenizer, whatever the store's history.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    texts = _texts(store)
    taken: list[str] = []
    num_bytes = 0
    for text in texts:
        taken.append(text)
        num_bytes += len(text.encode())
        if num_bytes >= max_bytes:
            break
    if not taken:
        raise StoreError(str(store.path), "it has no kept document to train a tokenizer on")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(taken, trainer)
    held_out = _up_to(texts, _HELD_OUT_BYTES)
    measured = held_out or _up_to(iter(taken), _HELD_OUT_BYTES)
    encoded = tokenizer.encode_batch_fast(measured, add_special_tokens=False)
    num_tokens = sum(len(each.ids) for each in encoded)
    return TrainedTokenizer(
        json=tokenizer.to_str(pretty=True).encode(),
        vocab_size=tokenizer.get_vocab_size(),
        documents=len(taken),
        num_bytes=num_bytes,
        bytes_per_token=sum(len(text.encode()) for text in measured) / max(num_tokens, 1),
        measured_on="documents held out" if held_out else "the documents it was trained on",
    )


def _up_to(texts: Iterator[str], num_bytes: int) -> list[str]:
    found: list[str] = []
    for text in texts:
        found.append(text)
        num_bytes -= len(text.encode())
        if num_bytes <= 0:
            break
    return found


def _texts(store: Store) -> Iterator[str]:
    """Final texts of the kept documents, in the order of their names' hashes."""
    documents = store.dataset("documents")
    rows = documents.to_table(columns=["doc_id"], with_row_id=True)
    kept = kept_documents(store.verdicts(["doc_id", "verdict"]))
    rows = rows.filter(pc.is_in(rows["doc_id"], value_set=kept))
    hashes = hash_column(rows["doc_id"].combine_chunks())
    ids = rows["_rowid"].to_numpy()[np.array(pc.array_sort_indices(hashes.cast(pa.binary())))]
    edits = Edits(store.dataset("edits") if "edits" in store.manifest.tables else None)
    for start in range(0, len(ids), _ROWS):
        found = take_rows(documents, ids[start : start + _ROWS], ["doc_id", "text"])
        yield from edits.final(found)["text"].to_pylist()
