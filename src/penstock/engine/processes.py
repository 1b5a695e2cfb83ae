"""Worker processes: fresh interpreters that run one stage's function, item after item.

A worker is neither forked nor spawned by `multiprocessing`. A fork copies locks
that other threads hold; `multiprocessing`'s spawn imports the user's main
script again, which runs it again where the `if __name__ == "__main__"` is
missing. A worker here is a plain interpreter that imports this module alone. It
is sent the stage's function by cloudpickle: whole, if it comes from
``__main__`` or from a file that the worker could not import; by name otherwise.

Parent and worker take turns on a socket. A message is a pickle and its buffers
beside it (pickle protocol 5), so the columns of a record batch are not copied
into the pickle first. A sliced batch goes as Arrow IPC instead: its pickle
would hold all of the rows that it was cut from.
"""

from __future__ import annotations

import io
import pickle
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from multiprocessing import spawn
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

import cloudpickle

from penstock.errors import WorkerDied

if TYPE_CHECKING:
    import pyarrow as pa

_CHECK_S = 1.0  # how often a wait looks whether the worker is still alive
_EXIT_S = 5.0  # how long a worker that has said goodbye may take to exit


class Worker:
    """One worker process, seen from the parent. Used by one thread, but `kill` by any."""

    def __init__(self, stage: str, work: bytes) -> None:
        """Start the process, which gets ready while its first item is on the way.

        Args:
            stage: For error messages.
            work: What `pack_work` returned.
        """
        self._stage = stage
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [spawn.get_executable(), "-c", _start_code(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Ctrl-C in a terminal goes to a whole process group. The parent
                # alone decides what it means, even while a worker still starts.
                process_group=0,
            )
        self._socket.settimeout(_CHECK_S)
        self._work: bytes | None = work  # until it was sent

    def call(self, item: Any) -> Any:
        """Run the function on one item.

        Raises:
            WorkerDied: The process ended.
            Exception: What the function (before the first item: `open`, or an
                import) raised, with the worker's traceback as a note.
        """
        if self._work is not None:
            work, self._work = self._work, None
            _answered(self._exchange([work]))
        return _answered(self._exchange(_parts(item)))

    def close(self) -> None:
        """Let the process close its resource and exit.

        Raises:
            Exception: What closing the resource raised.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
            answer = _receive(self._socket, self._check_alive)
        except (EOFError, ConnectionError):
            return  # it is gone; the last call has said so
        finally:
            self._socket.close()
            self._exit_code()
        _answered(answer)

    def kill(self) -> None:
        """End the process at once; a `call` in another thread raises `WorkerDied`."""
        self._process.kill()

    def _exchange(self, parts: Sequence[Any]) -> tuple[str, Any, str]:
        try:
            _send_parts(self._socket, parts, self._check_alive)
            answer: tuple[str, Any, str] = _receive(self._socket, self._check_alive)
        except (EOFError, ConnectionError):
            raise WorkerDied(self._stage, self._exit_code()) from None
        return answer

    def _check_alive(self) -> None:
        # The socket tells of a death by itself, unless the function forked a
        # child that still holds the other end.
        if self._process.poll() is not None:
            raise EOFError

    def _exit_code(self) -> int:
        try:
            return self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _answered(answer: tuple[str, Any, str]) -> Any:
    outcome, value, text = answer
    if outcome == "returned":
        return value
    value.add_note(f"Traceback in the worker process:\n{text.rstrip()}")
    raise value


def pack_work(function: Callable[..., Any], open_: Callable[[], Any] | None) -> bytes:
    """Pickle what a worker runs, once for all workers of a stage."""
    return _dumps((function, open_), None)


def _start_code(descriptor: int) -> str:
    # Our own path, so that the worker imports what we would.
    path = [entry for entry in sys.path if isinstance(entry, str)]
    return (
        f"import sys; sys.path[:] = {path!r}; "
        f"from penstock.engine.processes import work; work({descriptor})"
    )


def work(descriptor: int) -> None:
    """Body of a worker process: answer items until the parent closes its end or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=descriptor)
    with suppress(EOFError, ConnectionError):
        packed = _receive_parts(connection)[0]
        try:
            call, close = _set_up(packed)
        except BaseException as error:
            _send_error(connection, error)
            return
        try:
            _send_parts(connection, _parts(("returned", None, "")))
            while True:
                _answer(connection, lambda parts: call(_loads(parts)), _receive_parts(connection))
        except EOFError:
            _answer(connection, lambda _: close(), None)
        except ConnectionError:
            close()


def _set_up(work: Any) -> tuple[Callable[[Any], Any], Callable[[], Any]]:
    try:
        function, open_ = pickle.loads(work)
    except Exception as error:
        error.add_note("The worker process could not import the stage's function.")
        raise
    if open_ is None:
        return function, lambda: None
    resource = open_()
    return lambda item: function(resource, item), getattr(resource, "close", lambda: None)


def _answer(connection: socket.socket, call: Callable[[Any], object], item: Any) -> None:
    try:
        value = call(item)
    except BaseException as error:
        _send_error(connection, error)
        return
    try:
        parts = _parts(("returned", value, ""))
    except Exception as error:
        error.add_note("The stage's function returned what cannot be pickled.")
        _send_error(connection, error)
        return
    _send_parts(connection, parts)


def _send_error(connection: socket.socket, error: BaseException) -> None:
    text = "".join(traceback.format_exception(error))
    try:
        # An exception whose __init__ takes more than it gives to `args` only
        # fails when it is loaded.
        _loads(parts := _parts(("raised", error, text)))
    except Exception:
        stand_in = RuntimeError(f"{type(error).__qualname__}: {error}")
        parts = _parts(("raised", stand_in, text))
    _send_parts(connection, parts)


# Messages.


def _nothing() -> None: ...


def _receive(connection: socket.socket, check: Callable[[], None]) -> Any:
    return _loads(_receive_parts(connection, check))


def _parts(value: Any) -> list[Any]:
    buffers: list[pickle.PickleBuffer] = []
    head = _dumps(value, buffers.append)
    return [head, *(buffer.raw() for buffer in buffers)]


def _loads(parts: Sequence[Any]) -> Any:
    return pickle.loads(parts[0], buffers=parts[1:])


def _send_parts(
    connection: socket.socket, parts: Sequence[Any], check: Callable[[], None] = _nothing
) -> None:
    sizes = [memoryview(part).nbytes for part in parts]
    prefix = struct.pack(f"<{len(parts) + 1}Q", len(parts), *sizes)
    for part in (prefix, *parts):
        view = memoryview(part).cast("B")
        while view:
            try:
                view = view[connection.send(view) :]
            except TimeoutError:
                check()


def _receive_parts(
    connection: socket.socket, check: Callable[[], None] = _nothing
) -> list[bytearray]:
    (count,) = struct.unpack("<Q", _receive_bytes(connection, 8, check))
    sizes = struct.unpack(f"<{count}Q", _receive_bytes(connection, 8 * count, check))
    return [_receive_bytes(connection, size, check) for size in sizes]


def _receive_bytes(connection: socket.socket, size: int, check: Callable[[], None]) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        try:
            received = connection.recv_into(view)
        except TimeoutError:
            check()
            continue
        if not received:
            raise EOFError
        view = view[received:]
    return data


# Pickles.


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    def reducer_override(self, obj: Any) -> Any:
        arrow = sys.modules.get("pyarrow")  # a worker without batches need not load it
        if arrow is not None and isinstance(obj, arrow.RecordBatch | arrow.Table):
            # Half as much again is about where the copy costs less than the rest.
            if obj.get_total_buffer_size() > 1.5 * obj.nbytes:
                return _from_ipc, (isinstance(obj, arrow.Table), pickle.PickleBuffer(_to_ipc(obj)))
        elif isinstance(obj, type | FunctionType):
            _by_value_if_unknown(obj.__module__)
        return super().reducer_override(obj)


def _dumps(value: Any, on_buffer: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol=5, buffer_callback=on_buffer).dump(value)
    return file.getvalue()


def _to_ipc(rows: pa.RecordBatch | pa.Table) -> pa.Buffer:
    import pyarrow as pa

    file = pa.BufferOutputStream()
    with pa.ipc.new_stream(file, rows.schema) as writer:
        writer.write(rows)
    return file.getvalue()


def _from_ipc(is_table: bool, data: Any) -> pa.RecordBatch | pa.Table:
    import pyarrow as pa

    reader = pa.ipc.open_stream(pa.py_buffer(data))
    return reader.read_all() if is_table else reader.read_next_batch()


def _by_value_if_unknown(name: object) -> None:
    """Have cloudpickle send a module's functions whole if a worker could not import it.

    A flow file, loaded from its path, sits in `sys.modules` under a name that
    no other interpreter can look up, or would find something else under.
    """
    module = sys.modules.get(name) if isinstance(name, str) else None
    file = getattr(module, "__file__", None)
    if module is not None and file is not None and not _is_importable(module.__name__, file):
        cloudpickle.register_pickle_by_value(module)


@lru_cache(maxsize=4096)
def _is_importable(name: str, file: str) -> bool:
    path: Sequence[str] | None = None
    spec = None
    for end in [i for i, letter in enumerate(name + ".") if letter == "."]:
        finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
        found = (find(name[:end], path) for find in finders if find is not None)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None:
            return False
        path = cast("Sequence[str] | None", spec.submodule_search_locations)
    if spec is None or spec.origin is None:
        return False
    if spec.origin == file:
        return True
    try:
        return Path(spec.origin).samefile(file)  # links, relative entries in sys.path
    except OSError:
        return False
