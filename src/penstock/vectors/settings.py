"""How a segment's vectors are to be searched: what a user may choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from penstock.errors import ConfigError

Kind = Literal["auto", "flat", "ivf", "hnsw"]
Codes = Literal["auto", "sq8", "rabitq"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSettings:
    """How the vectors of a segment are searched."""

    kind: Kind = "auto"
    """`flat` reads every vector and is exact; `ivf` reads the lists near the query; `hnsw` walks
    a graph, which takes long to build and suits a store that is seldom written. `auto` is `flat`
    while a segment is small and `ivf` from then on."""
    codes: Codes = "auto"
    """What `ivf` keeps of a vector for its first look: a byte for each dimension (`sq8`) or a bit
    (`rabitq`). The best candidates are scored again from float16 either way. A bit is an eighth of
    the memory and three times as fast, at the same recall; its error grows as the vectors narrow,
    so `auto` takes bits from 128 dimensions on."""

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("kind", self.kind, get_args(Kind)),
            ("codes", self.codes, get_args(Codes)),
        ):
            if value not in choices:
                raise ConfigError(
                    f"VectorSettings.{name}", value, f"must be one of {', '.join(choices)}"
                )
