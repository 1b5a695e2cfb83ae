"""Raw files in; a clean corpus, a training stream and a hybrid search index out, kept in step."""

from __future__ import annotations

__version__ = "0.1.0"
