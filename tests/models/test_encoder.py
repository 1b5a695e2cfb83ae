"""Vectors are a function of their text, whatever is encoded beside it and by whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.models.tiny_bert import HIDDEN, MakeModel

from penstock.errors import ConfigError, MissingExtra
from penstock.models import Encoder, amx, load_tokenizer, open_encoder, tokenizer_fingerprint

WORDS = [f"w{number}" for number in range(60)]
MINILM_TEXTS = [
    "",
    "a",
    "The cat sat on the mat.",
    "A cat was sitting on a mat.",
    "def add(first, second):\n    return first + second",
    "Return the sum of two numbers.",
    "Interest rates rose again in March, and the bank's shares fell by a tenth within a week.",
    "naïve café 東京 \N{GRINNING FACE}",
    "word " * 400,
]


@pytest.fixture(params=["fp32", "int8"])
def tiny(request: pytest.FixtureRequest, make_model: MakeModel) -> Iterator[Encoder]:
    with open_encoder(str(make_model()), request.param, threads=3) as encoder:
        yield encoder


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Encoder]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_CACHE", str(tmp_path_factory.mktemp("minilm")))
        encoders = {"fp32": open_encoder(precision="fp32"), "int8": open_encoder(precision="int8")}
    yield encoders
    for encoder in encoders.values():
        encoder.close()


def _assert_same(vectors: Any, expected: Any, precision: str) -> None:
    if precision == "int8":
        np.testing.assert_array_equal(vectors, expected)
    else:
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


texts = st.lists(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join), max_size=60)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=texts, draw=st.randoms())
def test_a_vector_does_not_depend_on_its_neighbours(
    tiny: Encoder, texts: list[str], draw: Any
) -> None:
    together = tiny.encode(texts)
    order = list(range(len(texts)))
    draw.shuffle(order)

    _assert_same(tiny.encode([texts[row] for row in order]), together[order], tiny.precision)
    for row in order[:5]:
        _assert_same(tiny.encode([texts[row]])[0], together[row], tiny.precision)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_minilm_vectors_do_not_depend_on_their_neighbours(
    minilm: dict[str, Encoder], precision: str
) -> None:
    encoder = minilm[precision]
    draw = np.random.default_rng(0)
    vocabulary = " ".join(MINILM_TEXTS).split()
    texts = [" ".join(draw.choice(vocabulary, draw.integers(1, 90))) for _ in range(60)]
    # Many of one length, so that batches of one length are of several sizes.
    texts += [" ".join(draw.choice(["cat", "mat", "sum", "bank"], 12)) for _ in range(45)]
    together = encoder.encode(texts)
    order = draw.permutation(len(texts))

    _assert_same(encoder.encode([texts[row] for row in order]), together[order], precision)
    for row in order[:12]:
        _assert_same(encoder.encode([texts[row]])[0], together[row], precision)


def test_minilm_in_int8_is_close_to_fp32(minilm: dict[str, Encoder]) -> None:
    texts = MINILM_TEXTS[1:]  # the empty one has no word to average over
    exact, quick = (minilm[precision].encode(texts) for precision in ("fp32", "int8"))

    assert (exact * quick).sum(1).min() > 0.99
    assert not np.array_equal(exact, quick)


def test_minilm_knows_what_means_the_same(minilm: dict[str, Encoder]) -> None:
    vectors = minilm["fp32"].encode(MINILM_TEXTS)
    likeness = vectors @ vectors.T

    assert likeness[2, 3] > 0.8 > 0.3 > likeness[2, 5]
    assert likeness[4, 5] > likeness[4, 2]


def test_minilm_vectors_are_those_of_sentence_transformers(minilm: dict[str, Encoder]) -> None:
    # The first numbers that sentence-transformers 6.2.0 on PyTorch 2.13.0 gives.
    expected = [0.130237, -0.015773, -0.036717, 0.057986, -0.059792, 0.033054]

    found = minilm["fp32"].encode(["The cat sat on the mat."])[0, :6]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_many_threads_may_encode_at_once(tiny: Encoder) -> None:
    texts = [" ".join(WORDS[start : start + start % 20]) for start in range(50)]
    expected = tiny.encode(texts)

    with ThreadPoolExecutor(8) as pool:
        for vectors in pool.map(tiny.encode, [texts] * 16):
            _assert_same(vectors, expected, tiny.precision)


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_the_number_of_threads_does_not_matter(make_model: MakeModel, num_threads: int) -> None:
    folder = str(make_model())
    texts = [" ".join(WORDS[:length]) for length in range(22)] * 2
    with open_encoder(folder, "int8", threads=1) as one:
        expected = one.encode(texts)

    with open_encoder(folder, "int8", threads=num_threads) as encoder:
        np.testing.assert_array_equal(encoder.encode(texts), expected)


def test_windows_do_not_matter(tiny: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(WORDS[: length % 9]) + f" w{length}" for length in range(40)]
    expected = tiny.encode(texts)
    monkeypatch.setattr("penstock.models.encoder._WINDOW_TEXTS", 7)

    _assert_same(tiny.encode(texts), expected, tiny.precision)


def test_shape_type_and_attributes(tiny: Encoder) -> None:
    vectors = tiny.encode(["w1", "w2 w3", "w1"])

    assert vectors.shape == (3, tiny.dim) == (3, HIDDEN)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert np.array_equal(vectors[0], vectors[2])
    assert tiny.max_tokens == 24


def test_nothing_makes_an_empty_matrix(tiny: Encoder) -> None:
    assert tiny.encode([]).shape == (0, HIDDEN)


def test_identical_texts_are_encoded_once(tiny: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    infer = tiny._infer

    def counting(ids: Any) -> Any:
        seen.append(len(ids))
        return infer(ids)

    monkeypatch.setattr(tiny, "_infer", counting)
    tiny.encode(["w1 w2"] * 50 + ["w2"] * 50)

    assert sum(seen) == 2


def test_long_texts_are_cut(tiny: Encoder) -> None:
    long = " ".join(WORDS[:40])
    cut = " ".join(WORDS[:22])  # and two special tokens

    _assert_same(tiny.encode([long]), tiny.encode([cut]), tiny.precision)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_arrow_arrays_are_taken(tiny: Encoder, kind: pa.DataType) -> None:
    texts = ["w1", "", "w2 w3"]
    array = pa.array(texts, kind)

    _assert_same(tiny.encode(array), tiny.encode(texts), tiny.precision)
    _assert_same(tiny.encode(array.slice(1)), tiny.encode(texts[1:]), tiny.precision)


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param("one string", id="one-string"),
        pytest.param(["w1", None], id="null"),
        pytest.param([b"w1"], id="bytes"),
        pytest.param(pa.array(["w1", None]), id="null-in-arrow"),
    ],
)
def test_what_is_no_text_is_refused(tiny: Encoder, texts: Any) -> None:
    with pytest.raises(ConfigError, match="texts"):
        tiny.encode(texts)


def test_a_closed_encoder_says_so(make_model: MakeModel) -> None:
    encoder = open_encoder(str(make_model()))
    encoder.close()
    encoder.close()

    with pytest.raises(ConfigError, match="closed"):
        encoder.encode(["w1"])


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        pytest.param({"precision": "fp64"}, "one of", id="precision"),
        pytest.param({"threads": 0}, "at least 1", id="threads"),
    ],
)
def test_wrong_settings_are_refused(
    make_model: MakeModel, settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        open_encoder(str(make_model()), **settings)


def test_an_error_in_a_thread_reaches_the_caller(
    tiny: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(ids: Any) -> Any:
        raise RuntimeError("from a thread")

    monkeypatch.setattr(tiny, "_infer", fail)

    with pytest.raises(RuntimeError, match="from a thread"):
        tiny.encode([" ".join(WORDS[:length]) for length in range(20)])


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_stops_encoding_soon(tiny: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    infer = tiny._infer

    def slow(ids: Any) -> Any:
        time.sleep(0.2)
        return infer(ids)

    monkeypatch.setattr(tiny, "_infer", slow)
    monkeypatch.setattr("penstock.models.encoder._BATCH_TOKENS", 1)
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
    begun = time.monotonic()

    with pytest.raises(KeyboardInterrupt):
        tiny.encode([f"{word} {other}" for word in WORDS[:20] for other in WORDS[:20]])
    tiny.close()
    assert time.monotonic() - begun < 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_encode(make_model: MakeModel) -> None:
    code = """
import os, sys
from penstock.models import open_encoder
encoder = open_encoder(sys.argv[1], threads=2)
texts = [" ".join(["w1"] * length) for length in range(20)] * 9
texts = [f"{text} w{number}" for number, text in enumerate(texts)]
expected = encoder.encode(texts)
child = os.fork()
if child == 0:
    os._exit(0 if abs(encoder.encode(texts) - expected).max() < 1e-6 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-c", code, str(make_model())]
    done = subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_telemetry_is_off_and_leaves_no_files(make_model: MakeModel, tmp_path: Path) -> None:
    code = (
        "import os, sys; from penstock.models import open_encoder; "
        "open_encoder(sys.argv[1]).encode(['w1']); print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {"HOME": str(home), "ORT_DISABLE_TELEMETRY": "0"}
    environment.pop("XDG_CACHE_HOME", None)
    command = [sys.executable, "-c", code, str(make_model())]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)

    assert done.stdout == "1\n"
    assert list(home.rglob("*")) == []


def test_only_one_function_imports_the_runtime() -> None:
    root = Path(sys.modules["penstock"].__file__ or "").parent
    importing = [
        file.name for file in root.rglob("*.py") if "import onnxruntime" in file.read_text()
    ]

    assert importing == ["session.py"]


def test_a_tokenizer_neither_cuts_nor_pads(make_model: MakeModel) -> None:
    tokenizer = load_tokenizer(str(make_model()))

    assert len(tokenizer.encode(" ".join(WORDS[:50])).ids) == 52
    assert len(tokenizer.encode("w1").ids) == 3


def test_a_model_may_ask_for_lower_case(make_model: MakeModel) -> None:
    plain, lower = str(make_model("plain")), str(make_model("lower", lowercase=True))
    unknown = load_tokenizer(plain).encode("nothing").ids

    assert load_tokenizer(plain).encode("Capital").ids != unknown
    assert load_tokenizer(lower).encode("Capital").ids == unknown
    assert load_tokenizer(lower).encode("W1").ids == load_tokenizer(plain).encode("w1").ids
    assert tokenizer_fingerprint(plain) != tokenizer_fingerprint(lower)


def test_bf16_is_refused_without_amx(make_model: MakeModel, monkeypatch: Any) -> None:
    monkeypatch.setattr(amx, "has_amx_bf16", lambda: False)

    with pytest.raises(ConfigError, match="AMX"):
        open_encoder(str(make_model()), "bf16")


def test_bf16_needs_the_extra(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amx, "has_amx_bf16", lambda: True)
    monkeypatch.setitem(sys.modules, "openvino", None)

    with pytest.raises(MissingExtra, match="openvino"):
        open_encoder(str(make_model()), "bf16")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("flags : fpu amx_bf16 amx_tile", True), ("flags : fpu avx512f", False), ("", False)],
)
def test_amx_is_read_from_the_processor(tmp_path: Path, flags: str, expected: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(flags)

    assert amx.has_amx_bf16(file) is expected
    assert amx.has_amx_bf16(tmp_path / "none") is False
