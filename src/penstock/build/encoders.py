"""A flow's model, open for one run or kept open from run to run."""

from __future__ import annotations

from penstock.errors import ModelError
from penstock.models import Encoder
from penstock.steps import Embed


class HeldEncoder:
    """The model of the last run; a context manager that closes it.

    Opening a model costs some tenths of a second, more than all else that a
    small run does.
    """

    def __init__(self) -> None:
        self._encoder: Encoder | None = None

    def open(self, embed: Embed, embedded_by: str) -> Encoder:
        """The model that a plan names; the one that is open if it is the same.

        Args:
            embed: The step.
            embedded_by: The fingerprint that the plan found in the model's folder.

        Raises:
            ModelError: The folder holds another model by now.
        """
        if self._encoder is not None and self._encoder.fingerprint == embedded_by:
            return self._encoder
        self.close()
        encoder = embed.open()
        if encoder.fingerprint != embedded_by:
            encoder.close()
            raise ModelError(
                embed.model, "it changed while the run went on, so it was not used; build again"
            )
        self._encoder = encoder
        return encoder

    def close(self) -> None:
        """Close what is open."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None

    def __enter__(self) -> HeldEncoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
