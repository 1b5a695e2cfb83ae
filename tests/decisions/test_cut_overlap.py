from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.decisions.cut_overlap import CutOverlap
from penstock.decisions.decontaminate import Decontaminate
from penstock.decisions.eval_sets import EvalSet
from penstock.errors import ConfigError
from penstock.fingerprint import fingerprint
from penstock.protocols import DocumentStep

ITEM = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


@pytest.fixture
def search(tmp_path: Path) -> Decontaminate:
    path = tmp_path / "quiz.jsonl"
    path.write_text(json.dumps({"q": ITEM}))
    return Decontaminate(against=(EvalSet(str(path), ("q",)),))


@pytest.mark.parametrize(
    ("text", "settings", "left"),
    [
        pytest.param(f"é{'a' * 9} {ITEM} {'b' * 9}", {}, f"é{'a' * 9}\n\n{'b' * 9}", id="inside"),
        pytest.param(f"{ITEM.upper()}. Rest", {}, ". Rest", id="at-the-start"),
        pytest.param(ITEM, {}, "", id="nothing-left"),
        pytest.param(
            f"aaaa bbbb {ITEM} cccc dddd", {"around_chars": 5}, "aaaa\n\ndddd", id="around"
        ),
        pytest.param(
            f"a long piece {ITEM} b", {"min_piece_chars": 2}, "a long piece", id="short-piece"
        ),
        pytest.param(f"a {ITEM} b {ITEM} c", {"max_pieces": 2}, "", id="too-many-pieces"),
        pytest.param(f"a {ITEM} b {ITEM} c", {"max_pieces": 3}, "a\n\nb\n\nc", id="three-pieces"),
        pytest.param("clean ", {}, "clean ", id="clean"),
        pytest.param("", {}, "", id="empty"),
    ],
)
def test_cuts_items_out_of_documents(
    search: Decontaminate, text: str, settings: dict[str, Any], left: str
) -> None:
    step = CutOverlap(**{"found_by": search, "around_chars": 0, "min_piece_chars": 0, **settings})
    rows = {"doc_id": ["1", "2"], "text": pa.array(["other", text], pa.large_string())}
    documents = pa.record_batch(rows)

    done = step.apply(documents)

    assert isinstance(step, DocumentStep)
    assert done.schema == documents.schema
    assert done["text"].to_pylist() == ["other", left]


def test_its_fingerprint_covers_what_shapes_the_text(search: Decontaminate) -> None:
    def of(**changed: Any) -> Decontaminate:
        return Decontaminate(against=search.against, **changed)

    step = fingerprint(CutOverlap(found_by=search))

    assert fingerprint(CutOverlap(found_by=of(action="flag", max_documents=3))) == step
    others = [
        CutOverlap(found_by=search, around_chars=1),
        CutOverlap(found_by=of(method="coverage8")),
        CutOverlap(found_by=of(method="coverage8", min_coverage=0.3)),
    ]
    assert len({step, *map(fingerprint, others)}) == 4


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"found_by": "quiz.jsonl"}, id="found-by"),
        pytest.param({"around_chars": -1}, id="around"),
        pytest.param({"min_piece_chars": 0.5}, id="piece"),
        pytest.param({"max_pieces": 0}, id="pieces"),
    ],
)
def test_refuses_wrong_settings(search: Decontaminate, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        CutOverlap(**{"found_by": search, **given})
