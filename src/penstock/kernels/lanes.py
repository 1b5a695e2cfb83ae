"""64 bytes of text at a time: looked at and copied by vector instructions.

A loop that decides on each byte costs some five cycles a byte. Most bytes of a
text need no decision, so a kernel asks here which of the next 64 do, copies all
64 at once, and goes on behind those that do not. numba has no vectors of its
own, hence the instructions built by hand, of which LLVM makes what the
processor has; keep them to what is here.

A lane reads and writes 64 bytes whatever it holds: the caller sees to it that
both arrays reach that far. It asks whether the mask is 0 before it asks for the
first bit: a branch that is foreseen costs nothing, where adding the number of
the bit would make each lane wait for the one before (0.06 and 0.36 ms/MB).

Kernels of other files call these, which numba's cache does not see: those files
name this one by its checksum, so that a change here is one of theirs.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANE = 64
"""Bytes in a lane."""

_BYTES = ir.VectorType(ir.IntType(8), LANE)
_TAB, _LF, _SPACE, _QUOTE, _BACKSLASH, _DEL = 0x09, 0x0A, 0x20, 0x22, 0x5C, 0x7F


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _BYTES.as_pointer())


def _splat(byte: int) -> Any:
    return ir.Constant(_BYTES, [byte] * LANE)


def _load(builder: Any, place: Any) -> Any:
    lane = builder.load(place)
    lane.align = 1
    return lane


def _copy_lane(typing: Any, source: Any, i: Any, target: Any, o: Any) -> Any:
    """Copy the 64 bytes from `i` on to where `o` is."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source_kind, _, target_kind, _ = signature.args
        source, i, target, o = arguments
        lane = _load(builder, _place(context, builder, source_kind, source, i))
        builder.store(lane, _place(context, builder, target_kind, target, o), align=1)
        return context.get_dummy_value()

    return types.none(source, types.int64, target, types.int64), generate


def _not_literal(typing: Any, data: Any, i: Any) -> Any:
    """Which of the 64 bytes from `i` on end or escape a JSON string or break it, a bit each."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, i = arguments
        lane = _load(builder, _place(context, builder, signature.args[0], data, i))
        found = builder.icmp_unsigned("<", lane, _splat(_SPACE))
        for byte in (_QUOTE, _BACKSLASH):
            found = builder.or_(found, builder.icmp_unsigned("==", lane, _splat(byte)))
        return builder.bitcast(found, ir.IntType(LANE))

    return types.uint64(data, types.int64), generate


def _not_clean(typing: Any, data: Any, i: Any) -> Any:
    """Which of the 64 bytes from `i` on a part of `Normalize` may change, a bit each.

    It changes no printable ASCII, no tab, and no line feed after a line feed or
    a character that is no blank. Byte `i - 1` is looked at too.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, i = arguments
        kind = signature.args[0]
        lane = _load(builder, _place(context, builder, kind, data, i))
        before = builder.sub(i, ir.Constant(ir.IntType(64), 1))
        last = _load(builder, _place(context, builder, kind, data, before))

        def equal(bytes_: Any, byte: int) -> Any:
            return builder.icmp_unsigned("==", bytes_, _splat(byte))

        # Signed, bytes of other characters than ASCII's are below 0.
        found = builder.icmp_signed("<", lane, _splat(_SPACE))
        found = builder.or_(found, equal(lane, _DEL))
        found = builder.and_(found, builder.not_(equal(lane, _TAB)))
        blank = builder.icmp_signed("<", last, _splat(_SPACE + 1))
        blank = builder.or_(blank, equal(last, _DEL))
        blank = builder.and_(blank, builder.not_(equal(last, _LF)))
        line = builder.and_(equal(lane, _LF), builder.not_(blank))
        return builder.bitcast(builder.and_(found, builder.not_(line)), ir.IntType(LANE))

    return types.uint64(data, types.int64), generate


def _first_bit(typing: Any, mask: Any) -> Any:
    """Number of the lowest bit that is set; 64 if none is."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


copy_lane: Any = intrinsic(_copy_lane)
first_bit: Any = intrinsic(_first_bit)
not_clean: Any = intrinsic(_not_clean)
not_literal: Any = intrinsic(_not_literal)
