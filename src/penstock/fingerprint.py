"""What a step's results depend on, as one short string.

A fingerprint covers the step's class, its `revision` (bumped when its results
change), its settings, and whatever it says itself through a `fingerprint()`
method (a model's bytes). A user's function counts by its compiled code, the
values it closes over, and the functions and constants of its module that it
calls, all the way down.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any


def fingerprint(value: object) -> str:
    """32 hex digits that change when the value's results may.

    Two equal settings give the same fingerprint in every process and on every
    machine; a user's function is tied to the Python version that compiled it,
    as its byte code is.
    """
    return hashlib.sha256(_describe(value, ()).encode()).hexdigest()[:32]


def _describe(value: Any, seen: tuple[int, ...]) -> str:
    own = getattr(value, "fingerprint", None)
    if callable(own) and not isinstance(value, type):
        return f"{_name(type(value))}({own()})"
    if is_dataclass(value) and not isinstance(value, type):
        settings = {
            item.name: getattr(value, item.name)
            for item in fields(value)
            if item.metadata.get("fingerprint", True)
        }
        revision = getattr(type(value), "revision", 1)
        return f"{_name(type(value))}.{revision}{_describe(settings, seen)}"
    if isinstance(value, types.FunctionType):
        return _describe_function(value, seen)
    if isinstance(value, Mapping):
        parts = sorted(f"{_describe(k, seen)}:{_describe(v, seen)}" for k, v in value.items())
        return "{" + ",".join(parts) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_describe(item, seen) for item in value) + "]"
    if isinstance(value, (set, frozenset)):
        return "{" + ",".join(sorted(_describe(item, seen) for item in value)) + "}"
    if isinstance(value, types.CodeType):
        consts = _describe(value.co_consts, seen)
        return f"code({value.co_code.hex()},{consts},{value.co_names},{value.co_varnames})"
    if isinstance(value, types.ModuleType):
        return f"module({value.__name__},{getattr(value, '__version__', '')})"
    if isinstance(value, (type, types.BuiltinFunctionType, types.MethodType)):
        return f"{_name(value)}"
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, PurePath)):
        return repr(value)
    return f"{_name(type(value))}({_state(value, seen)})"


def _describe_function(function: Callable[..., Any], seen: tuple[int, ...]) -> str:
    if id(function) in seen:
        return "recursion"
    seen = (*seen, id(function))
    code = function.__code__
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    used = {
        name: function.__globals__[name]
        for name in sorted(_global_names(code))
        if name in function.__globals__
    }
    parts = (code, function.__defaults__, function.__kwdefaults__, cells, used)
    return f"function{_describe(parts, seen)}"


def _global_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names |= _global_names(const)
    return names


def _state(value: object, seen: tuple[int, ...]) -> str:
    # An object of a user's class: its attributes, or its pickle where it has none to look at.
    state = getattr(value, "__dict__", None)
    if state:
        return _describe(state, (*seen, id(value))) if id(value) not in seen else "recursion"
    import pickle

    try:
        return hashlib.sha256(pickle.dumps(value)).hexdigest()
    except Exception:
        return ""


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"
