"""Steps that look at the whole corpus and say which documents stay."""

from penstock.decisions.c4 import C4Quality
from penstock.decisions.code_quality import CodeQuality
from penstock.decisions.decontaminate import Decontaminate
from penstock.decisions.eval_sets import EvalSet
from penstock.decisions.exact import ExactDedup
from penstock.decisions.fineweb import FineWebQuality
from penstock.decisions.gopher import GopherQuality, GopherRepetition
from penstock.decisions.language import Language
from penstock.decisions.near import MinHashDedup
from penstock.decisions.paragraphs import LineDedup, ParagraphDedup
from penstock.decisions.sampling import Limit, Mix, Sample
from penstock.decisions.semantic import SemanticDedup
from penstock.decisions.substrings import SubstringDedup
from penstock.decisions.urls import UrlFilter

__all__ = [
    "C4Quality",
    "CodeQuality",
    "Decontaminate",
    "EvalSet",
    "ExactDedup",
    "FineWebQuality",
    "GopherQuality",
    "GopherRepetition",
    "Language",
    "Limit",
    "LineDedup",
    "MinHashDedup",
    "Mix",
    "ParagraphDedup",
    "Sample",
    "SemanticDedup",
    "SubstringDedup",
    "UrlFilter",
]
