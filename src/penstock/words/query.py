"""What a query asks for: any text is one, and a few forms in it mean more than words.

    "two words"        must occur one after the other
    title:word         must occur in the title; so with heading, and with a phrase in quotes
    wor*               words that begin so

Everything else, such as a quote without a partner, is plain words. So is all of
a longer text: where more than `MAX_FORMS_WORDS` words that say something stand
outside of these forms, it is prose, and its quotes and colons are punctuation.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import pyarrow as pa

from penstock.kernels import text_buffers
from penstock.words.analysis import Analyzed, Analyzer, stop_words

MAX_FORMS_WORDS = 8
"""Words that say something, outside of forms, above which a query has no forms."""

FIELDS = {"": 0, "title": 1, "heading": 2}

_FORMS = re.compile(
    r"""(?<![\w"*]) (?:
        (?: (?P<field>title|heading) : )? " (?P<phrase> [^"]* ) " (?! \w )
      | (?P<word_field>title|heading) : (?P<word> \w [^\s"]* )
      | (?P<prefix> \w+ ) \* (?! [\w*(] )
    )""",
    re.VERBOSE,
)


_ASCII_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_]|(?<=[0-9])\.(?=[0-9]))*")


@dataclass(frozen=True, slots=True)
class Word:
    """A plain word of a query.

    Attributes:
        whole: Its term as a whole, or None.
        parts: Terms of its parts; of a simple word, its only term.
        folded: The word with small letters, not stemmed.
        is_stop: Whether it says little.
    """

    whole: bytes | None
    parts: tuple[bytes | None, ...]
    folded: str
    is_stop: bool

    @property
    def terms(self) -> list[bytes]:
        """All of its terms."""
        return [term for term in (self.whole, *self.parts) if term is not None]


@dataclass(frozen=True, slots=True)
class Required:
    """What must occur: terms one after the other, in one field or anywhere."""

    field: int
    terms: tuple[bytes, ...]


@dataclass(slots=True)
class Query:
    """A query, read.

    Attributes:
        words: Those outside of forms.
        required: What must occur.
        prefixes: How words begin that are looked for: bytes, with the term of the beginning itself.
        phrase_words: Those that must occur.
    """

    words: list[Word] = field(default_factory=list)
    required: list[Required] = field(default_factory=list)
    prefixes: list[tuple[bytes, bytes]] = field(default_factory=list)
    phrase_words: list[Word] = field(default_factory=list)

    def telling(self) -> list[Word]:
        """Words but those that say little, unless there are no others."""
        words = [*self.words, *self.phrase_words]
        telling = [word for word in words if not word.is_stop]
        return telling if telling or self.prefixes else words

    def counts(self) -> Counter[bytes]:
        """How often each term of a telling word occurs."""
        return Counter(term for word in self.telling() for term in word.terms)


def read_query(text: str, analyzer: Analyzer) -> Query:
    """Read a query; no text is an error."""
    # A lone surrogate, as in an argument of broken bytes, is no text.
    text = text.encode("utf-8", "replace").decode()
    has_forms = '"' in text or "*" in text or ":" in text
    forms = list(_FORMS.finditer(text)) if has_forms else []
    ends = [0, *(place for form in forms for place in form.span()), len(text)]
    plain = " ".join(text[first:end] for first, end in zip(ends[::2], ends[1::2], strict=True))
    texts = [form["phrase"] or form["word"] or form["prefix"] or "" for form in forms]
    words, *found = _words([plain, *texts], analyzer)
    if forms and sum(not word.is_stop for word in words) > MAX_FORMS_WORDS:
        return Query(_words([text], analyzer)[0])
    query = Query(words)
    for form, form_words in zip(forms, found, strict=True):
        if form["prefix"]:
            _add_prefix(query, form_words)
            continue
        name = form["field"] or form["word_field"] or ""
        terms = tuple(term for word in form_words for term in word.parts if term is not None)
        if terms:
            query.required.append(Required(FIELDS[name], terms))
            query.phrase_words += form_words
    return query


def _add_prefix(query: Query, found: list[Word]) -> None:
    """The words before an asterisk: the last is a beginning, which is not stemmed."""
    if not found:
        return
    query.words += found[:-1]
    begins = found[-1].folded.replace("_", "")
    terms = found[-1].terms
    query.prefixes.append((begins.encode(), terms[0] if terms else begins.encode()))


def _words(texts: list[str], analyzer: Analyzer) -> list[list[Word]]:
    """The words of each text."""
    known = analyzer.meanings_of_queries
    if all(text.isascii() for text in texts):
        # What kernels make of a text of ASCII is simple enough to be said in Python too.
        cut = [[word.rstrip("_") for word in _ASCII_WORD.findall(text)] for text in texts]
        try:
            return [[known[word] for word in words] for words in cut]
        except KeyError:
            pass
    column = pa.array(texts, pa.large_string())
    _, utf8 = text_buffers(column)
    analyzed = analyzer.analyze(column)
    cut_words, stops = analyzed.columns[0], stop_words(analyzer.language)
    rows, data = cut_words.rows.tolist(), utf8.tobytes()
    found = []
    for number, start, stop in zip(
        cut_words.words.tolist(), cut_words.starts.tolist(), cut_words.stops.tolist(), strict=True
    ):
        text = data[start:stop].decode()
        word = known.get(text)
        if word is None:
            word = known[text] = _word(analyzed, analyzer, number, text, stops)
        found.append(word)
    return [found[first:end] for first, end in pairwise(rows)]


def _word(
    analyzed: Analyzed, analyzer: Analyzer, number: int, text: str, stops: frozenset[str]
) -> Word:
    whole, parts = analyzed.terms(number)
    folded = analyzer.fold(text)
    return Word(
        analyzer.term(whole) if whole >= 0 else None,
        tuple(analyzer.term(part) if part >= 0 else None for part in parts),
        folded,
        folded in stops,
    )
