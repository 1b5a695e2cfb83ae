"""A vector is a function of its text and the model alone, and it is the right one."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.errors import ConfigError, MissingExtra, ModelError
from penstock.models import (
    load_tokenizer,
    model_fingerprint,
    open_encoder,
    resolve,
    tokenizer_fingerprint,
)

from .conftest import MakeModel, forward, random_weights

TEXTS = [
    "",
    "A word.",
    "The quick brown fox jumps over the lazy dog.",
    "def parse(line):\n    return [field.strip() for field in line.split(',')]\n",
    "Only what changed is read again, and what is gone is removed. " * 3,
    "Größe, naïveté, 東京, \N{GRINNING FACE}",
    "long " * 600,
]


@pytest.mark.parametrize("normalize", [True, False], ids=["unit", "raw"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_graph_equals_a_plain_forward_pass(
    pooling: str, normalize: bool, make_model: MakeModel
) -> None:
    folder = make_model(pooling=pooling, normalize=normalize)
    texts = ["a b word", "cd other.", "", "a a a a b c word other . ."]
    tokenizer = load_tokenizer(str(folder))

    with open_encoder(str(folder)) as encoder:
        vectors = encoder.encode(texts)

    for text, vector in zip(texts, vectors, strict=True):
        ids = tokenizer.encode(text).ids
        expected = forward(random_weights(), ids, pooling=pooling, normalize=normalize)
        np.testing.assert_allclose(
            vector, expected, rtol=0, atol=2e-5 * max(1, abs(expected).max())
        )


@pytest.fixture(scope="module", params=["fp32", "int8"])
def minilm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_CACHE", str(tmp_path_factory.mktemp("cache")))
        with open_encoder(precision=request.param) as encoder:
            yield encoder


def test_vectors_have_length_one_and_the_models_width(minilm: Any) -> None:
    vectors = minilm.encode(TEXTS)

    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_vector_does_not_depend_on_its_neighbours(minilm: Any) -> None:
    alone = [minilm.encode([text])[0] for text in TEXTS]
    shuffled = random.Random(1)
    for _ in range(4):
        others = [text[: shuffled.randrange(80)] for text in TEXTS * 3]
        batch = [*TEXTS, *others]
        shuffled.shuffle(batch)

        vectors = dict(zip(batch, minilm.encode(batch), strict=True))

        for text, vector in zip(TEXTS, alone, strict=True):
            if minilm.precision == "int8":
                assert np.array_equal(vectors[text], vector)
            else:
                np.testing.assert_allclose(vectors[text], vector, rtol=0, atol=1e-6)


def test_many_threads_may_encode_at_once(minilm: Any) -> None:
    expected = minilm.encode(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: minilm.encode(TEXTS), range(8)))

    for vectors in results:
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-6)


def test_int8_stays_close_to_fp32() -> None:
    sentences = [" ".join(text.split()[:n]) for text in TEXTS[1:] for n in (3, 8, 30)]
    with open_encoder() as exact, open_encoder(precision="int8") as quick:
        cosines = (exact.encode(sentences) * quick.encode(sentences)).sum(axis=1)

    assert cosines.mean() > 0.99


def test_nothing_and_arrow_arrays_are_texts_too(minilm: Any) -> None:
    assert minilm.encode([]).shape == (0, 384)
    np.testing.assert_array_equal(
        minilm.encode(pa.array(TEXTS[:3], pa.large_string())), minilm.encode(TEXTS[:3])
    )


def test_a_closed_encoder_says_so(make_model: MakeModel) -> None:
    encoder = open_encoder(str(make_model()))
    encoder.close()
    encoder.close()

    with pytest.raises(ConfigError, match="open it again"):
        encoder.encode(["a"])


@pytest.mark.parametrize("texts", ["a text", [None], [3]], ids=["one-string", "null", "number"])
def test_what_is_not_a_list_of_texts_is_refused(texts: Any, make_model: MakeModel) -> None:
    with open_encoder(str(make_model())) as encoder, pytest.raises(ConfigError, match="string"):
        encoder.encode(texts)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param({"precision": "fp16"}, "must be one of", id="precision"),
        pytest.param({"threads": 0}, "at least 1", id="threads"),
    ],
)
def test_a_wrong_setting_is_refused(arguments: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        open_encoder(**arguments)


def test_the_fingerprint_follows_weights_tokenizer_pooling_and_precision(
    make_model: MakeModel,
) -> None:
    one = str(make_model(name="one"))
    others = [
        make_model(name="weights", seed=1),
        make_model(name="pooling", pooling="cls"),
        make_model(name="raw", normalize=False),
    ]
    tokenizer = make_model(name="tokenizer") / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"word"', '"sword"'))

    prints = [model_fingerprint(str(folder)) for folder in (*others, tokenizer.parent)]
    prints += [model_fingerprint(one), model_fingerprint(one, "int8")]

    assert len(set(prints)) == len(prints)
    assert model_fingerprint(one) == model_fingerprint(str(make_model(name="same")))
    assert tokenizer_fingerprint(one) != tokenizer_fingerprint(str(tokenizer.parent))


def test_a_corrupt_cached_graph_is_built_again(make_model: MakeModel, tmp_path: Path) -> None:
    folder = str(make_model())
    with open_encoder(folder) as encoder:
        expected = encoder.encode(["a word"])
    graphs = list((tmp_path / "cache").rglob("*.onnx"))
    for graph in graphs:
        graph.write_bytes(graph.read_bytes()[:100])

    with open_encoder(folder) as encoder:
        again = encoder.encode(["a word"])

    assert graphs
    np.testing.assert_array_equal(again, expected)


def test_the_default_model_is_found_in_its_package() -> None:
    assert (resolve("all-MiniLM-L6-v2") / "model.safetensors").is_file()
    assert resolve("sentence-transformers/all-MiniLM-L6-v2") == resolve("all-MiniLM-L6-v2")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        pytest.param({"model_type": "xlm-roberta"}, "xlm-roberta", id="architecture"),
        pytest.param({"position_embedding_type": "relative_key"}, "relative_key", id="positions"),
    ],
)
def test_an_unknown_kind_of_model_is_one_clear_error(
    config: Any, says: str, make_model: MakeModel
) -> None:
    folder = make_model(**config)

    with pytest.raises(ModelError, match=says):
        open_encoder(str(folder))


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(missing: str, make_model: MakeModel) -> None:
    folder = make_model()
    (folder / missing).unlink()

    with pytest.raises(ModelError, match=missing.split(".")[0]):
        open_encoder(str(folder))


@pytest.mark.parametrize("name", ["no-such-model", "", "package:no_such_package"])
def test_an_unknown_name_says_what_names_there_are(name: str) -> None:
    with pytest.raises((ModelError, MissingExtra)) as caught:
        resolve(name)

    assert len(str(caught.value)) > 40


def test_a_hub_id_without_a_network_is_a_plain_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))

    with pytest.raises((ModelError, MissingExtra), match="nobody/nothing"):
        resolve("nobody/nothing")
