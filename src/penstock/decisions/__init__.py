"""Steps that look at the whole corpus and say which documents stay."""

from penstock.decisions.c4 import C4Quality
from penstock.decisions.code_quality import CodeQuality
from penstock.decisions.exact import ExactDedup
from penstock.decisions.fineweb import FineWebQuality
from penstock.decisions.gopher import GopherQuality, GopherRepetition
from penstock.decisions.language import Language
from penstock.decisions.near import MinHashDedup

__all__ = [
    "C4Quality",
    "CodeQuality",
    "ExactDedup",
    "FineWebQuality",
    "GopherQuality",
    "GopherRepetition",
    "Language",
    "MinHashDedup",
]
