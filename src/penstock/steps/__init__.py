"""What happens to documents, one step a file: normalise, a user's own, chunk, embed, tokenize."""

from __future__ import annotations

from penstock.steps.c4_lines import C4Lines
from penstock.steps.chunk import Chunk
from penstock.steps.custom import Keep, Map
from penstock.steps.embed import Embed
from penstock.steps.normalize import Normalize
from penstock.steps.redact_pii import RedactPII
from penstock.steps.tokenize import Tokenize

__all__ = ["C4Lines", "Chunk", "Embed", "Keep", "Map", "Normalize", "RedactPII", "Tokenize"]
