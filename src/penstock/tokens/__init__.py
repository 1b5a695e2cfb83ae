"""The token store: flat files of each kept document's tokens, in an order that no history shapes.

Rows lie by a hash of their document's name, in every segment and over all of them, so a sample's
position is its rank by that hash. An updated store therefore serves the same order as a fresh one,
neighbours lie together on the disk, and what is read in order is shuffled already.
"""

from __future__ import annotations

from penstock.tokens.manifest import SegmentManifest, TokensManifest
from penstock.tokens.stored import StoredTokens
from penstock.tokens.update import forget_tokens, purge_tokens

__all__ = [
    "SegmentManifest",
    "StoredTokens",
    "TokensManifest",
    "forget_tokens",
    "purge_tokens",
]
