"""The store: tables, manifests, the writer's lease, and how to read it all."""

from __future__ import annotations

from penstock.store.manifest import Manifest
from penstock.store.store import Hit, Store

__all__ = ["Hit", "Manifest", "Store"]
