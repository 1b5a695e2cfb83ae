"""Kept documents as shards for training: written, kept in step with the store, found again."""

from __future__ import annotations

from penstock.export.export import ExportReport, export
from penstock.store.exports import Export, Holding, exported_shards, read_exports

__all__ = ["Export", "ExportReport", "Holding", "export", "exported_shards", "read_exports"]
