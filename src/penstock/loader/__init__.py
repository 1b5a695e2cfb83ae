"""Feed training: one order of all samples, packed, cut into equal shares, resumable."""

from __future__ import annotations

from penstock.loader.samples import Samples

__all__ = ["Samples"]
