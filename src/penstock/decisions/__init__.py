"""Steps that look at the whole corpus and say which documents stay."""

from penstock.decisions.exact import ExactDedup

__all__ = ["ExactDedup"]
