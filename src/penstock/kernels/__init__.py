"""Hot loops over the raw buffers of Arrow arrays; no I/O, no Python object per word or row.

A kernel is a numba function: serial, `nogil`, and compiled once per machine,
for the result is cached on disk. Callers import a kernel's module inside the
function that uses it, for importing numba takes a good part of a second; what
this file exports needs NumPy alone.
"""

from penstock.kernels.buffers import I64, U8, text_buffers, text_from_buffers

__all__ = ["I64", "U8", "text_buffers", "text_from_buffers"]
