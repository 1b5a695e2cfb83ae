"""Where rows come from: files of a folder, JSON Lines, Parquet, each listed cheaply."""

from penstock.sources._watched import Watched, watched
from penstock.sources.files import Files, files
from penstock.sources.jsonl import JsonLines, jsonl
from penstock.sources.parquet import Parquet, parquet

__all__ = ["Files", "JsonLines", "Parquet", "Watched", "files", "jsonl", "parquet", "watched"]
