"""Time finding semantic duplicates against semhash: same vectors, threshold and cores.

    python benchmarks/semantic_dedup.py --vectors vectors.npy --peer-python /path/to/python

Each gets the same (n, dim) float32 rows of length 1 in a .npy file and the same threshold, in a
process of its own; what is timed is all that it does with them: for semhash, building its index
(usearch, its default) and `self_deduplicate` of vectors under distinct texts.

Truth is brute force for a sample of rows: all pairs of such a row with any other whose cosine is
at least the threshold. Recall is the share of those pairs that each finds. Rows that go are
compared too: semhash keeps one of each group in an order of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _machine import peer_versions, print_machine  # type: ignore[import-not-found, unused-ignore]

_PEER = """
import json, sys, time
import numpy as np
from semhash import SemHash
rows = np.load(sys.argv[1])
threshold, rounds, sample = float(sys.argv[2]), int(sys.argv[3]), np.load(sys.argv[4])
texts = ["t%07d" % i for i in range(len(rows))]
class Model:
    def encode(self, inputs, **kwargs):
        return rows[[int(text[1:]) for text in inputs]]
seconds, cpu = [], []
for _ in range(rounds):
    start, used = time.perf_counter(), time.process_time()
    index = SemHash.from_embeddings(rows, texts, Model())
    result = index.self_deduplicate(threshold=threshold)
    seconds.append(time.perf_counter() - start)
    cpu.append(time.process_time() - used)
pairs = []
for row, (others, _) in zip(sample, index.index.query_threshold(rows[sample], threshold)):
    pairs += [sorted((int(row), int(other))) for other in others if other != row]
json.dump({"seconds": seconds, "cpu": cpu, "dropped": len(result.filtered), "pairs": pairs},
          open(sys.argv[5], "w"))
"""


def main() -> None:
    options = _options()
    print_machine("numpy", "numba")
    print("peers:     ", peer_versions(options.peer_python, "semhash", "vicinity", "usearch"))
    rows = np.ascontiguousarray(np.load(options.vectors, mmap_mode="r")[: options.num], np.float32)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    sample = np.sort(np.random.default_rng(0).choice(len(rows), min(2000, len(rows)), False))
    truth = _true_pairs(rows, sample, options.threshold)
    results = {"penstock": _ours(rows, sample, options)}
    with tempfile.TemporaryDirectory(prefix="penstock-semantic-") as name:
        results["semhash"] = _peer(rows, sample, options, Path(name))
    own = min(results["penstock"]["seconds"])
    print(f"\n{rows.shape[0]:,} x {rows.shape[1]}, cosine >= {options.threshold}")
    print(f"  {'':<10}{'best s':>9}{'CPU s':>9}{'ratio':>8}{'dropped':>10}{'recall of pairs':>17}")
    for name, result in results.items():
        recall = len(truth & result["pairs"]) / max(1, len(truth))
        print(
            f"  {name:<10}{min(result['seconds']):>9.2f}{min(result['cpu']):>9.2f}"
            f"{min(result['seconds']) / own:>7.2f}x{result['dropped']:>10,}{recall:>17.2%}"
        )
    ours, theirs = (truth & results[name]["pairs"] for name in ("penstock", "semhash"))
    print(f"  of {len(truth):,} pairs: {len(ours - theirs):,} by penstock alone, ", end="")
    print(f"{len(theirs - ours):,} by semhash alone")


def _ours(rows: Any, sample: Any, options: argparse.Namespace) -> dict[str, Any]:
    import pyarrow as pa

    from penstock.decisions.semantic import SemanticDedup, links_of, semantic_duplicates
    from penstock.decisions.semantic_links import linked_pairs

    settings = SemanticDedup(eps=1.0 - options.threshold)
    ids = pa.array([f"{i:07d}" for i in range(len(rows))])
    semantic_duplicates(ids[:2000], rows[:2000], settings)  # loads compiled kernels
    seconds, cpu, dropped = [], [], 0
    for _ in range(options.rounds):
        start, used = time.perf_counter(), time.process_time()
        dropped = semantic_duplicates(ids, rows, settings).num_rows
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    pairs = linked_pairs(links_of(rows, settings))
    mine = np.isin(pairs.left, sample) | np.isin(pairs.right, sample)
    both = zip(pairs.left[mine].tolist(), pairs.right[mine].tolist(), strict=True)
    return {"seconds": seconds, "cpu": cpu, "dropped": dropped, "pairs": set(both)}


def _peer(rows: Any, sample: Any, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    np.save(folder / "rows.npy", rows)
    np.save(folder / "sample.npy", sample)
    arguments = [folder / "rows.npy", options.threshold, options.rounds]
    arguments += [folder / "sample.npy", folder / "out.json"]
    subprocess.run([options.peer_python, "-c", _PEER, *map(str, arguments)], check=True)
    result: dict[str, Any] = json.loads((folder / "out.json").read_text())
    result["pairs"] = {(left, right) for left, right in result["pairs"]}
    return result


def _true_pairs(rows: Any, sample: Any, threshold: float) -> set[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    for first in range(0, len(sample), 256):
        mine = sample[first : first + 256]
        at, other = np.nonzero(rows[mine] @ rows.T >= threshold)
        for left, right in zip(mine[at].tolist(), other.tolist(), strict=True):
            if left != right:
                found.add((min(left, right), max(left, right)))
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=Path, required=True, help="a .npy file, (n, dim) float32")
    parser.add_argument("--peer-python", required=True, help="an interpreter that has semhash")
    parser.add_argument("--threshold", type=float, default=0.93)
    parser.add_argument("--num", type=int, default=200_000, help="rows that are used")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="20,000 rows")
    options = parser.parse_args()
    options.num = min(options.num, 20_000) if options.quick else options.num
    return options


if __name__ == "__main__":
    main()
