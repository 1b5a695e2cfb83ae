"""Keep the lines of a web page that C4 keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.errors import ConfigError
from penstock.kernels import I64, U8, text_buffers, text_from_buffers

_CITATIONS = [b"[edit]", b"[citation needed]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class C4Lines:
    """Remove lines that are no sentences or speak of cookies or JavaScript, and marks of citations.

    What is left is joined by line feeds, without blanks at line ends. Documents
    are not dropped: `C4Quality` judges them, by the text as it was before this
    step, so it stands first: `steps=[C4Quality(), C4Lines()]`. Give both the
    same settings: `lines = C4Lines(...)`, `steps=[C4Quality(lines=lines), lines]`.

    Source: Raffel et al. 2020 (C4), section 2.2, as datatrove's `C4QualityFilter` edits
        documents. Differs: phrases are found whatever the case of ASCII letters;
        cutting by sentences instead of lines is not offered.

    Cost: about 100 MB/s a thread without the GIL.
    """

    must_end: bool = True
    """A line must end with one of ``. ? ! " '`` and not with an ellipsis; FineWeb leaves it out."""
    min_words: int | None = 3
    """Fewest words, as blanks separate them, in a line; None for any."""
    max_word_chars: int | None = 1000
    """Characters of the longest word in a line; None for any."""
    citations: bool = True
    """Remove marks such as ``[12]``, ``[]``, ``[edit]`` and ``[citation needed]``."""
    javascript: bool = True
    """Remove lines that mention JavaScript."""
    policy: bool = True
    """Remove lines that mention terms of use, privacy and cookie policies or the use of cookies."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("min_words", "max_word_chars"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 0):
                raise ConfigError(f"C4Lines.{name}", value, "must be at least 0, or None")

    def apply(self, documents: pa.RecordBatch) -> pa.RecordBatch:
        """The same rows with `text` cut down to the lines that stay."""
        offsets, utf8, _ = self.kept(documents["text"], strip=True)
        place = documents.schema.get_field_index("text")
        text = text_from_buffers(offsets, utf8)
        return documents.set_column(place, documents.schema.field(place).with_type(text.type), text)

    def kept(self, text: pa.Array, *, strip: bool) -> tuple[I64, U8, npt.NDArray[np.int32]]:
        """What is left of each text, and where it names "lorem ipsum" or has a curly bracket.

        Args:
            text: (num_rows,) strings.
            strip: Remove blanks at both ends of a text.

        Returns:
            Offsets and bytes of the new texts, and per row the numbers of the first lines of the
            old text, else to be kept, with either mark; -1 where there is none.
        """
        from penstock.decisions._words import flags
        from penstock.kernels.text_stats import JAVASCRIPT, PHRASES, POLICY, keep_lines

        offsets, utf8 = text_buffers(text)
        num_rows = len(offsets) - 1
        out = np.empty(int(offsets[-1] - offsets[0]) + 1, np.uint8)
        out_offsets = np.zeros(num_rows + 1, np.int64)
        firsts = np.zeros((num_rows, 2), np.int32)
        drops = (JAVASCRIPT if self.javascript else 0) | (POLICY if self.policy else 0)
        keep_lines(
            offsets,
            utf8,
            flags(),
            self.min_words or 0,
            -1 if self.max_word_chars is None else self.max_word_chars,
            self.citations,
            self.must_end,
            drops,
            *_joined([phrase.encode() for phrase, _ in PHRASES]),
            np.array([meaning for _, meaning in PHRASES], np.int64),
            *_joined(_CITATIONS),
            strip,
            out,
            out_offsets,
            firsts,
        )
        return out_offsets, out[: out_offsets[-1]], firsts


def _joined(texts: list[bytes]) -> tuple[U8, I64]:
    return np.frombuffer(b"".join(texts), np.uint8), np.cumsum([len(t) for t in texts])
