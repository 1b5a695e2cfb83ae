"""A decision of a run, from how the manifest describes it."""

from __future__ import annotations

import ast
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from penstock.decisions import EvalSet
from penstock.errors import QueryError
from penstock.store import Store


def settings_of(store: Store, name: str, command: str) -> dict[str, Any]:
    """The settings of the first step of this class in the flow; nothing of it is evaluated.

    Raises:
        QueryError: There is no such step.
    """
    for step in store.manifest.flow["steps"]:
        if step["name"] == name:
            call = ast.parse(step["settings"], mode="eval").body
            assert isinstance(call, ast.Call)
            return {str(each.arg): _value(each.value) for each in call.keywords}
    raise QueryError(command, f"this store's flow has no {name}; see the steps: penstock status")


def rows_seen(store: Store, name: str, rule: str) -> pa.Table:
    """`doc_id` and signature of the documents that a decision saw, sorted."""
    earlier: set[str] = set()
    for step in store.manifest.flow["steps"]:
        if step["name"] == name:
            break
        earlier.add(str(step["rule"]))
    columns = ["doc_id", f"signature_{rule}"]
    rows = store.dataset("documents").to_table(columns=columns).sort_by("doc_id")
    verdicts = store.verdicts(["doc_id", "rule"], where="verdict = 'dropped'")
    by = [str(one).partition(".")[0] in earlier for one in verdicts["rule"].to_pylist()]
    gone = verdicts["doc_id"].filter(pa.array(by, pa.bool_())).combine_chunks()
    return rows.filter(pc.invert(pc.is_in(rows["doc_id"], value_set=gone)))


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "EvalSet":
        return EvalSet(**{str(each.arg): _value(each.value) for each in node.keywords})
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(_value(each) for each in node.elts)
    return ast.literal_eval(node)
