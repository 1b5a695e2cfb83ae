"""Score texts against a query by reading both at once: slower than vectors, and better.

A batch holds pairs of exactly one length in tokens, as in `encoder`: nothing is
padded, so a text's score does not depend on the other texts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from penstock.cores import num_cores
from penstock.errors import ConfigError, ModelError
from penstock.models.encoder import batches_by_length
from penstock.models.folder import ModelFolder, read_folder, resolve
from penstock.models.graph import INPUT, Graph, Weights, append_layers, finish
from penstock.models.session import open_session
from penstock.models.tokenizer import tokenizer_of

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_SEGMENTS = "token_type_ids"
_MASK = "attention_mask"
_OUTPUT = "logits"
_KIND = "-pairs-1"  # the number goes up when a graph from the same folder may score otherwise


class CrossEncoder:
    """A model that reads a query and a text together; made for `Store.search(rerank=...)`.

    Args:
        path: A local folder as sentence-transformers' `CrossEncoder` saves it, with one
            label: `config.json`, `tokenizer.json`, and `model.onnx`, `onnx/model.onnx` or,
            for the BERT family, `model.safetensors`. Also what `Embed.model` takes.
        precision: `fp32`, or `int8`, about twice as fast and slightly less exact.
        threads: How many threads score; by default as many as there are cores.

    Raises:
        ModelError: No such model, one with several labels, or one that cannot be built.
        ConfigError: A setting is wrong.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        precision: Literal["fp32", "int8"] = "fp32",
        threads: int | None = None,
    ) -> None:
        if precision not in ("fp32", "int8"):
            raise ConfigError("precision", precision, "must be fp32 or int8")
        if threads is not None and threads < 1:
            raise ConfigError("threads", threads, "must be at least 1")
        self.name = os.fspath(path)
        folder = read_folder(resolve(self.name))
        _check_labels(folder)
        self.max_tokens = folder.max_tokens
        self._threads = threads or num_cores()
        self._tokenizer = tokenizer_of(folder)
        # Both texts are cut, the longer one first, as sentence-transformers cuts them.
        self._tokenizer.enable_truncation(folder.max_tokens)
        self._session = open_session(folder, precision, pair_graph, _KIND)
        inputs = {each.name: each.type for each in self._session.get_inputs()}
        self._inputs = list(inputs)
        expected = dict.fromkeys((INPUT, _MASK, _SEGMENTS), "tensor(int64)")
        if not inputs.items() <= expected.items() or INPUT not in inputs:
            raise ModelError(
                str(folder.weights),
                f"expected the inputs {', '.join(expected)} of int64, found {inputs}: export "
                "the plain model for sequence classification",
            )

    def __call__(self, query: str, texts: Sequence[str]) -> F64:
        """How well each text answers the query: larger is better.

        Args:
            query: Plain text.
            texts: Any number; with the query, what goes beyond `max_tokens` is cut.

        Returns:
            (num_texts,) float64: the model's logit, to which sentence-transformers may
            apply a sigmoid, which orders texts the same.

        Raises:
            ConfigError: Something is no string.

        Guarantees: A text's score does not depend on the other texts, on their order or
            on threads, within a millionth of its size.
        """
        if isinstance(texts, str):
            raise ConfigError("texts", texts, "must be a sequence of strings, not one string")
        for what, text in (("query", query), *((f"texts[{i}]", t) for i, t in enumerate(texts))):
            if not isinstance(text, str):
                raise ConfigError(what, text, "must be a string")
        scores = np.empty(len(texts), np.float64)
        if not len(texts):
            return scores
        encoded = self._tokenizer.encode_batch([(query, text) for text in texts])
        tokens = [each.ids or [0] for each in encoded]
        segments = [each.type_ids or [0] for each in encoded]

        def score(rows: list[int]) -> None:
            ids = np.array([tokens[row] for row in rows], np.int64)
            kinds = np.array([segments[row] for row in rows], np.int64)
            scores[rows] = self._score(ids, kinds)

        batches = list(batches_by_length(tokens))
        if self._threads == 1 or len(batches) == 1:
            for rows in batches:
                score(rows)
        else:
            with ThreadPoolExecutor(self._threads, "penstock-rerank") as pool:
                list(pool.map(score, batches))
        return scores

    def _score(self, ids: I64, segments: I64) -> F64:
        known = {INPUT: ids, _SEGMENTS: segments, _MASK: np.ones_like(ids)}
        logits = self._session.run(None, {name: known[name] for name in self._inputs})[0]
        if logits.shape not in ((len(ids), 1), (len(ids),)):
            raise ModelError(
                self.name,
                f"expected one number a text, found an output of shape {logits.shape} for "
                f"{len(ids)} texts: use a model with one label",
            )
        scores: F64 = logits.reshape(-1).astype(np.float64)
        return scores


def pair_graph(folder: ModelFolder) -> Any:
    """The graph from a pair's tokens to its logit, as an `onnx.ModelProto` in fp32.

    Raises:
        ModelError: The folder's own graph is broken, or there is none and it is no
            BERT-family model for sequence classification.
    """
    if folder.weights.suffix != ".safetensors":
        import onnx

        try:
            return onnx.load(os.fspath(folder.weights))
        except Exception as err:  # protobuf's own errors, and those of external data
            raise ModelError(
                str(folder.weights), f"expected an ONNX graph, found {err}: fetch it again"
            ) from err
    graph = Graph()
    weights = Weights(folder)
    segments = _SEGMENTS if int(folder.config.get("type_vocab_size", 0)) > 1 else None
    tokens = append_layers(graph, folder, weights, segments)
    first = graph.add("Gather", tokens, graph.constant(0, np.int64), axis=1)
    pooled = graph.add("Tanh", _linear(graph, first, *weights.dense("pooler.dense")))
    logits = _linear(graph, pooled, *weights.dense("classifier"))
    graph.add("Identity", logits, output=_OUTPUT)
    inputs = [INPUT] if segments is None else [INPUT, segments]
    return finish(graph, inputs, _OUTPUT, 1)


def _linear(graph: Graph, values: str, weight: Any, bias: Any) -> str:
    # Not MatMul: `quantize` would take it for one of the layers', whose rows are tokens.
    return graph.add("Gemm", values, graph.constant(weight), graph.constant(bias), transB=1)


def _check_labels(folder: ModelFolder) -> None:
    labels = folder.config.get("id2label")
    # A config that names none means two, by the convention of transformers.
    count = len(labels) if labels is not None else int(folder.config.get("num_labels", 2))
    if count != 1:
        raise ModelError(
            str(folder.path),
            f"expected a cross-encoder with one label in config.json (id2label), found {count}: "
            "a re-ranker gives one score, so use a model trained as one",
        )
