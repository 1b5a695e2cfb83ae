"""What the words of an index are, and how they are scored."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.errors import ConfigError

# fmt: off
LANGUAGES = (
    "arabic", "armenian", "basque", "catalan", "czech", "danish", "dutch", "english", "esperanto",
    "estonian", "finnish", "french", "german", "greek", "hindi", "hungarian", "indonesian",
    "irish", "italian", "lithuanian", "nepali", "norwegian", "persian", "polish", "portuguese",
    "romanian", "russian", "serbian", "sesotho", "spanish", "swedish", "tamil", "turkish",
    "yiddish",
)
# fmt: on
"""Languages with a Snowball stemmer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsSettings:
    """How texts become terms, and how terms become scores.

    `language` shapes the files and must be the same in all segments that are
    searched together; `k1` and `b` only shape scores.

    Raises:
        ConfigError: A value that is no setting.

    Source: Robertson and Zaragoza 2009, The Probabilistic Relevance Framework:
        BM25 and Beyond, for `k1` and `b`; their usual values, as Lucene's.
    """

    language: str = "english"
    """Whose stemmer and stop words: one of `LANGUAGES`, or `none` for neither."""
    k1: float = 1.2
    """How slowly a word's further occurrences in a row stop counting, 0 or more."""
    b: float = 0.75
    """How much a row's length counts, in [0, 1]."""

    def __post_init__(self) -> None:
        if self.language not in (*LANGUAGES, "none"):
            known = ", ".join((*LANGUAGES, "none"))
            raise ConfigError("language", self.language, f"must be one of {known}")
        if not 0 <= self.k1 < 1000:
            raise ConfigError("k1", self.k1, "must be 0 or more and below 1000")
        if not 0 <= self.b <= 1:
            raise ConfigError("b", self.b, "must be in [0, 1]")


DEFAULT = WordsSettings()
