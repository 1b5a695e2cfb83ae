"""The flows that `penstock init` writes, to be edited."""

from __future__ import annotations

_HEAD = '''"""{what}: edit this, then run

    penstock build SOURCE STORE --flow flow.py

Change a step and build again: only what depends on it is computed anew.
"""

import penstock as ps

'''

_FUNCTION = '''
def flow(source: str) -> ps.Flow:
    """Called with the SOURCE of the command line."""
    return ps.Flow(
'''

_SEARCH = (
    _HEAD.format(what="A corpus to search")
    + _FUNCTION
    + """        # Or ps.jsonl(source, id="_id"), or ps.parquet(source, id="id").
        source=ps.files(
            source,
            # include=["*.md", "*.py"],
            # exclude=["tests/**"],
            gitignore=True,
        ),
        steps=[
            # Unicode NFC, line ends, control characters, trailing blanks.
            ps.Normalize(),
            # Your own function, one document at a time; see also ps.Keep.
            # ps.Map(lambda doc: {"text": doc["text"].replace("colour", "color")}),
            # ps.Keep(lambda doc: len(doc["text"]) >= 20, rule="too_short"),
            # Of documents with the same text, keep the one with the smallest doc_id.
            ps.ExactDedup(),
            # Pieces for search, at headings, paragraphs, functions.
            ps.Chunk(max_tokens=240, overlap_tokens=24),
            # A sentence-transformers folder, an installed package's, or a Hub id.
            ps.Embed(model="all-MiniLM-L6-v2", precision="fp32"),
        ],
        # Stems and stop words of another language, or "none".
        # index=ps.IndexSettings(language="english"),
    )
"""
)

_FINEWEB = (
    _HEAD.format(what="Text for pretraining, filtered as FineWeb was")
    + """# FineWeb's settings of C4's rules: lines need no full stop at their end.
C4_LINES = ps.C4Lines(must_end=False)

"""
    + _FUNCTION
    + """        source=ps.jsonl(source, id="id", text="text"),
        # Thresholds act on stored figures: change one and build again, nothing is read.
        steps=[
            ps.Normalize(),
            ps.ExactDedup(),
            # Needs: pip install 'penstock[language]'
            ps.Language(keep=("en",), threshold=0.65),
            ps.GopherRepetition(),
            ps.GopherQuality(),
            # C4's rules for documents, then its removal of lines.
            ps.C4Quality(lines=C4_LINES, curly_bracket=False),
            C4_LINES,
            ps.FineWebQuality(),
            # 14 bands of 8 hashes over 5 words.
            ps.MinHashDedup(),
        ],
    )
"""
)

_CODE = (
    _HEAD.format(what="Source code for pretraining")
    + _FUNCTION
    + """        source=ps.files(source, include=["*.py", "*.c", "*.js", "*.ts", "*.go", "*.rs"]),
        # Thresholds act on stored figures: change one and build again, nothing is read.
        steps=[
            ps.Normalize(),
            ps.ExactDedup(),
            # Shares of comments, letters and visible text; lengths of lines.
            ps.CodeQuality(),
            # Near-duplicates: at least four fifths of their runs of 5 words in common.
            ps.MinHashDedup(threshold=0.8),
        ],
    )
"""
)

PRESETS = {"search": _SEARCH, "fineweb": _FINEWEB, "code": _CODE}
"""Text of a flow.py by the name of the preset."""
