import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from penstock.fingerprint import fingerprint


@dataclass(frozen=True)
class _Step:
    revision: ClassVar[int] = 1
    size: int = 1
    shown: bool = field(default=True, metadata={"fingerprint": False})


_LIMIT = 3


def _helper(text: str) -> str:
    return text.upper()


def _uses_helper(text: str) -> str:
    return _helper(text)[:_LIMIT]


def _closure(limit: int) -> Any:
    return lambda text: text[:limit]


def test_a_setting_changes_the_fingerprint() -> None:
    assert fingerprint(_Step(size=1)) == fingerprint(_Step(size=1))
    assert fingerprint(_Step(size=1)) != fingerprint(_Step(size=2))


def test_a_setting_that_changes_no_result_does_not() -> None:
    assert fingerprint(_Step(shown=True)) == fingerprint(_Step(shown=False))


def test_a_revision_changes_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(_Step())
    monkeypatch.setattr(_Step, "revision", 2)

    assert fingerprint(_Step()) != before


def test_functions_differ_by_their_code_and_by_what_they_close_over() -> None:
    assert fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 1)
    assert fingerprint(lambda x: x + 1) != fingerprint(lambda x: x + 2)
    assert fingerprint(_closure(1)) != fingerprint(_closure(2))
    assert fingerprint(_closure(2)) == fingerprint(_closure(2))


def test_a_helper_and_a_constant_of_the_module_count(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[__name__]
    before = fingerprint(_uses_helper)
    monkeypatch.setattr(module, "_LIMIT", 4)
    with_constant = fingerprint(_uses_helper)
    monkeypatch.setattr(module, "_helper", lambda text: text.lower())

    assert len({before, with_constant, fingerprint(_uses_helper)}) == 3


def test_a_function_that_calls_itself_has_a_fingerprint() -> None:
    def count(n: int) -> int:
        return 0 if n == 0 else count(n - 1)

    assert fingerprint(count) == fingerprint(count)


def test_the_fingerprint_is_the_same_in_another_process() -> None:
    code = (
        "from penstock.fingerprint import fingerprint\n"
        "print(fingerprint([lambda x: {'b', 'a', x}, {'k': {'x', 'y', 'z'}}]))"
    )

    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
        for _ in range(3)
    }

    assert len(runs) == 1
