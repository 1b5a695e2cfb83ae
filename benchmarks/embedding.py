"""Time embedding against sentence-transformers on PyTorch and FastEmbed's scheduling.

    python benchmarks/embedding.py --peer-python /path/to/python-with-sentence-transformers

All contenders embed the same texts with the same MiniLM weights on the same number
of threads: sentences, paragraphs and functions, a third each, of 5 to 250 tokens
from Python's standard library. Each round runs every contender once; the model is
open and warm. They are

    sentence-transformers      PyTorch in fp32 with the library's defaults (batches of 32,
                               sorted by length), in a process of its own that times itself
    FastEmbed's scheduling     batches of 256 in arrival order, padded to the longest, one ONNX
                               Runtime session with all threads inside, and ONNX Runtime's
                               dynamic quantisation (signed, per channel). FastEmbed fetches
                               its models from a hub, so its documented scheduling is rebuilt
                               here, and given the same weights
    penstock                   `Encoder.encode`, in fp32 and int8

Cosines are those to the vectors of sentence-transformers. With `--beir` also nDCG@10
of exact vector search over a folder in BEIR's layout, in fp32 and int8.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _machine import peer_versions, print_machine

from penstock.cores import num_cores
from penstock.models import DEFAULT_MODEL, load_tokenizer, open_encoder, resolve
from penstock.models.folder import read_folder
from penstock.models.graph import INPUT, build_graph
from penstock.models.session import import_onnxruntime

Seconds = tuple[float, float]  # elapsed, and of processor time
F32 = npt.NDArray[np.float32]
_MEASURES = ("best", "median", "CPU time")
_FEWEST_TOKENS, _MOST_TOKENS = 5, 250

_PEER = """
import json, sys, time
import torch
from sentence_transformers import SentenceTransformer
import numpy as np

folder, texts, out, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
texts = json.load(open(texts))
model = SentenceTransformer(folder, device="cpu")
np.save(out, model.encode(texts, show_progress_bar=False))
for line in iter(sys.stdin.readline, ""):
    wall, cpu = time.perf_counter(), time.process_time()
    model.encode(texts, show_progress_bar=False)
    print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer-python", default=sys.executable, help="has sentence-transformers")
    parser.add_argument("--num-texts", type=int, default=900)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--beir", type=Path, action="append", default=[], help="BEIR folder")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    print_machine("onnxruntime", "tokenizers", "numpy")
    peer = peer_versions(options.peer_python, "sentence-transformers", "torch", "transformers")
    print("peer:", ", ".join(f"{name} {version}" for name, version in peer.items()))
    texts = _texts(options.num_texts)

    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        contenders: dict[str, Callable[[], Seconds]] = {}
        vectors: dict[str, F32] = {}
        reference = None
        if "sentence-transformers" in peer:
            reference, contenders["sentence-transformers fp32"] = stack.enter_context(
                _peer(options.peer_python, texts, folder)
            )
        else:
            print("sentence-transformers is not installed there: give --peer-python")
        schedule = _fastembed_schedule(folder)
        contenders["FastEmbed's scheduling int8"] = _timed(schedule, texts)
        vectors["FastEmbed's scheduling int8"] = schedule(texts)
        for precision in ("fp32", "int8"):
            encoder = stack.enter_context(open_encoder(DEFAULT_MODEL, precision))
            contenders[f"penstock {precision}"] = _timed(encoder.encode, texts)
            vectors[f"penstock {precision}"] = encoder.encode(texts)
        times: dict[str, list[Seconds]] = {contender: [] for contender in contenders}
        for _ in range(options.rounds):
            for contender, run in contenders.items():
                times[contender].append(run())
    figures = _report(times, vectors, reference, len(texts))
    for beir in options.beir:
        figures |= _retrieval(beir)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _texts(num_texts: int) -> list[str]:
    """The same texts on every run of one Python: a third each of three kinds, shuffled."""
    kinds: dict[str, set[str]] = {"sentence": set(), "paragraph": set(), "function": set()}
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        source = file.read_text(encoding="utf-8", errors="replace")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                kinds["function"].add(ast.get_source_segment(source, node) or "")
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                    kinds["paragraph"].add(paragraph)
                    kinds["sentence"].update(re.split(r"(?<=[.!?])\s+", paragraph))
    tokenizer, draw = load_tokenizer(DEFAULT_MODEL), random.Random(0)
    chosen: dict[str, int] = {}
    for position, kind in enumerate(kinds.values()):
        candidates = sorted(kind - chosen.keys())
        draw.shuffle(candidates)
        for text in candidates:
            if len(chosen) >= num_texts * (position + 1) // len(kinds):
                break
            num_tokens = len(tokenizer.encode(text).ids)
            if _FEWEST_TOKENS <= num_tokens <= _MOST_TOKENS:
                chosen[text] = num_tokens
    lengths = list(chosen.values())
    print(
        f"{len(chosen)} texts, {sum(lengths)} tokens: "
        f"shortest {min(lengths)}, median {statistics.median(lengths):.0f}, longest {max(lengths)}"
    )
    texts = list(chosen)
    draw.shuffle(texts)
    return texts


@contextlib.contextmanager
def _peer(
    python: str, texts: list[str], folder: Path
) -> Iterator[tuple[F32, Callable[[], Seconds]]]:
    """The peer's vectors, and a function that lets it embed once and says how long it took."""
    texts_file, vectors_file = folder / "texts.json", folder / "peer.npy"
    texts_file.write_text(json.dumps(texts), encoding="utf-8")
    arguments = [str(resolve(DEFAULT_MODEL)), str(texts_file), str(vectors_file), str(num_cores())]
    process = subprocess.Popen(
        [python, "-c", _PEER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    requests, answers = process.stdin, process.stdout

    def run() -> Seconds:
        requests.write("\n")
        requests.flush()
        answer = answers.readline()
        if not answer:
            raise SystemExit(f"{python} ended early: run sentence-transformers there by hand")
        elapsed, processor = json.loads(answer)
        return float(elapsed), float(processor)

    try:
        run()  # warm
        yield np.load(vectors_file), run
    finally:
        with contextlib.suppress(BrokenPipeError):
            requests.close()
        process.wait()


def _timed(encode: Callable[[list[str]], F32], texts: list[str]) -> Callable[[], Seconds]:
    def run() -> Seconds:
        begun = time.perf_counter(), time.process_time()
        encode(texts)
        return time.perf_counter() - begun[0], time.process_time() - begun[1]

    return run


def _fastembed_schedule(folder: Path) -> Callable[[list[str]], F32]:
    """Embed as FastEmbed does: arrival order, padded batches of 256, threads in the session."""
    import onnx

    ort = import_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain, quantized = str(folder / "masked.onnx"), str(folder / "masked-int8.onnx")
    model = read_folder(resolve(DEFAULT_MODEL))
    onnx.save(_masked(build_graph(model)), plain)
    quantize_dynamic(plain, quantized, weight_type=QuantType.QInt8, per_channel=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_cores()
    session = ort.InferenceSession(quantized, options, providers=["CPUExecutionProvider"])
    tokenizer = load_tokenizer(DEFAULT_MODEL)
    tokenizer.enable_truncation(model.max_tokens)
    tokenizer.enable_padding()

    def encode(texts: list[str]) -> F32:
        parts = []
        for start in range(0, len(texts), 256):
            encodings = tokenizer.encode_batch(texts[start : start + 256])
            ids = np.array([encoding.ids for encoding in encodings], np.int64)
            mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
            parts.append(session.run(None, {INPUT: ids, "attention_mask": mask})[0])
        return np.concatenate(parts)

    return encode


def _masked(model: Any) -> Any:
    """Penstock's graph with the attention mask that padded batches need."""
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(value), name))
        return name

    graph = model.graph
    graph.input.append(
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["texts", "length"])
    )
    ones = next(node for node in graph.node if node.op_type == "ConstantOfShape").output[0]
    pooling = next(node for node in graph.node if node.input and node.input[0] == ones)
    mean = next(node for node in graph.node if node.input and node.input[0] == pooling.output[0])
    node = helper.make_node
    added = [
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", constant("axis_1", [1])], ["mask_row"]),
        node("Unsqueeze", ["mask", constant("axes_1_2", [1, 2])], ["mask_heads"]),
        node("Sub", ["mask_heads", constant("one", np.float32(1))], ["mask_minus_one"]),
        node("Mul", ["mask_minus_one", constant("large", np.float32(1e9))], ["mask_bias"]),
        node("ReduceSum", ["mask_row", constant("axis_2", [2])], ["mask_length"], keepdims=1),
    ]
    for index, known in enumerate(graph.node):
        if known.op_type == "Softmax":
            added.append(node("Add", [known.input[0], "mask_bias"], [f"masked_{index}"]))
            known.input[0] = f"masked_{index}"
    pooling.input[0], mean.input[1] = "mask_row", "mask_length"
    ordered = _in_order([*added, *graph.node], [INPUT, "attention_mask"], graph.initializer)
    del graph.node[:]
    graph.node.extend(ordered)
    return model


def _in_order(nodes: list[Any], inputs: list[str], constants: Any) -> list[Any]:
    """Nodes after what they read."""
    known = {*inputs, *(constant.name for constant in constants)}
    ordered: list[Any] = []
    while nodes:
        ready = [node for node in nodes if known.issuperset(node.input)]
        known.update(name for node in ready for name in node.output)
        nodes = [node for node in nodes if not known.issuperset(node.output)]
        ordered.extend(ready)
    return ordered


def _report(
    times: dict[str, list[Seconds]], vectors: dict[str, F32], reference: F32 | None, num_texts: int
) -> dict[str, float]:
    figures: dict[str, float] = {}
    print(f"\n{'texts per second':<28}    best  median  per CPU second  cosine mean      min")
    for contender, seconds in times.items():
        rates = [num_texts / time for time in _times(seconds)]
        line = f"{contender:<28} {rates[0]:7.1f} {rates[1]:7.1f} {rates[2]:15.1f}"
        for measure, rate in zip(_MEASURES, rates, strict=True):
            figures[f"{contender}, texts/s, {measure}"] = rate
        if reference is not None and contender in vectors:
            cosine = np.sum(vectors[contender] * reference, axis=1)
            line += f"  {cosine.mean():11.5f}  {cosine.min():7.5f}"
            figures[f"{contender}, cosine min"] = float(cosine.min())
        print(line)
    print()
    for ours, peer in [
        ("penstock fp32", "sentence-transformers fp32"),
        ("penstock int8", "sentence-transformers fp32"),
        ("penstock int8", "FastEmbed's scheduling int8"),
    ]:
        if peer in times:
            ratios = [
                theirs / mine
                for theirs, mine in zip(_times(times[peer]), _times(times[ours]), strict=True)
            ]
            named = list(zip(_MEASURES, ratios, strict=True))
            print(f"{ours} over {peer}:", ", ".join(f"{r:.2f}x ({m})" for m, r in named))
            figures |= {f"{ours} over {peer}, {m}": r for m, r in named}
    return figures


def _times(seconds: list[Seconds]) -> tuple[float, float, float]:
    """Best and median elapsed time, and the least processor time."""
    elapsed = [taken for taken, _ in seconds]
    return min(elapsed), statistics.median(elapsed), min(processor for _, processor in seconds)


def _retrieval(folder: Path) -> dict[str, float]:
    """nDCG@10 of exact vector search in both precisions, printed."""
    documents = _lines(folder / "corpus.jsonl")
    texts = {d["_id"]: f"{d.get('title') or ''} {d.get('text') or ''}".strip() for d in documents}
    relevant: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, score = line.split("\t")
        relevant.setdefault(query, {})[document] = int(score)
    queries = {q["_id"]: q["text"] for q in _lines(folder / "queries.jsonl")}
    queries = {name: text for name, text in queries.items() if name in relevant}
    names, found = list(texts), {}
    for precision in ("fp32", "int8"):
        with open_encoder(DEFAULT_MODEL, precision) as encoder:
            scores = encoder.encode(list(queries.values())) @ encoder.encode(list(texts.values())).T
        ranked = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        gains = [
            _ndcg([relevant[query].get(names[row], 0) for row in rows], [*relevant[query].values()])
            for query, rows in zip(queries, ranked, strict=True)
        ]
        found[precision] = statistics.mean(gains)
    change = found["int8"] / found["fp32"] - 1
    print(
        f"\n{len(texts)} documents, {len(queries)} queries: nDCG@10 {found['fp32']:.4f} in fp32, "
        f"{found['int8']:.4f} in int8 ({change:+.2%})"
    )
    label = f"nDCG@10 of {len(texts)} documents"
    return {f"{label}, fp32": found["fp32"], f"{label}, int8": found["int8"]}


def _ndcg(gains: list[int], relevant: list[int]) -> float:
    def discounted(values: list[int]) -> float:
        return float(sum(v / np.log2(rank + 2) for rank, v in enumerate(values[:10])))

    return discounted(gains) / discounted(sorted(relevant, reverse=True))


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
