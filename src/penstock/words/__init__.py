"""BM25 over immutable segments: analysis, files, merging, exact search, highlights.

    with WordsWriter(folder, settings) as writer:       # folder is made; files are whole on exit
        writer.add(titles, headings, texts)             # Arrow strings; places follow on
    words = Words.open(folder)                          # maps the files, reads next to nothing
    merge_words(folder, [(words, keep), ...], order)    # a new segment of the kept rows
    searcher = WordsSearcher([words, ...], [live, ...], settings)
    scores, segments, places = searcher.search("text", k, allowed, typos=0)
    searcher.scores("text", segment_no, places)
    searcher.highlights(text, query)                    # or highlights(text, query, settings)

A score is a pure function of the query and of the live rows, to the last bit:
how rows are cut into segments, and what was deleted before, leaves no trace.
"""

from penstock.words.files import Words
from penstock.words.highlighting import highlights
from penstock.words.searcher import WordsSearcher
from penstock.words.settings import LANGUAGES, WordsSettings
from penstock.words.writer import WordsWriter, merge_words

__all__ = [
    "LANGUAGES",
    "Words",
    "WordsSearcher",
    "WordsSettings",
    "WordsWriter",
    "highlights",
    "merge_words",
]
