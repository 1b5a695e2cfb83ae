"""Keep documents of some languages."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.decisions._judging import Check, below, check_share, columns_of, verdicts
from penstock.errors import ConfigError, MissingExtra
from penstock.kernels import I64, U8, text_buffers

_TYPE = pa.struct([pa.field("language", pa.string()), pa.field("score", pa.float32())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """Keep documents that are written in one of these languages, by an identifier that is built in.

    The rules in their order: `other_language`, `low_score`; the score in both
    is the identifier's, a probability over some 140 languages. Language and score
    are stored, so that another set or threshold decides again without reading.

    Source: the model of py3langid (naive Bayes over byte n-grams, after Lui and Baldwin 2012),
        run by a kernel; scores are its probabilities, which are calibrated for
        the length of the text. Differs: only the first `max_bytes` are looked at, and
        the text is not composed first, which `Normalize` does.
        The threshold is the one customary with fastText's identifier, whose
        scores are not these.

    Cost: 25 to 30 MB/s a thread without the GIL; 8 bytes a document.
    """

    keep: tuple[str, ...] | None = field(default=("en",), metadata={"fingerprint": False})
    """Languages by their ISO 639 code, as `Language.known()` names them; None for any."""
    threshold: float = field(default=0.65, metadata={"fingerprint": False})
    """Smallest score, in [0, 1]."""
    max_bytes: int = 1 << 16
    """Bytes at the start of a text that are looked at."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_share("Language.threshold", self.threshold)
        if self.threshold is None:
            raise ConfigError("Language.threshold", None, "must be a number; 0 keeps every score")
        if not isinstance(self.max_bytes, int) or self.max_bytes < 1:
            raise ConfigError("Language.max_bytes", self.max_bytes, "must be at least 1")
        if self.keep is None:
            return
        if isinstance(self.keep, str) or not self.keep:
            raise ConfigError(
                "Language.keep", self.keep, "must be codes such as ('en', 'de'), or None"
            )
        unknown = sorted(set(self.keep) - set(Language.known()))
        if unknown:
            raise ConfigError(
                "Language.keep", self.keep, f"has unknown codes {unknown}; see Language.known()"
            )

    @staticmethod
    def known() -> tuple[str, ...]:
        """Codes of the languages that are told apart."""
        return tuple(sorted(set(_model()["codes"])))

    def fingerprint(self) -> str:
        """What the signatures depend on: the setting that shapes them, and the model."""
        return f"{self.revision}, {self.max_bytes}, {_model()['version']}"

    @property
    def rule(self) -> str:
        """The first part of the rules' names in the verdicts."""
        return "language"

    @property
    def signature_type(self) -> pa.DataType:
        """Language and score."""
        return _TYPE

    def signature(self, documents: pa.RecordBatch) -> pa.Array:
        """The most probable language and its probability; (num_rows,) struct."""
        codes, scores = identify(documents["text"], self.max_bytes)
        return pa.StructArray.from_arrays([codes, pa.array(scores)], fields=list(_TYPE))

    def decide(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """Which documents are of another language or doubtful; `VERDICTS`, sorted by `doc_id`."""
        c = columns_of(signature)
        # As it is stored: 0.65 as a 32-bit number must not fall short of 0.65.
        score, least = c["score"].astype(np.float32), np.float32(self.threshold)
        checks: list[Check] = []
        if self.keep is not None:
            is_kept = np.isin(c["language"].astype(str), np.array(self.keep, str))
            checks.append(("other_language", ~is_kept, score))
        checks += below("low_score", score, float(least))
        return verdicts(self.rule, doc_id, checks)


def identify(text: pa.Array, max_bytes: int) -> tuple[pa.Array, npt.NDArray[np.float32]]:
    """The most probable language of each text, and its probability.

    A text without any known n-gram has language `und` (undetermined) and score 0.

    Raises:
        MissingExtra: The package with the model is not installed.
    """
    model = _model()
    offsets, utf8 = text_buffers(text)
    scores, may_shout = _scores(model, offsets, utf8, max_bytes)
    sizes = np.minimum(np.diff(offsets), max_bytes)
    rows = np.flatnonzero(may_shout).tolist()
    heads = {row: _head(utf8, offsets, row, max_bytes) for row in rows}
    lowered = {row: head.lower() for row, head in heads.items() if head.isupper()}
    if lowered:  # the model knows small letters better
        again = np.array(list(lowered))
        column = pa.array(lowered.values(), pa.large_string())
        scores[again] = _scores(model, *text_buffers(column), max_bytes)[0]
        sizes[again] = np.minimum([len(text.encode()) for text in lowered.values()], max_bytes)
    is_silent = ~scores.any(axis=1)
    scores /= np.sqrt(np.maximum(sizes, 1)).astype(np.float32)[:, None]
    np.exp(scores - scores.max(axis=1, initial=-np.inf, keepdims=True), out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    scores = scores @ model["joined"]  # a language in two scripts is one
    best = scores.argmax(axis=1) if len(scores) else np.zeros(0, np.int64)
    best[is_silent] = len(model["codes"])
    names = pa.array([*model["codes"], "und"], pa.string())
    probability = np.column_stack([scores, np.zeros(len(best), np.float32)])
    return names.take(pa.array(best)), probability[np.arange(len(best)), best]


def _scores(
    model: dict[str, Any], offsets: I64, utf8: U8, max_bytes: int
) -> tuple[npt.NDArray[np.float32], U8]:
    from penstock.kernels.languages import score_languages

    num_rows, num_features = len(offsets) - 1, len(model["weights"])
    scores = np.zeros((num_rows, len(model["priors"])), np.float32)
    may_shout = np.zeros(num_rows, np.uint8)
    score_languages(
        offsets,
        utf8,
        model["moves"],
        model["bases"],
        model["features"],
        model["weights"],
        model["priors"],
        max_bytes,
        np.zeros(num_features, np.int32),
        np.zeros(num_features, np.int32),
        scores,
        may_shout,
    )
    return scores, may_shout


def _head(utf8: U8, offsets: I64, row: int, max_bytes: int) -> str:
    end = min(int(offsets[row + 1]), int(offsets[row]) + max_bytes)
    return utf8[offsets[row] : end].tobytes().decode("utf-8", "ignore")


@lru_cache(maxsize=1)
def _model() -> dict[str, Any]:
    """The model's tables, and its languages: each code once, and which columns it joins."""
    try:
        from importlib.metadata import version

        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as err:
        raise MissingExtra("language", "Language") from err
    found = LanguageIdentifier.from_model_file(MODEL_FILE)
    codes = sorted(set(found.nb_classes))
    joined = np.zeros((len(found.nb_classes), len(codes)), np.float32)
    for column, code in enumerate(found.nb_classes):
        joined[column, codes.index(code)] = 1
    moves = np.asarray(found.tk_nextmove)
    return {
        "codes": codes,
        "joined": joined,
        "moves": moves.astype(np.uint32),
        "bases": np.asarray(found.tk_row).astype(np.int32) << 8,
        "features": np.asarray(found.tk_output, np.int32),
        "weights": np.ascontiguousarray(found.nb_ptc, np.float32),
        "priors": np.asarray(found.nb_pc, np.float32),
        "version": version("py3langid"),
    }
