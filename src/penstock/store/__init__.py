"""The store: tables, manifests, the writer's lease, and how to read it all."""

from __future__ import annotations

from penstock.store.manifest import Manifest
from penstock.store.receipts import Receipt
from penstock.store.search import Hit, Hits
from penstock.store.store import Store

__all__ = ["Hit", "Hits", "Manifest", "Receipt", "Store"]
