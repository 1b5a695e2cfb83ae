"""A store on an object store is like one on a disk: what it holds, earlier runs, searches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tests.tokens.tokenizers_json import byte_tokenizer

import penstock as ps

Contents = Callable[..., dict[str, Any]]
Words = Callable[[Path], ps.Flow]


def test_a_store_on_s3_holds_what_a_local_one_holds(
    s3: str, docs: Path, tmp_path: Path, words: Words, contents: Contents
) -> None:
    words(docs).run(s3)
    words(docs).run(tmp_path / "local")

    assert contents(s3) == contents(tmp_path / "local")

    (docs / "03.md").unlink()
    (docs / "04.md").write_text("# Another page\n\nOf other words.\n")
    (docs / "new.md").write_text("# New\n\nMore words of page 3.\n")
    report = words(docs).run(s3)
    words(docs).run(tmp_path / "local")

    assert report.counts.items_read == 2
    assert contents(s3) == contents(tmp_path / "local")
    assert contents(s3, 1) == contents(tmp_path / "local", 1)


def test_tokens_on_s3_are_those_of_a_local_store(s3: str, docs: Path, tmp_path: Path) -> None:
    flow = ps.Flow(source=ps.files(docs), steps=[ps.Tokenize(tokenizer=byte_tokenizer())])
    flow.run(s3)
    (docs / "03.md").unlink()
    (docs / "04.md").write_text("# Another page\n\nOf other words.\n")
    report = flow.run(s3)
    flow.run(tmp_path / "local")

    here, there = (ps.Store.open(place).tokens() for place in (tmp_path / "local", s3))
    every = np.arange(here.num_samples)
    assert report.counts.documents_tokenized == 1
    assert here.fingerprint == there.fingerprint
    assert here.gather(every)[0].tolist() == there.gather(every)[0].tolist()
