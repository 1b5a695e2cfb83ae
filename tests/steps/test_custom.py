from typing import Any

import pyarrow as pa
import pytest

from penstock.errors import ConfigError, RowError
from penstock.steps.custom import Keep, Map


def _batch(*texts: str) -> pa.RecordBatch:
    size = len(texts)
    return pa.RecordBatch.from_pydict(
        {
            "doc_id": pa.array([f"d{i}" for i in range(size)], pa.string()),
            "media_type": pa.array(["text/plain"] * size, pa.string()),
            "metadata": pa.array(['{"n":1}'] * size, pa.string()),
            "text": pa.array(texts, pa.large_string()),
        }
    )


def test_map_replaces_the_text_of_each_document() -> None:
    done = Map(lambda doc: {"text": doc["text"].upper()}).apply(_batch("a", "b"))

    assert done["text"].to_pylist() == ["A", "B"]
    assert done["metadata"].to_pylist() == ['{"n":1}', '{"n":1}']


def test_map_replaces_metadata_as_canonical_json() -> None:
    done = Map(lambda doc: {"metadata": {**doc["metadata"], "id": doc["doc_id"]}}).apply(
        _batch("a")
    )

    assert done["metadata"].to_pylist() == ['{"id":"d0","n":1}']


def test_map_takes_whole_batches() -> None:
    def shout(batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = [text + "!" for text in batch["text"].to_pylist()]
        return pa.RecordBatch.from_pydict({"text": pa.array(texts)})

    assert Map(shout, batch=True).apply(_batch("a", "b"))["text"].to_pylist() == ["a!", "b!"]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="none"),
        pytest.param("text", id="string"),
        pytest.param({"body": "x"}, id="unknown-key"),
        pytest.param({"text": 3}, id="text-not-string"),
        pytest.param({"metadata": [1]}, id="metadata-not-mapping"),
    ],
)
def test_map_says_what_its_function_should_return(value: Any) -> None:
    with pytest.raises(RowError) as caught:
        Map(lambda doc: value).apply(_batch("a"))

    assert caught.value.error == "bad-return-value"
    assert "use Keep" in caught.value.advice


def test_map_refuses_a_batch_of_another_length() -> None:
    with pytest.raises(ConfigError, match="must return as many rows"):
        Map(lambda batch: batch.slice(1), batch=True).apply(_batch("a", "b"))


def test_keep_drops_under_its_rule_with_a_score() -> None:
    step = Keep(lambda doc: len(doc["text"]) > 1, rule="too_short")
    batch = _batch("a", "bb")
    signature = step.signature(batch)

    verdicts = step.decide(pa.chunked_array([batch["doc_id"]]), pa.chunked_array([signature]))

    assert verdicts.to_pylist() == [
        {
            "doc_id": "d0",
            "verdict": "dropped",
            "rule": "too_short",
            "score": 0.0,
            "duplicate_of": None,
        }
    ]


def test_keep_takes_its_rule_from_the_functions_name() -> None:
    def long_enough(doc: dict[str, Any]) -> bool:
        return True

    assert Keep(long_enough).rule == "long_enough"


@pytest.mark.parametrize("step", [Map, Keep])
def test_a_wrong_setting_is_refused_at_once(step: Any) -> None:
    with pytest.raises(ConfigError, match="callable"):
        step("not a function")
    with pytest.raises(ConfigError, match="threads"):
        step(len, workers="fibers")
