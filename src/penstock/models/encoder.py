"""Turn texts into vectors, at full speed on all cores and the same whatever the batch.

A batch holds texts of exactly one length in tokens. So nothing is padded, no
work is spent on padding, and a text's vector cannot depend on its neighbours: the
arithmetic of a row is the same whichever rows lie beside it.

Threads share one session that has a single thread inside. On two cores this beats
one session with two threads, since no operator waits for its slower half.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.cores import num_cores
from penstock.errors import ConfigError
from penstock.models.fingerprint import fingerprint_of
from penstock.models.folder import ModelFolder, read_folder, resolve
from penstock.models.graph import INPUT
from penstock.models.session import open_session
from penstock.models.tokenizer import tokenizer_of

Precision = Literal["fp32", "int8", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8", "bf16")

F32 = npt.NDArray[np.float32]

# Measured from 128 to 768: flat within the noise from 256 to 512, slower above, where the
# widest activations leave the second-level cache.
_BATCH_TOKENS = 384
# Texts that are tokenised, sorted and batched together: enough that most lengths recur,
# few enough that their tokens weigh little.
_WINDOW_TEXTS = 8192
_SLICE_TEXTS = 64


def open_encoder(
    name: str = "all-MiniLM-L6-v2", precision: Precision = "fp32", threads: int | None = None
) -> Encoder:
    """Open a model for encoding.

    Args:
        name: A model's name, as `penstock.models.resolve` takes it.
        precision: `fp32`; `int8`, about twice as fast and within a cosine of 0.99;
            or `bf16`, for CPUs with AMX, through the extra `openvino`.
        threads: How many threads encode; by default as many as there are cores.

    Raises:
        ModelError: No such model, or it cannot be built.
        MissingExtra: A package that it needs is not installed.
        ConfigError: A setting is wrong, or the CPU cannot do `bf16`.
    """
    if precision not in PRECISIONS:
        raise ConfigError("precision", precision, f"must be one of {', '.join(PRECISIONS)}")
    if threads is not None and threads < 1:
        raise ConfigError("threads", threads, "must be at least 1")
    folder = read_folder(resolve(name))
    return Encoder(name, folder, precision, threads or num_cores())


class Encoder:
    """A model that is open for encoding; made by `open_encoder`.

    Any number of threads may call `encode` at once; together they use no more
    threads than one call does.

    Attributes:
        name: As given to `open_encoder`.
        precision: As given to `open_encoder`.
        dim: Length of a vector.
        max_tokens: Longest input in tokens, special ones included.
        unit_length: Whether vectors have length 1, which the model's folder decides.
        fingerprint: Names the function from text to vector.
    """

    def __init__(self, name: str, folder: ModelFolder, precision: Precision, threads: int) -> None:
        self.name = name
        self.precision = precision
        self.max_tokens = folder.max_tokens
        self.unit_length = folder.normalize
        self.fingerprint = fingerprint_of(folder, precision)
        self._tokenizer = tokenizer_of(folder)
        self._tokenizer.enable_truncation(folder.max_tokens)
        self._infer = _open_inference(folder, precision)
        self.dim = int(self._infer(np.zeros((1, 1), np.int64)).shape[1])
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._pool_process = 0
        self._pool_lock = threading.Lock()
        self._closed = False

    def encode(self, texts: Sequence[str] | pa.Array) -> F32:
        """The vectors of texts.

        Args:
            texts: Any number of strings; a text longer than `max_tokens` is cut.

        Returns:
            (num_texts, dim) float32, C-contiguous, in the order of the texts.

        Raises:
            ConfigError: The encoder is closed, or a text is null.

        Guarantees: A text's vector does not depend on the other texts, on their order
            or on threads: bit for bit in `int8`, within 1e-6 in `fp32`.

        Cost: each distinct text once; memory for the result and for the tokens of
            8,192 texts.
        """
        if self._closed:
            raise ConfigError("encoder", self.name, "is closed: open it again")
        places = _places(texts)
        distinct = list(places)
        vectors = np.empty((len(distinct), self.dim), np.float32)
        for start in range(0, len(distinct), _WINDOW_TEXTS):
            window = distinct[start : start + _WINDOW_TEXTS]
            self._encode_window(window, vectors[start : start + len(window)])
        if len(distinct) == len(texts):
            return vectors
        order = np.empty(len(texts), np.int64)
        for row, indices in enumerate(places.values()):
            order[indices] = row
        return np.ascontiguousarray(vectors[order])

    def close(self) -> None:
        """Give the memory back. Closing twice is fine; encoding after it is not."""
        self._closed = True
        with self._pool_lock:
            if self._pool is not None and self._pool_process == os.getpid():
                self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        self._infer = _closed_inference

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _encode_window(self, texts: list[str], vectors: F32) -> None:
        tokens: list[list[int]] = [[]] * len(texts)

        def tokenize(rows: range) -> None:
            found = self._tokenizer.encode_batch_fast([texts[row] for row in rows])
            # A tokenizer without special tokens makes none of an empty text.
            tokens[rows.start : rows.stop] = [encoding.ids or [0] for encoding in found]

        def infer(rows: list[int]) -> None:
            vectors[rows] = self._infer(np.array([tokens[row] for row in rows], np.int64))

        slices = range(0, len(texts), _SLICE_TEXTS)
        self._each(tokenize, [range(at, min(at + _SLICE_TEXTS, len(texts))) for at in slices])
        self._each(infer, list(batches_by_length(tokens)))

    def _each(self, work: Callable[[Any], None], tasks: Sequence[Any]) -> None:
        """Do all tasks in the pool; the first error, or Ctrl-C, drops those not begun."""
        if len(tasks) == 1 or self._threads == 1:
            for task in tasks:
                work(task)
            return
        waiting = deque(tasks)

        def drain() -> None:
            while True:
                try:
                    task = waiting.popleft()
                except IndexError:
                    return
                work(task)

        pool = self._threads_pool()
        drains = [pool.submit(drain) for _ in range(min(self._threads, len(tasks)))]
        try:
            for drained in drains:
                drained.result()
        except BaseException:
            waiting.clear()
            raise

    def _threads_pool(self) -> ThreadPoolExecutor:
        with self._pool_lock:
            # A forked child has the pool's object and none of its threads.
            if self._pool is None or self._pool_process != os.getpid():
                self._pool = ThreadPoolExecutor(self._threads, "penstock-encode")
                self._pool_process = os.getpid()
            return self._pool


def _places(texts: Sequence[str] | pa.Array) -> dict[str, list[int]]:
    """Each distinct text and where it stands, in order of first appearance."""
    if isinstance(texts, str):
        raise ConfigError("texts", texts, "must be a sequence of strings, not one string")
    values = texts.to_pylist() if isinstance(texts, pa.Array | pa.ChunkedArray) else texts
    places: dict[str, list[int]] = {}
    for index, text in enumerate(values):
        if not isinstance(text, str):
            raise ConfigError(f"texts[{index}]", text, "must be a string")
        places.setdefault(text, []).append(index)
    return places


def batches_by_length(tokens: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Rows of one length, about `_BATCH_TOKENS` tokens together, longest first.

    The longest first, so that no thread starts a long batch when all others are done.
    """
    by_length: dict[int, list[int]] = {}
    for row, ids in enumerate(tokens):
        by_length.setdefault(len(ids), []).append(row)
    for length in sorted(by_length, reverse=True):
        rows = by_length[length]
        num_rows = max(1, _BATCH_TOKENS // length)
        for start in range(0, len(rows), num_rows):
            yield rows[start : start + num_rows]


def _open_inference(
    folder: ModelFolder, precision: Precision
) -> Callable[[npt.NDArray[np.int64]], F32]:
    """A function from token ids (num_texts, num_tokens) to vectors, for many threads."""
    if precision == "bf16":
        from penstock.models.amx import open_bf16

        return open_bf16(folder)
    session = open_session(folder, precision)

    def infer(ids: npt.NDArray[np.int64]) -> F32:
        vectors: F32 = session.run(None, {INPUT: ids})[0]
        return vectors

    return infer


def _closed_inference(ids: npt.NDArray[np.int64]) -> F32:
    raise ConfigError("encoder", "closed", "open it again")
