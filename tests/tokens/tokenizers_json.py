"""A tokenizer small enough to be made in a test: one token a byte, and an end of document."""

from __future__ import annotations

END = "<end>"


def byte_tokenizer(extra: int = 0) -> str:
    """Its JSON; `extra` tokens that no text has make the vocabulary larger."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*alphabet, *(f"<extra {number}>" for number in range(extra))]
    vocab = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    json: str = tokenizer.to_str()
    return json
