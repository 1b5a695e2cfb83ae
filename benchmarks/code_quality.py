"""CodeQuality against NeMo Curator's code filters: the same verdict, rule by rule.

    python benchmarks/code_quality.py --peer-python PEER [--quick]

Files are source code of this machine, whole. NeMo's filters are run by their formulas, with the
libraries that NeMo runs them with: comments by Python's tokenizer and parser (Python) and by
`comment_parser` (JavaScript, C, C++, shell), HTML's text by BeautifulSoup. Left out is its rule
about characters per token, which needs a tokenizer that is not given. Each rule is asked by
itself; "all" is the whole of them. Where the share of comments is within a tenth of a threshold,
the two ways to count (Penstock goes by the language's marks) may part; those are counted as near.

PEER is an interpreter with comment_parser and beautifulsoup4 installed.

Source: `nemo_curator/stages/text/filters/heuristic/code/code.py` of NeMo Curator.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

from _machine import peer_versions, print_machine  # type: ignore[import-not-found, unused-ignore]

_TYPES = {
    ".py": "text/x-python",
    ".js": "text/javascript",
    ".c": "text/x-c",
    ".h": "text/x-c",
    ".cpp": "text/x-c++",
    ".hpp": "text/x-c++",
    ".sh": "text/x-shellscript",
    ".html": "text/html",
}
_MIME = {"text/javascript": "application/javascript"}
_OURS = {
    "comments": ("few_comments", "many_comments"),
    "lines": ("too_few_lines", "too_many_lines"),
    "xml": ("xml",),
    "letters": ("few_letters",),
    "html": ("html_boilerplate",),
}


def main() -> None:
    options = _options()
    if options.worker:
        print(json.dumps(_peer(json.loads(Path(options.worker).read_text()))))
        return
    print_machine("pyarrow", "numba")
    versions = peer_versions(options.peer_python, "comment_parser", "beautifulsoup4")
    print(f"{'peer:':<11}" + ", ".join(f"{name} {version}" for name, version in versions.items()))
    files = _files(options)
    with tempfile.TemporaryDirectory(prefix="penstock-code-") as name:
        corpus = Path(name) / "files.json"
        corpus.write_text(json.dumps(files))
        command = [options.peer_python, __file__, "--worker", str(corpus)]
        asked = subprocess.run(command, capture_output=True, text=True)
    if asked.returncode:
        raise SystemExit(f"the peer failed:\n{asked.stderr[-2000:]}")
    theirs = json.loads(asked.stdout.splitlines()[-1])
    _compare(files, theirs, options.show)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of files")
    parser.add_argument("--quick", action="store_true", help="500 files")
    parser.add_argument("--show", type=int, default=3, help="files of another verdict to name")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter of the peer")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.files = 500 if options.quick else options.files
    return options


def _files(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Path, media type and text; as many of each type as there are, up to an equal share."""
    places = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
    places += [Path("/usr/share"), Path("/usr/include"), Path("/usr/lib")]
    found: dict[str, list[Path]] = {}
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else ():
            kind = _TYPES.get(path.suffix)
            if kind and path.is_file() and path.stat().st_size < 500_000:
                found.setdefault(kind, []).append(path)
    chosen: list[tuple[str, str, str]] = []
    for number, kind in enumerate(sorted(found, key=lambda kind: len(found[kind]))):
        paths = found[kind]
        random.Random(options.seed).shuffle(paths)
        for path in paths[: (options.files - len(chosen)) // (len(found) - number)]:
            try:
                text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
            except UnicodeDecodeError:
                continue
            if text.strip() and "\0" not in text:
                chosen.append((str(path), kind, text))
    return chosen


def _ours(files: list[tuple[str, str, str]]) -> tuple[dict[str, list[bool]], list[float], float]:
    """What each rule keeps, the share of comments, and CPU seconds of the counts."""
    import pyarrow as pa

    from penstock.decisions.code_quality import CodeQuality

    step = CodeQuality(min_chars_per_piece=None)
    ids = pa.array([f"{i:06d}" for i in range(len(files))])
    batch = pa.record_batch(
        {
            "doc_id": ids,
            "media_type": pa.array([kind for _, kind, _ in files]),
            "text": pa.array([text for _, _, text in files], pa.large_string()),
        }
    )
    step.signature(batch.slice(0, 2))
    cpu = time.process_time()
    signature = step.signature(batch)
    cpu = time.process_time() - cpu
    kept = {}
    for rule, reasons in _OURS.items():
        gone: set[str] = set()
        for reason in reasons:
            alone = _only(reason)
            rows = alone.decide(pa.chunked_array([ids]), pa.chunked_array([signature]))
            gone |= set(rows["doc_id"].to_pylist())
        kept[rule] = [f"{i:06d}" not in gone for i in range(len(files))]
    chars, comments = (signature.field(i).to_pylist() for i in (0, 3))
    return kept, [n / max(1, c) for n, c in zip(comments, chars, strict=True)], cpu


def _only(reason: str) -> Any:
    """The decision with nothing but this rule."""
    from penstock.decisions.code_quality import CodeQuality

    settings = {
        "few_comments": ("min_comments",),
        "many_comments": ("max_comments",),
        "too_few_lines": ("min_lines",),
        "too_many_lines": ("max_lines",),
        "few_letters": ("min_letters",),
        "html_boilerplate": ("min_visible", "min_visible_chars"),
    }
    names = {name for each in settings.values() for name in each} | {"min_chars_per_piece"}
    off: dict[str, Any] = dict.fromkeys(names - set(settings.get(reason, ())))
    return CodeQuality(**off, xml=reason == "xml")


def _compare(files: list[tuple[str, str, str]], theirs: dict[str, Any], show: int) -> None:
    ours, shares, cpu = _ours(files)
    size = sum(len(text.encode()) for _, _, text in files) / 1e6
    kinds = sorted({kind for _, kind, _ in files})
    counts = ", ".join(f"{sum(k == kind for _, k, _ in files):,} {kind}" for kind in kinds)
    print(f"{'files:':<11}{len(files):,}, {size:.1f} MB: {counts}")
    print(f"\n{'':<10}{'same verdict':>14}{'differ':>8}{'near':>6}{'ours drop':>11}{'theirs':>8}")
    ours["all"] = [all(column) for column in zip(*ours.values(), strict=True)]
    for rule, mine in ours.items():
        other = theirs["kept"][rule]
        wrong = [i for i, (a, b) in enumerate(zip(mine, other, strict=True)) if a != b]
        near = sum(_is_near(shares[i], theirs["comments"][i]) for i in wrong)
        print(
            f"{rule:<10}{1 - len(wrong) / len(files):>14.3%}{len(wrong):>8}{near:>6}"
            f"{mine.count(False):>11,}{other.count(False):>8,}"
        )
        for i in wrong[:show] if rule != "all" else ():
            told = f"comments {shares[i]:.3f} and {theirs['comments'][i]}"
            print(f"    {files[i][0][-70:]}  {told if rule == 'comments' else ''}")
    print(f"\nours {size / cpu:.0f} MB/s, theirs {size / theirs['cpu_s']:.2f} MB/s, by CPU time")


def _is_near(ours: float, theirs: float | None) -> bool:
    return any(
        abs(value - threshold) <= 0.1 * threshold
        for threshold in (0.01, 0.85)
        for value in (ours, theirs)
        if value is not None
    )


# NeMo's formulas


def _peer(files: list[list[str]]) -> dict[str, Any]:
    import warnings

    warnings.simplefilter("ignore")
    kept: dict[str, list[bool]] = {name: [] for name in [*_OURS, "all"]}
    shares = []
    cpu = time.process_time()
    for _, kind, text in files:
        share = None if kind == "text/html" else _comment_share(kind, text)
        shares.append(share)
        letters = sum(map(str.isalpha, text))
        told = {
            "comments": share is None or 0.01 <= share <= 0.85,
            "lines": 10 <= text.count("\n") + 1 <= 20_000,
            "xml": "<?xml version=" not in text[:100],
            "letters": letters / len(text) >= 0.25,
            "html": kind != "text/html" or _visible_share(text) >= 0.2,
        }
        for name, keeps in told.items():
            kept[name].append(keeps)
        kept["all"].append(all(told.values()))
    return {"kept": kept, "comments": shares, "cpu_s": time.process_time() - cpu}


def _comment_share(kind: str, text: str) -> float:
    if kind == "text/x-python":
        return _python_share(text)
    from comment_parser import comment_parser  # type: ignore[import-not-found, unused-ignore]

    try:
        found = comment_parser.extract_comments_from_str(text, mime=_MIME.get(kind, kind))
    except Exception:
        return 9999.0
    return len(" ".join(comment.text() for comment in found)) / len(text)


def _python_share(text: str) -> float:
    import ast
    import io
    import tokenize

    try:
        nodes = ast.walk(ast.parse(text))
        kinds = (ast.ClassDef, ast.FunctionDef, ast.Module)
        told = [ast.get_docstring(node) for node in nodes if isinstance(node, kinds)]
        docstrings = "\n".join(each for each in told if each)
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        only = [(kind, value) for kind, value, *_ in tokens if kind == tokenize.COMMENT]
        comments = tokenize.untokenize(only)
    except Exception:
        return 0.0
    return (len(comments) + len(docstrings)) / len(text)


def _visible_share(text: str) -> float:
    from bs4 import BeautifulSoup  # type: ignore[import-not-found, unused-ignore]

    soup = BeautifulSoup(text, features="html.parser")
    for part in soup(["script", "style"]):
        part.extract()
    shown = soup.get_text()
    return 0.0 if len(shown) < 100 else len(shown) / len(text)


if __name__ == "__main__":
    main()
