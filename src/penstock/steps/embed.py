"""Give each chunk the vector of its text."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.errors import ConfigError
from penstock.models import DEFAULT_MODEL, Encoder, Precision, model_fingerprint, open_encoder
from penstock.models.encoder import PRECISIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed:
    """Give each chunk the vector of its text.

    A vector is a function of the text and of `fingerprint` alone, so a chunk whose
    text is unchanged is never embedded twice.
    """

    model: str = DEFAULT_MODEL
    """A folder, `all-MiniLM-L6-v2`, `package:NAME` or a Hub id; see `penstock.models.resolve`."""
    precision: Precision = "fp32"
    """`fp32`; `int8`, faster and slightly less exact; `bf16` for CPUs with AMX."""

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError("Embed.model", self.model, "must name a model")
        if self.precision not in PRECISIONS:
            raise ConfigError(
                "Embed.precision", self.precision, f"must be one of {', '.join(PRECISIONS)}"
            )

    def fingerprint(self) -> str:
        """Name of the function from text to vector; see `model_fingerprint`.

        Raises:
            ModelError: No such model.
            MissingExtra: The package that would bring it is not installed.
        """
        return model_fingerprint(self.model, self.precision)

    def open(self) -> Encoder:
        """The open model, to be closed by the caller; see `open_encoder`.

        Raises:
            ModelError: No such model, or it cannot be built.
            MissingExtra: A package that it needs is not installed.
            ConfigError: The CPU cannot do this precision.
        """
        return open_encoder(self.model, self.precision)
