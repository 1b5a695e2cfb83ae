"""Measure loaders side by side: Penstock, LitData, MosaicML Streaming, WebDataset and Grain.

    python benchmarks/loader.py --peer-python /path/to/python-with-peers
    python benchmarks/loader.py --peer-python PATH --quick
    python benchmarks/loader.py --measure raw --contenders penstock,litdata

Every contender reads the same sequences of tokens, shuffled, in one process of its
own, from its own format on the local disk; Grain, which has none, from memory. All
are asked in turn, round after round; the best round counts. An untimed epoch first
checks that every token comes once.

    raw     sequences a second, of two epochs one after the other. Penstock gives them in
            padded batches of 256 with labels, positions and segments; the others one by one.
    packed  tokens a second into rows of 2,048. LitData cuts one long row of tokens into
            blocks, which tells no document from the next; Grain packs first-fit. The limit
            is what memory lets Penstock do: its kernel alone, which reads sequences from
            random places and writes into the same arrays again and again.
    start   seconds from opening to the first item, and from loading a state that was saved
            in the middle of an epoch to the item after it
    billion seconds to the first batch of an epoch of a billion samples of made-up lengths,
            against MosaicML's order of an epoch alone, of as many as --order says
    memory  memory that order and plan of a whole epoch take

CPU is of all threads, and stays comparable where others use the machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from _loader_peers import (  # type: ignore[import-not-found, unused-ignore]
    PEERS,
    ROWS,
    SEQ_LEN,
    Data,
    make,
    without_torchvision,
)

_RAW = ("penstock", "penstock:mds", "litdata", "mosaicml", "webdataset", "grain")
_PACKED = ("penstock", "penstock:mds", "litdata", "grain")
_MEASURES = ("raw", "packed", "billion", "memory")


def main() -> None:
    options = _options()
    if options.worker:
        print("\n" + json.dumps(_work(options)))
        return
    from _machine import (  # type: ignore[import-not-found, unused-ignore]
        peer_versions,
        print_machine,
    )

    print_machine("numpy", "numba", "pyarrow")
    versions = peer_versions(options.peer_python, *PEERS.values(), "torch")
    print(f"{'peers:':<11}" + ", ".join(f"{name} {version}" for name, version in versions.items()))
    options.sequences = 20_000 if options.quick else options.sequences
    options.order = min(options.order, 10**7) if options.quick else options.order
    options.data = options.data / f"{options.sequences}-sequences"
    _make_data(options)
    known = {name for name, package in PEERS.items() if package in versions}
    known |= {"penstock", "penstock:mds"} if "mosaicml" in known else {"penstock"}
    figures: dict[str, Any] = {}
    for kind, all_names in (("raw", _RAW), ("packed", _PACKED)):
        names = [n for n in all_names if n in known and n in options.contenders]
        if kind in options.measure:
            figures[kind] = _side_by_side(kind, names, options)
    for kind in ("billion", "memory"):
        if kind in options.measure:
            figures[kind] = _at_scale(kind, known & {"penstock", "mosaicml"}, options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=100_000, help="how many to read")
    parser.add_argument("--order", type=int, default=10**8, help="samples of the largest order")
    parser.add_argument(
        "--quick", action="store_true", help="20,000 sequences, an order of 10 million, one round"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("loader-bench"), help="folder that keeps the data"
    )
    parser.add_argument(
        "--peer-python", default=sys.executable, help="interpreter that has the peers"
    )
    parser.add_argument("--contenders", default=",".join(_RAW), help="which, by commas")
    parser.add_argument("--measure", default=",".join(_MEASURES), help="what, by commas")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each measurement")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    parser.add_argument("--kind", default="", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.rounds = 1 if options.quick else options.rounds
    options.contenders = options.contenders.split(",")
    options.measure = options.measure.split(",")
    for given, allowed in ((options.contenders, _RAW), (options.measure, _MEASURES)):
        if unknown := set(given) - set(allowed):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(allowed)}")
    return options


def _make_data(options: argparse.Namespace) -> None:
    """Random tokens in sequences of 280 to 399."""
    options.data.mkdir(parents=True, exist_ok=True)
    if (options.data / "offsets.npy").exists():
        return
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(280, 400, options.sequences))])
    np.save(options.data / "tokens.npy", rng.integers(0, 50_000, offsets[-1]).astype(np.uint16))
    np.save(options.data / "offsets.npy", offsets)


def _ask(name: str, kind: str, options: argparse.Namespace, *, check: bool = False) -> Any:
    """What a process of its own measured."""
    python = sys.executable if name.startswith("penstock") else options.peer_python
    command = [python, __file__, "--worker", name, "--kind", kind, "--data", str(options.data)]
    command += ["--order", str(options.order), *(["--check"] if check else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} ended early:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# Asking everyone in turn


def _side_by_side(kind: str, names: list[str], options: argparse.Namespace) -> dict[str, Any]:
    # MosaicML writes what `penstock:mds` reads.
    for name in sorted(names, key=lambda name: name != "mosaicml"):
        _ask(name, kind, options, check=True)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            rounds[name].append(_ask(name, kind, options))
    best: dict[str, dict[str, Any]] = {}
    for name, measured in rounds.items():
        values = {
            key: [one[key] for one in measured if one[key] is not None] for key in measured[0]
        }
        best[name] = {
            key: (max if "per_s" in key else min)(value) if value else None
            for key, value in values.items()
        }
    unit, scale = ("sequences", 1) if kind == "raw" else ("million tokens", 1e6)
    head = ("epoch 1", "epoch 2", "per CPU s", "start, ms", "resume, ms")
    print(f"\n{f'{kind}: {unit} a second':<40}" + "".join(f"{name:>12}" for name in head))
    for name, found in best.items():
        cells = [found[key] / scale for key in ("first_per_s", "second_per_s", "per_cpu_s")]
        text = "".join(f"{value:>12,.{0 if kind == 'raw' else 1}f}" for value in cells)
        for key in ("start_s", "resume_s"):
            text += f"{'-':>12}" if found[key] is None else f"{found[key] * 1e3:>12.1f}"
        print(f"  {name:<38}{text}", flush=True)
    if kind == "packed":
        best["limit"] = limit = _ask("penstock", "limit", options)
        print(f"  {'limit of memory':<38}{'':>24}{limit['per_cpu_s'] / 1e6:>12.1f}", flush=True)
    return best


def _at_scale(kind: str, names: set[str], options: argparse.Namespace) -> dict[str, Any]:
    head = ("samples", "seconds", "memory, MB")
    title = {"billion": "to the first batch of an epoch", "memory": "order and plan of an epoch"}
    print(f"\n{title[kind]:<40}" + "".join(f"{name:>16}" for name in head))
    found = {}
    for name in sorted(names, reverse=True):
        found[name] = one = _ask(name, kind, options)
        cells = f"{one['samples']:>16,}{one['seconds']:>16.4f}{one['bytes'] / 1e6:>16.1f}"
        print(f"  {name:<38}{cells}  {one['about']}", flush=True)
    return found


# What a contender's process runs


def _work(options: argparse.Namespace) -> dict[str, Any]:
    if options.kind in ("billion", "memory"):
        work = _penstock_at_scale if options.worker == "penstock" else _mosaic_at_scale
        return work(options.kind, options.order)
    data = Data(options.data)
    if options.kind == "limit":
        return _limit(data)
    contender = make(options.worker, options.kind, data)
    if options.check:
        contender.build()
        found = sum(
            int(contender.tokens(item).sum(dtype=np.int64))
            for item in contender.epoch(contender.open(), 0)
        )
        # LitData leaves out what does not fill a block, chunk by chunk.
        cut = options.worker == "litdata" and options.kind == "packed"
        total = int(data.tokens.sum(dtype=np.int64))
        if found != total and not (cut and 0.97 * total < found < total):
            raise SystemExit(f"tokens add up to {found:,}, expected {total:,}")
        return {}
    return _measured(contender, data, options.kind)


def _measured(contender: Any, data: Data, kind: str) -> dict[str, Any]:
    # Another object first, so that what is compiled or loaded once is in no figure.
    _consume(contender.epoch(contender.open(), 0), 3)
    began = time.perf_counter()
    opened = contender.open()
    _consume(contender.epoch(opened, 0), 1)
    start = time.perf_counter() - began
    opened, times, cpu = contender.open(), [], []
    for number in range(2):
        began, cpu_began = time.perf_counter(), time.process_time()
        num_items = _consume(contender.epoch(opened, number), None)
        times.append(time.perf_counter() - began)
        cpu.append(time.process_time() - cpu_began)
    count = len(data)
    if kind == "packed":
        grouped = type(contender).__name__ == "_LitData"
        count = num_items * SEQ_LEN if grouped else int(data.offsets[-1])
    return {
        "first_per_s": count / times[0],
        "second_per_s": count / times[1],
        "per_cpu_s": count / min(cpu),
        "start_s": start,
        "resume_s": _resumed(contender, num_items),
    }


def _limit(data: Data) -> dict[str, Any]:
    from penstock.kernels.batching import fill

    rng, pieces, best = np.random.default_rng(0), 6, 0.0
    lengths = np.full(ROWS * pieces, SEQ_LEN // pieces, np.int32)
    rows = np.arange(0, len(lengths) + 1, pieces)
    tokens, shape = np.array(data.tokens), (ROWS, SEQ_LEN)
    arrays: tuple[Any, ...] = tuple(
        np.zeros(shape, kind) for kind in (np.int32, np.int64, np.int32, np.int32)
    )
    arrays = (*arrays, np.zeros(len(lengths) + ROWS + 1, np.int32))
    for _ in range(5):
        places = rng.integers(0, len(tokens) - SEQ_LEN, (100, len(lengths)))
        began = time.process_time()
        for begins in places:
            fill(tokens, begins, lengths, rows, 0, *arrays)
        best = max(best, 100 * ROWS * SEQ_LEN / (time.process_time() - began))
    return {"per_cpu_s": best}


def _resumed(contender: Any, num_items: int) -> float | None:
    opened = contender.open()
    iterator = iter(contender.epoch(opened, 0))
    for _ in range(num_items // 2):
        next(iterator)
    state = contender.save(opened, iterator, num_items // 2)
    if state is None:
        return None
    began = time.perf_counter()
    next(contender.resume(contender.open(), state))
    return time.perf_counter() - began


def _consume(items: Any, most: int | None) -> int:
    count = 0
    for _ in items:
        count += 1
        if count == most:
            break
    return count


def _penstock_at_scale(kind: str, order: int) -> dict[str, Any]:
    import penstock as ps

    def loader(num_samples: int) -> Any:
        return ps.Loader(_MadeUp(num_samples), seq_len=SEQ_LEN, global_batch_size=64)

    next(iter(loader(10**6)))
    len(loader(10**5))
    before, began = _peak_bytes(), time.perf_counter()
    if kind == "billion":
        num_samples, about = 10**9, "order, plan and the batch itself"
        next(iter(loader(num_samples)))
    else:
        num_samples = order
        about = f"all {len(loader(num_samples)):,} steps planned, one window after another"
    seconds = time.perf_counter() - began
    used = _peak_bytes() - before
    return {"samples": num_samples, "seconds": seconds, "bytes": used, "about": about}


def _mosaic_at_scale(kind: str, order: int) -> dict[str, Any]:
    without_torchvision()
    get_partitions = import_module("streaming.base.partition").get_partitions
    get_shuffle = import_module("streaming.base.shuffle").get_shuffle
    sizes = np.full(order // 100_000, 100_000, np.int64)
    get_shuffle("py1e", sizes[:1], 64, 0, 0, 1 << 18)
    before, began = _peak_bytes(), time.perf_counter()
    places = get_partitions("relaxed", order, 64, 1, 1, 1, 64)
    ids = get_shuffle("py1e", sizes, 64, 0, 0, 1 << 18)
    np.where(places == -1, -1, ids[places])
    seconds = time.perf_counter() - began
    used, about = _peak_bytes() - before, "the order alone, no batch"
    return {"samples": order, "seconds": seconds, "bytes": used, "about": about}


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class _MadeUp:
    """Any number of samples, of lengths as web pages have them; tokens are all 0."""

    def __init__(self, num_samples: int) -> None:
        self.num_samples, self.fingerprint = num_samples, f"{num_samples:032x}"
        self.dtype = np.dtype(np.uint16)
        drawn = np.random.default_rng(0).lognormal(6.0, 1.15, 1 << 16)
        self._lengths = np.clip(drawn, 1, 100_000).astype(np.int32)

    def lengths(self, first: int, last: int) -> Any:
        return self._lengths[np.arange(first, last) % len(self._lengths)]

    def gather(self, positions: Any, starts: Any = None, lengths: Any = None) -> Any:
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return np.zeros(offsets[-1], np.uint16), offsets

    def doc_ids(self, positions: Any) -> Any:
        raise NotImplementedError


if __name__ == "__main__":
    main()
