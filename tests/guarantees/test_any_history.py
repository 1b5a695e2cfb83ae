"""Whatever happened before, a published store equals what a fresh build gives: random histories.

A machine of Hypothesis edits a folder and a flow, builds, interrupts, fails and
repairs, and after every run compares the store with a fresh one. More of it:
``pytest tests/guarantees --hypothesis-profile=nightly``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.guarantees.stores import Contents, assert_same, read_all, read_run
from tests.models.tiny_bert import random_weights, write_model
from tests.tokens.tokenizers_json import END, byte_tokenizer

import penstock as ps
from penstock.engine import Cancel
from penstock.errors import QueryError
from penstock.store.forgotten import add_forgotten

pytestmark = pytest.mark.slow

NIGHTLY = settings.get_current_profile_name() == "nightly"

# Few names and few texts, so that duplicates, swaps and returns happen often.
NAMES = ["a.md", "b.md", "sub/c.txt", "sub/d.py", "e.jsonl", "sub/f.jsonl"]
_LONG = "# w1\n\n" + "\n\n".join(f"## w{n}\n\nw{n} w{n + 1} w5 w6 w{n}." for n in range(2, 14))
TEXTS = [
    b"",
    b"w1 w2 w3\n",
    b"w1 w2 w3\r\n",
    b"w3 w2 w1\n",
    b"# w1\n\nw1 w2 w3 w4 w5 w6 w7 w8 w9\n\n## Part\n\nw1 w2 w3\n",
    b"# w1\n\nw1 w2 w3 w4 w5 w6 w7 w8 w9 w10\n\n## Part\n\nw1 w2 w3\n",
    b"Capital w1 w2 w13\nCapital w1 w2 w13\nw7\n",
    b"\x00\x01\x02 binary \x00",
    "w5 w6 länger: ä, ö, ü.\n".encode(),
    "w5 w6 Caf\xe9\n".encode("latin-1"),
    _LONG.encode(),
    _LONG.replace("w7", "w8").encode(),
    b'{"_id": "one", "text": "w1 w2 w3"}\n{"_id": "two", "text": "w5 w6", "title": "Part"}\n',
    b'{"_id": "two", "text": "w1 w2 w3"}\n{"_id": "one", "text": "w1 w2 w4"}\n{"_id": "one"}\n',
    b'{"_id": "three", "text": "w9 w8 w7", "num_bytes": 30}\nnot json\n',
]


def head(doc: dict[str, Any]) -> dict[str, Any]:
    """The document's beginning only."""
    return {"text": doc["text"][:20]}


def count(doc: dict[str, Any]) -> dict[str, Any]:
    """The number of its words, as metadata."""
    return {"metadata": {**doc["metadata"], "words": len(doc["text"].split())}}


def no_parts(doc: dict[str, Any]) -> bool:
    """Whether it is of one piece."""
    return "Part" not in doc["text"]


def fails_at_times(doc: dict[str, Any]) -> dict[str, Any]:
    """Nothing, or an error for as long as the environment says so."""
    if "w13" in doc["text"] and os.environ.get("PENSTOCK_TEST_FAIL"):
        raise ValueError("a step that fails at times")
    return {}


def gopher(min_words: int) -> ps.GopherQuality:
    """Only the rule of length."""
    return ps.GopherQuality(
        min_words=min_words,
        min_mean_word_chars=None,
        min_letter_words=None,
        min_stop_words=None,
        max_symbols_per_word=None,
    )


NORMALIZE, CUT = ps.Normalize(), ps.Chunk(max_tokens=16, overlap_tokens=0)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A flow of which every part can change by itself. Models are named by letters."""

    source: str = "files"
    normalize: ps.Normalize | None = NORMALIZE
    shape: Callable[[Any], Any] | None = None
    fails: bool = False
    keep: bool = False
    quality: int | None = None
    pieces: Any = None
    exact: bool = True
    near: ps.MinHashDedup | None = None
    limit: Any = None
    decisions_first: bool = False
    cut: ps.Chunk | None = CUT
    model: str | None = "A"
    vectors: ps.SemanticDedup | None = None
    language: str = "english"
    tokens: ps.Tokenize | None = None

    def flow(self, tree: Path, models: dict[str, Path]) -> ps.Flow:
        """The flow over a folder."""
        shapes = [
            self.normalize,
            None if self.shape is None else ps.Map(self.shape),
            ps.Map(fails_at_times) if self.fails else None,
        ]
        decisions = [
            ps.Keep(no_parts, rule="no_parts") if self.keep else None,
            None if self.quality is None else gopher(self.quality),
            self.pieces,
            ps.ExactDedup() if self.exact else None,
            self.near,
            self.limit,
        ]
        # What cuts must see the text as the last document step leaves it.
        first = self.decisions_first and getattr(self.pieces, "cut_by", None) is None
        steps = [*decisions, *shapes] if first else [*shapes, *decisions]
        if self.cut is not None:
            steps.append(self.cut)
            if self.model is not None:
                steps += [ps.Embed(model=str(models[self.model])), self.vectors]
        if self.tokens is not None:
            steps.append(self.tokens)
        source = ps.files(tree) if self.source == "files" else ps.jsonl(tree / "**/*.jsonl")
        return ps.Flow(
            source=source,
            steps=[step for step in steps if step is not None],
            index=ps.IndexSettings(language=self.language),
        )


CHOICES: dict[str, list[Any]] = {
    "source": ["files", "jsonl"],
    "normalize": [None, NORMALIZE, ps.Normalize(line_ends=False)],
    "shape": [None, head, count],
    "fails": [False, True],
    "keep": [False, True],
    "quality": [None, 3, 5],
    "pieces": [
        None,
        ps.ParagraphDedup(),
        ps.ParagraphDedup(max_share=0.9),
        ps.LineDedup(max_documents=1),
        ps.SubstringDedup(min_tokens=4, window=2),
        ps.ParagraphDedup(max_share=0.9, action="cut"),
        ps.LineDedup(max_documents=1, max_share=1.0, action="cut"),
        ps.SubstringDedup(min_tokens=3, window=1, max_share=0.9, action="cut"),
    ],
    "exact": [False, True],
    "near": [
        None,
        ps.MinHashDedup(threshold=0.5, shingle=2),
        ps.MinHashDedup(threshold=0.9, shingle=2),
        ps.MinHashDedup(threshold=0.5, shingle=2, seed=1),
        ps.MinHashDedup(threshold=0.5, shingle=2, keep="longest", verify="jaccard"),
        ps.MinHashDedup(threshold=0.5, shingle=2, keep="max(media_type)"),
    ],
    "limit": [None, ps.Limit(max_documents=3), ps.Sample(share=0.5), ps.Sample(share=0.8)],
    "decisions_first": [False, True],
    "cut": [
        None,
        ps.Chunk(max_tokens=16, overlap_tokens=0),
        ps.Chunk(max_tokens=9, overlap_tokens=3),
    ],
    "model": [None, "A", "B"],
    "vectors": [None, ps.SemanticDedup(), ps.SemanticDedup(eps=0.3, keep="hardest")],
    "language": ["english", "none"],
    "tokens": [
        None,
        ps.Tokenize(tokenizer=byte_tokenizer()),
        ps.Tokenize(tokenizer=byte_tokenizer(), end_of_document=END),
    ],
}
_CHANGES = st.sampled_from([(name, value) for name in CHOICES for value in CHOICES[name]])
_NAMES = st.sampled_from(NAMES)

_POINTS = [
    "documents.Documents.flush",
    "documents.Documents.save",
    "documents.Documents.finish",
    "run.decide",
    "run.write_verdicts",
    "tokens.Tokens.prepare",
    "tokens.Tokens.flush",
    "tokens.Tokens.finish",
    "chunks.Chunks.prepare",
    "chunks.Chunks.flush",
    "chunks.Chunks.finish",
    "index.update_index",
    "run.save_checkpoint",
    "run.write_edits",
    "run.flush",
    "run.publish",
]
_PHASES = ["documents.Documents", "tokens.Tokens", "chunks.Chunks"]


class BrokenOffError(Exception):
    """What ends a run in its middle."""


class Histories(RuleBasedStateMachine):
    """A folder, a flow and a store, and what was published of them."""

    models: dict[str, Path]
    fresh: dict[Any, Contents]
    """What a fresh build gave, by folder's content and flow: known ones are not built again."""
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.root = self.models["A"].parent / "world"
        shutil.rmtree(self.root, ignore_errors=True)
        self.tree, self.store = self.root / "tree", self.root / "store"
        (self.tree / "sub").mkdir(parents=True)
        # Always there: files that match nothing are a wrong source.
        (self.tree / "z.jsonl").write_text('{"_id": "last", "text": "w8 w9"}\n')
        self.recipe = Recipe()
        self.published: dict[str, Contents] = {}
        self.unseen = False
        self.forgotten: set[str] = set()

    @initialize(texts=st.lists(st.sampled_from(TEXTS), min_size=len(NAMES), max_size=len(NAMES)))
    def begin(self, texts: list[bytes]) -> None:
        for name, text in zip(NAMES, texts, strict=True):
            (self.tree / name).write_bytes(text)

    @rule(name=_NAMES, text=st.sampled_from(TEXTS))
    def write(self, name: str, text: bytes) -> None:
        (self.tree / name).write_bytes(text)

    @rule(name=_NAMES)
    def delete(self, name: str) -> None:
        (self.tree / name).unlink(missing_ok=True)

    @rule(name=_NAMES, other=_NAMES)
    def rename(self, name: str, other: str) -> None:
        with suppress(FileNotFoundError):
            (self.tree / name).replace(self.tree / other)

    @rule(name=_NAMES)
    def touch(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.utime(self.tree / name)

    @rule(name=_NAMES, other=_NAMES)
    def swap(self, name: str, other: str) -> None:
        one, two = self.tree / name, self.tree / other
        if one.exists() and two.exists():
            first, second = one.read_bytes(), two.read_bytes()
            one.write_bytes(second)
            two.write_bytes(first)

    @rule(name=_NAMES)
    def change_with_the_same_size_and_time(self, name: str) -> None:
        path = self.tree / name
        if path.exists():
            status = path.stat()
            path.write_bytes(path.read_bytes().swapcase())
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            self.unseen = True

    @rule(change=_CHANGES)
    def change_the_flow(self, change: tuple[str, Any]) -> None:
        self.recipe = replace(self.recipe, **{change[0]: change[1]})

    @rule(first=_CHANGES, second=_CHANGES)
    def change_the_flow_twice(self, first: tuple[str, Any], second: tuple[str, Any]) -> None:
        self.change_the_flow(first)
        self.change_the_flow(second)

    @rule(small=st.booleans())
    def build(self, small: bool) -> None:
        with _in_small_parts(small):
            report = self.flow().run(self.store, verify=self.unseen)
        self.unseen = False
        found = read_all(self.store)
        assert_same(found, self.expected())
        self.published[report.run] = found

    @rule(small=st.booleans())
    def build_again_without_a_change(self, small: bool) -> None:
        self.build(small)
        with _in_small_parts(small):
            counts = self.flow().run(self.store).counts
        tells = (counts.documents_new, counts.documents_changed, counts.documents_removed)
        more = (counts.chunks_cut, counts.chunks_removed, counts.documents_tokenized)
        assert (*tells, *more) == (0, 0, 0, 0, 0, 0)
        assert_same(read_all(self.store), self.expected())

    @rule(
        point=st.sampled_from(_POINTS),
        after=st.booleans(),
        nth=st.integers(0, 3),
        small=st.booleans(),
    )
    def break_off(self, point: str, after: bool, nth: int, small: bool) -> None:
        last = read_all(self.store) if self.published else None
        with _in_small_parts(small), _broken_off(point, nth, after=after):
            try:
                run = self.flow().run(self.store, verify=self.unseen).run
            except BrokenOffError:
                run = ""
        if run or (point == "run.publish" and after and not nth):
            self.unseen = False
            self.published[ps.Store.open(self.store).manifest.run] = self.expected()
            assert_same(read_all(self.store), self.expected())
        elif last is not None:
            assert_same(read_all(self.store), last)

    @rule(phase=st.sampled_from(_PHASES), nth=st.integers(0, 3))
    def press_ctrl_c(self, phase: str, nth: int) -> None:
        with _in_small_parts(True), _ctrl_c(phase, nth), suppress(KeyboardInterrupt):
            run = self.flow().run(self.store, verify=self.unseen).run
            self.unseen = False
            self.published[run] = self.expected()

    @precondition(lambda self: self.recipe.fails)
    @rule(small=st.booleans())
    def build_while_a_step_fails(self, small: bool) -> None:
        with pytest.MonkeyPatch.context() as patch, _in_small_parts(small):
            patch.setenv("PENSTOCK_TEST_FAIL", "1")
            report = self.flow().run(self.store, verify=self.unseen)
        self.unseen = False
        assert all(s.rows_in == s.kept + s.dropped + s.failed for s in report.funnel)
        self.published[report.run] = read_all(self.store)

    @precondition(lambda self: self.published)
    @rule(which=st.integers(0, 1000))
    def look_at_an_earlier_run(self, which: int) -> None:
        run = list(self.published)[which % len(self.published)]
        assert_same(read_run(ps.Store.open(self.store, run)), self.published[run])

    @precondition(lambda self: self.published)
    @rule(keep=st.integers(1, 3))
    def collect_garbage(self, keep: int) -> None:
        before = read_all(self.store)
        dropped = ps.Store.open(self.store).gc(keep=keep).dropped
        names = [manifest.run for manifest in ps.Store.open(self.store).runs()]
        assert set(names).isdisjoint(dropped)
        assert_same(read_all(self.store), before)
        self.published = {run: it for run, it in self.published.items() if run in names}
        self.published[names[-1]] = before  # where something was forgotten, it publishes

    @precondition(lambda self: self.published)
    @rule(which=st.integers(0, 1000))
    def roll_back(self, which: int) -> None:
        run = list(self.published)[which % len(self.published)]
        made = ps.Store.open(self.store).rollback(run).manifest.run
        self.published[made] = self.published[run]
        self.unseen = True  # what it knows of a file may be of another one of that size and time
        assert_same(read_all(self.store), self.published[made])

    @precondition(lambda self: self.published)
    @rule(name=st.sampled_from([*NAMES, "one", "two"]))
    def forget(self, name: str) -> None:
        with suppress(QueryError):  # no run has it
            ps.Store.open(self.store).forget(name)
            self.forgotten.add(name)
            self.published[ps.Store.open(self.store).manifest.run] = read_all(self.store)

    @precondition(lambda self: self.forgotten)
    @rule()
    def restore(self) -> None:
        name = min(self.forgotten)
        ps.Store.open(self.store).restore(name)
        self.forgotten.remove(name)

    @invariant()
    def counted(self) -> None:
        Histories.steps += 1

    def flow(self) -> ps.Flow:
        return self.recipe.flow(self.tree, self.models)

    def expected(self) -> Contents:
        files = tuple((n, p.read_bytes()) for n in NAMES if (p := self.tree / n).exists())
        key = (files, self.recipe, frozenset(self.forgotten))
        if key not in self.fresh:
            with tempfile.TemporaryDirectory(dir=self.root) as folder:
                if self.forgotten:
                    add_forgotten(Path(folder), pa.array(sorted(self.forgotten)), "000000")
                self.flow().run(folder)
                self.fresh[key] = read_all(Path(folder))
        return self.fresh[key]

    def teardown(self) -> None:
        shutil.rmtree(self.root)


@contextmanager
def _in_small_parts(small: bool) -> Iterator[None]:
    """Tasks, windows and fragments of two rows, each saved at once: as in a large corpus."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        if small:
            for module in ("documents", "tokens", "chunks"):
                patch.setattr(f"penstock.build.{module}.CHECKPOINT_S", 0.0)
                patch.setattr(f"penstock.build.{module}._FLUSH_BYTES", 1)
            for name in ("documents._RECOMPUTE_ROWS", "chunks._WINDOW_ROWS"):
                patch.setattr(f"penstock.build.{name}", 2)
            # The package has a function of the module's name.
            patch.setattr(import_module("penstock.sources.files"), "_TASK_ITEMS", 2)
        yield


@contextmanager
def _broken_off(point: str, nth: int, *, after: bool) -> Iterator[None]:
    """The nth call of something raises, before it does anything or when it is done."""
    import pkgutil

    real, calls = pkgutil.resolve_name(f"penstock.build.{point}"), 0

    def stop(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= nth:
            return real(*arguments, **options)
        if after:
            real(*arguments, **options)
        raise BrokenOffError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"penstock.build.{point}", stop)
        yield


@contextmanager
def _ctrl_c(phase: str, nth: int) -> Iterator[None]:
    """A run is asked to stop when it takes in the nth batch of a phase."""
    import pkgutil

    cancel, calls = Cancel(), 0
    real = pkgutil.resolve_name(f"penstock.build.{phase}.add")

    def add(*arguments: Any) -> None:
        nonlocal calls
        real(*arguments)
        calls += 1
        if calls > nth:
            cancel.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.build.run.Cancel", lambda: cancel)
        patch.setattr(f"penstock.build.{phase}.add", add)
        yield


@pytest.mark.slow
def test_after_any_history_the_store_equals_a_fresh_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is flushed is another test's matter, and takes most of the time.
    monkeypatch.setattr("penstock.store.files.fsync_file", lambda path: None)
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    memory = Path("/dev/shm")
    where = tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path)
    try:
        Histories.models = {
            name: write_model(Path(where) / name, weights=random_weights(seed))
            for seed, name in enumerate(("A", "B"))
        }
        Histories.fresh, Histories.steps = {}, 0
        run_state_machine_as_test(
            Histories,
            settings=settings(
                max_examples=400 if NIGHTLY else 14,
                stateful_step_count=40 if NIGHTLY else 25,
                deadline=None,
                phases=list(Phase) if NIGHTLY else [Phase.reuse, Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        shutil.rmtree(where)

    assert Histories.steps > (5000 if NIGHTLY else 100)
