"""Search of float16 vectors: inner products of a fixed order, best-k heaps, and lists of codes.

`half_dot` is written in LLVM's own vectors rather than left to the compiler,
which may add up in another order in each loop that it is inlined into: so a
score is the same, bit for bit, wherever it is computed. float16 arrays come
as their uint16 bits, because numba knows no float16 on a CPU.

The rows of a list lie in blocks of 8, a block being a row of (num_blocks,
width) uint64: the places of its rows (-1 for none) and their factors, which fill
a line of the cache; then their codes, as bits (a word of each row in turn) or as
bytes (row by row).

A heap holds one integer for a score and a place, whose order is by score and
then the lower place first: the best k do not depend on the order in which rows
are seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from penstock.kernels.compiled import kernel

_LANES = 16  # floats added side by side
_CHAINS = 4  # sums in flight, for one addition waits 4 cycles for the one before
_SLOTS = 8  # rows of a block
_HEAD = 8  # words of a block before its codes: 8 places as int32, 8 factors as float32
_PLANES = 4  # bits of a query's component
_WIDER = 3  # lists chosen by their centres' bits, for each that is read
_RARER = 1.3  # times: less is chance
_AHEAD = 6  # rows asked for before they are needed

_I32, _I64, _F32, _HALF = ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.HalfType()


def _row(context: Any, builder: Any, array: Any, row: Any) -> tuple[Any, Any]:
    """Pointer to a row of a contiguous 2-D array, and the row's length."""
    width = builder.extract_value(array.shape, 1)
    return builder.gep(array.data, [builder.mul(row, width)]), width


def _array(context: Any, builder: Any, signature: Any, args: Any, i: int) -> Any:
    return context.make_array(signature.args[i])(context, builder, args[i])


def _sum(builder: Any, total: Any) -> Any:
    """Sum of a vector's lanes, as a tree."""
    width = _LANES
    while width > 1:
        width //= 2
        nothing = ir.Constant(total.type, ir.Undefined)
        low, high = (
            builder.shuffle_vector(
                total,
                nothing,
                ir.Constant(ir.VectorType(_I32, width), list(range(first, first + width))),
            )
            for first in (0, width)
        )
        total = builder.fadd(low, high)
    return builder.extract_element(total, ir.Constant(_I32, 0))


@intrinsic
def half_dot(typing: Any, query: Any, halves: Any, row: Any) -> Any:
    """Inner product of a float32 query (dim,) with a row of halves (num_rows, dim) uint16.

    64 sums run side by side, each by fused multiply-add in the order of the
    components; they are added as a fixed tree, then the last dim % 64 one by one.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        q = _array(context, builder, signature, args, 0).data
        v, dim = _row(
            context,
            builder,
            _array(context, builder, signature, args, 1),
            context.cast(builder, args[2], signature.args[2], types.int64),
        )
        floats, halves_type = ir.VectorType(_F32, _LANES), ir.VectorType(_HALF, _LANES)
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(floats, [floats] * 3), f"llvm.fma.v{_LANES}f32"
        )
        fma_one = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_F32, [_F32] * 3), "llvm.fma.f32"
        )
        zeros = ir.Constant(floats, [0.0] * _LANES)
        sums = [cgutils.alloca_once_value(builder, zeros) for _ in range(_CHAINS)]
        step = ir.Constant(_I64, _LANES * _CHAINS)
        rounds = builder.udiv(dim, step)
        with cgutils.for_range(builder, rounds, intp=_I64) as loop:
            start = builder.mul(loop.index, step)
            for chain, total in enumerate(sums):
                at = builder.add(start, ir.Constant(_I64, chain * _LANES))
                half_at = builder.bitcast(builder.gep(v, [at]), halves_type.as_pointer())
                query_at = builder.bitcast(builder.gep(q, [at]), floats.as_pointer())
                values = builder.fpext(builder.load(half_at, align=2), floats)
                weights = builder.load(query_at, align=4)
                builder.store(builder.call(fma, [values, weights, builder.load(total)]), total)
        total = builder.fadd(
            builder.fadd(builder.load(sums[0]), builder.load(sums[1])),
            builder.fadd(builder.load(sums[2]), builder.load(sums[3])),
        )
        rest = cgutils.alloca_once_value(builder, _sum(builder, total))
        done = builder.mul(rounds, step)
        with cgutils.for_range(builder, builder.sub(dim, done), intp=_I64) as loop:
            at = builder.add(done, loop.index)
            half = builder.load(builder.bitcast(builder.gep(v, [at]), _HALF.as_pointer()))
            weight = builder.load(builder.gep(q, [at]))
            product = builder.call(fma_one, [builder.fpext(half, _F32), weight, builder.load(rest)])
            builder.store(product, rest)
        return builder.load(rest)

    return types.float32(query, halves, row), codegen


@intrinsic
def _half_at(typing: Any, halves: Any, row: Any, column: Any) -> Any:
    """One half of (num_rows, dim) uint16 as float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = _array(context, builder, signature, args, 0)
        row, column = (
            context.cast(builder, args[i], signature.args[i], types.int64) for i in (1, 2)
        )
        start, _ = _row(context, builder, array, row)
        at = builder.bitcast(builder.gep(start, [column]), _HALF.as_pointer())
        return builder.fpext(builder.load(at), _F32)

    return types.float32(halves, row, column), codegen


@intrinsic
def _prefetch(typing: Any, array: Any, row: Any, lines: Any) -> Any:
    """Ask for the first lines of the cache of a row of a 2-D array before they are needed."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = _array(context, builder, signature, args, 0)
        row = context.cast(builder, args[1], signature.args[1], types.int64)
        start, _ = _row(context, builder, array, row)
        lines = context.cast(builder, args[2], signature.args[2], types.int64)
        pointer = ir.IntType(8).as_pointer()
        ask = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32]),
            "llvm.prefetch.p0",
        )
        start = builder.bitcast(start, pointer)
        read, near, data = ir.Constant(_I32, 0), ir.Constant(_I32, 3), ir.Constant(_I32, 1)
        with cgutils.for_range(builder, lines, intp=_I64) as loop:
            line = builder.gep(start, [builder.mul(loop.index, ir.Constant(_I64, 64))])
            builder.call(ask, [line, read, near, data])
        return context.get_dummy_value()

    return types.void(array, row, lines), codegen


@intrinsic
def _key(typing: Any, score: Any, place: Any) -> Any:
    """One int64 that orders as (score, -place) does: a float32's bits order as an integer's."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = context.cast(builder, args[1], signature.args[1], types.int64)
        # Adding 0 turns -0 into 0, which it equals.
        score = builder.fadd(args[0], ir.Constant(_F32, 0.0))
        bits = builder.sext(_flip(builder, builder.bitcast(score, _I32)), _I64)
        high = builder.shl(bits, ir.Constant(_I64, 32))
        return builder.or_(high, builder.sub(ir.Constant(_I64, 0xFFFF_FFFF), place))

    return types.int64(types.float32, place), codegen


@intrinsic
def _score_of(typing: Any, key: Any) -> Any:
    """The float32 score of a key."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.trunc(builder.ashr(args[0], ir.Constant(_I64, 32)), _I32)
        return builder.bitcast(_flip(builder, bits), _F32)

    return types.float32(types.int64), codegen


def _flip(builder: Any, bits: Any) -> Any:
    """Flip all but the sign of a negative number: from a float's order to an integer's, or back."""
    sign = builder.ashr(bits, ir.Constant(_I32, 31))
    return builder.xor(bits, builder.and_(sign, ir.Constant(_I32, 0x7FFF_FFFF)))


@intrinsic
def _signs_at(typing: Any, values: Any, start: Any) -> Any:
    """A bit for each of 16 floats from `start`, 1 where it is above 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = context.cast(builder, args[1], signature.args[1], types.int64)
        at = builder.gep(_array(context, builder, signature, args, 0).data, [start])
        floats = ir.VectorType(_F32, _LANES)
        some = builder.load(builder.bitcast(at, floats.as_pointer()), align=4)
        above = builder.fcmp_ordered(">", some, ir.Constant(floats, [0.0] * _LANES))
        return builder.zext(builder.bitcast(above, ir.IntType(_LANES)), _I64)

    return types.int64(values, start), codegen


@intrinsic
def _planes_at(typing: Any, values: Any, start: Any, unit: Any) -> Any:
    """16 floats from `start` in units of `unit`, as -8 to 7: 16 bits for each bit of them."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = context.cast(builder, args[1], signature.args[1], types.int64)
        at = builder.gep(_array(context, builder, signature, args, 0).data, [start])
        floats, ints = ir.VectorType(_F32, _LANES), ir.VectorType(_I32, _LANES)
        some = builder.load(builder.bitcast(at, floats.as_pointer()), align=4)
        even = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(floats, [floats]), f"llvm.rint.v{_LANES}f32"
        )
        scaled = builder.fdiv(some, _spread(builder, args[2], _LANES))
        rounded = builder.fptosi(builder.call(even, [scaled]), ints)
        planes = ir.Constant(_I64, 0)
        for plane in range(_PLANES):
            bit = builder.and_(rounded, ir.Constant(ints, [1 << plane] * _LANES))
            mask = builder.icmp_unsigned("!=", bit, ir.Constant(ints, [0] * _LANES))
            word = builder.zext(builder.bitcast(mask, ir.IntType(_LANES)), _I64)
            planes = builder.or_(planes, builder.shl(word, ir.Constant(_I64, plane * _LANES)))
        return planes

    return types.int64(values, start, types.float32), codegen


@intrinsic
def _absolute_sum(typing: Any, values: Any) -> Any:
    """Sum of the absolute values of floats, a multiple of 16 of them, in a fixed order."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = _array(context, builder, signature, args, 0)
        size = builder.extract_value(array.shape, 0)
        floats = ir.VectorType(_F32, _LANES)
        total = cgutils.alloca_once_value(builder, ir.Constant(floats, [0.0] * _LANES))
        absolute = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(floats, [floats]), f"llvm.fabs.v{_LANES}f32"
        )
        rounds = builder.udiv(size, ir.Constant(_I64, _LANES))
        with cgutils.for_range(builder, rounds, intp=_I64) as loop:
            at = builder.gep(array.data, [builder.mul(loop.index, ir.Constant(_I64, _LANES))])
            some = builder.load(builder.bitcast(at, floats.as_pointer()), align=4)
            more = builder.fadd(builder.load(total), builder.call(absolute, [some]))
            builder.store(more, total)
        return _sum(builder, builder.load(total))

    return types.float32(values), codegen


@intrinsic
def _mix(typing: Any, values: Any, start: Any) -> Any:
    """A Hadamard transform of 16 floats from `start`, in place, without its scale."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = context.cast(builder, args[1], signature.args[1], types.int64)
        at = builder.gep(_array(context, builder, signature, args, 0).data, [start])
        floats = ir.VectorType(_F32, _LANES)
        at = builder.bitcast(at, floats.as_pointer())
        some = builder.load(at, align=4)
        order, nothing = ir.VectorType(_I32, _LANES), ir.Constant(floats, ir.Undefined)
        half = 1
        while half < _LANES:
            other = ir.Constant(order, [lane ^ half for lane in range(_LANES)])
            turn = ir.Constant(floats, [-1.0 if lane & half else 1.0 for lane in range(_LANES)])
            swapped = builder.shuffle_vector(some, nothing, other)
            some = builder.fadd(builder.fmul(some, turn), swapped)
            half *= 2
        builder.store(some, at, align=4)
        return context.get_dummy_value()

    return types.void(values, start), codegen


@intrinsic
def _bit_scores(
    typing: Any, planes: Any, blocks: Any, block: Any, settings: Any, scores: Any
) -> Any:
    """Score the 8 rows of a block by their bits, into `scores` (8,); which reach the threshold.

    planes (num_words, 4) uint64: the query's components in two's complement, a
    plane for each bit; settings (4,) float32: the score of the list's centre,
    twice the query's unit, half the sum of the query's components, and the
    threshold. Returns a bit for each row.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        queried = _array(context, builder, signature, args, 0)
        q, words = queried.data, builder.extract_value(queried.shape, 0)
        block = context.cast(builder, args[2], signature.args[2], types.int64)
        head, _ = _row(context, builder, _array(context, builder, signature, args, 1), block)
        start = builder.gep(head, [ir.Constant(_I64, _HEAD)])
        lanes, floats = ir.VectorType(_I64, _SLOTS), ir.VectorType(_F32, _SLOTS)
        count = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(lanes, [lanes]), f"llvm.ctpop.v{_SLOTS}i64"
        )
        zeros = ir.Constant(lanes, [0] * _SLOTS)
        totals = [cgutils.alloca_once_value(builder, zeros) for _ in range(_PLANES)]
        with cgutils.for_range(builder, words, intp=_I64) as loop:
            at = builder.gep(start, [builder.mul(loop.index, ir.Constant(_I64, _SLOTS))])
            word = builder.load(builder.bitcast(at, lanes.as_pointer()), align=8)
            for plane, total in enumerate(totals):
                place = builder.mul(loop.index, ir.Constant(_I64, _PLANES))
                one = builder.gep(q, [builder.add(place, ir.Constant(_I64, plane))])
                common = builder.and_(word, _spread(builder, builder.load(one), _SLOTS))
                counted = builder.call(count, [common])
                builder.store(builder.add(builder.load(total), counted), total)
        result = zeros
        for plane, total in enumerate(totals):
            shift = ir.Constant(lanes, [plane] * _SLOTS)
            weighed = builder.shl(builder.load(total), shift)
            last = plane == _PLANES - 1  # the sign
            result = builder.sub(result, weighed) if last else builder.add(result, weighed)
        sums = builder.sitofp(builder.trunc(result, ir.VectorType(_I32, _SLOTS)), floats)
        settings = _array(context, builder, signature, args, 3).data
        centre, unit, half, threshold = (
            _spread(builder, builder.load(builder.gep(settings, [ir.Constant(_I64, i)])), _SLOTS)
            for i in range(4)
        )
        factors = builder.gep(head, [ir.Constant(_I64, _SLOTS // 2)])
        factor = builder.load(builder.bitcast(factors, floats.as_pointer()), align=4)
        about = builder.fmul(builder.fsub(sums, half), unit)
        found = builder.fadd(centre, builder.fmul(factor, about))
        out = _array(context, builder, signature, args, 4).data
        builder.store(found, builder.bitcast(out, floats.as_pointer()), align=4)
        reach = builder.fcmp_ordered(">=", found, threshold)
        return builder.zext(builder.bitcast(reach, ir.IntType(_SLOTS)), _I64)

    return types.int64(planes, blocks, block, settings, scores), codegen


def _spread(builder: Any, value: Any, lanes: int) -> Any:
    """The value in every lane of a vector."""
    nothing = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(
        first, nothing, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
    )


@intrinsic
def _allowed_of(typing: Any, blocks: Any, block: Any, allowed: Any) -> Any:
    """A bit for each row of a full block, as `allowed` (num_rows,) uint8 says: 0 or 1."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = context.cast(builder, args[1], signature.args[1], types.int64)
        head, _ = _row(context, builder, _array(context, builder, signature, args, 0), block)
        mask = _array(context, builder, signature, args, 2).data
        places = builder.bitcast(head, _I32.as_pointer())
        bits = []
        for lane in range(_SLOTS):
            place = builder.load(builder.gep(places, [ir.Constant(_I64, lane)]))
            flag = builder.load(builder.gep(mask, [builder.zext(place, _I64)]))
            bits.append(builder.shl(builder.zext(flag, _I64), ir.Constant(_I64, lane)))
        while len(bits) > 1:
            bits = [builder.or_(bits[i], bits[i + 1]) for i in range(0, len(bits), 2)]
        return bits[0]

    return types.int64(blocks, block, allowed), codegen


@intrinsic
def _count(typing: Any, bits: Any) -> Any:
    """How many bits of an int64 are set."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), codegen


@intrinsic
def _lowest(typing: Any, bits: Any) -> Any:
    """Position of the lowest bit set of an int64 that is not 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


@kernel
def _sink(keys: Any, size: Any, key: Any) -> None:
    """Put a key in place of the root of a heap whose root is the least."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and keys[child + 1] < keys[child]:
            child += 1
        if keys[child] >= key:
            break
        keys[at] = keys[child]
        at = child
    keys[at] = key


@kernel
def _keep(keys: Any, size: Any, key: Any) -> Any:
    """Add to a heap of the best len(keys); return its new size."""
    if size == len(keys):
        if key > keys[0]:
            _sink(keys, size, key)
        return size
    at = size
    while at > 0:
        parent = (at - 1) // 2
        if keys[parent] <= key:
            break
        keys[at] = keys[parent]
        at = parent
    keys[at] = key
    return size + 1


@kernel
def _unpack(keys: Any, size: Any, scores: Any, places: Any) -> None:
    """Empty a heap into scores and places, best first."""
    while size > 0:
        key = keys[0]
        size -= 1
        scores[size] = _score_of(key)
        places[size] = 0xFFFF_FFFF - (key & 0xFFFF_FFFF)
        _sink(keys, size, keys[size])


@kernel
def best_of_all(queries: Any, halves: Any, scores: Any, places: Any, sizes: Any) -> None:
    """The best rows for each query: scores and places (num_queries, k), sizes (num_queries,).

    Rows are taken in blocks that stay in the cache while every query looks at them.
    """
    block = max(16, 262_144 // max(1, 2 * halves.shape[1]))
    k = scores.shape[1]
    keys = np.empty(scores.shape, np.int64)
    sizes[:] = 0
    for start in range(0, len(halves), block):
        for q in range(len(queries)):
            size = sizes[q]
            for row in range(start, min(start + block, len(halves))):
                score = half_dot(queries[q], halves, row)
                key = _key(score, row)
                if score == score and (size < k or key > keys[q, 0]):
                    size = _keep(keys[q], size, key)
            sizes[q] = size
    for q in range(len(queries)):
        _unpack(keys[q], sizes[q], scores[q], places[q])


@kernel
def best_of(query: Any, halves: Any, wanted: Any, scores: Any, places: Any) -> Any:
    """The best of the rows at `wanted`, (num_wanted,) int32, into scores and places; how many."""
    size, lines = 0, (halves.shape[1] + 31) // 32
    keys = np.empty(len(scores), np.int64)
    for i in range(min(_AHEAD, len(wanted))):
        _prefetch(halves, wanted[i], lines)
    for i in range(len(wanted)):
        if i + _AHEAD < len(wanted):
            _prefetch(halves, wanted[i + _AHEAD], lines)
        score = half_dot(query, halves, wanted[i])
        key = _key(score, wanted[i])
        if score == score and (size < len(keys) or key > keys[0]):
            size = _keep(keys, size, key)
    _unpack(keys, size, scores, places)
    return size


@kernel
def scores_of(query: Any, halves: Any, wanted: Any, scores: Any) -> None:
    """Inner product with each row at `wanted`, in that order."""
    lines = (halves.shape[1] + 31) // 32
    for i in range(min(_AHEAD, len(wanted))):
        _prefetch(halves, wanted[i], lines)
    for i in range(len(wanted)):
        if i + _AHEAD < len(wanted):
            _prefetch(halves, wanted[i + _AHEAD], lines)
        scores[i] = half_dot(query, halves, wanted[i])


@kernel
def places_of(words: Any, allowed: Any, places: Any) -> Any:
    """Where `allowed` (num_rows,) holds 1, into places; how many. words: it, 8 rows each uint64."""
    found = 0
    for i in range(len(words)):
        word = np.int64(words[i])
        while word != 0:
            places[found] = 8 * i + _lowest(word) // 8
            word &= word - 1
            found += 1
    for row in range(8 * len(words), len(allowed)):
        if allowed[row] != 0:
            places[found] = row
            found += 1
    return found


@kernel
def _nth(values: Any, size: Any, n: Any) -> Any:
    """Reorder `values[:size]` so that the n greatest come first; the n-th of them."""
    low, high = 0, size - 1
    while low < high:
        middle = values[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while values[left] > middle:
                left += 1
            while values[right] < middle:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left, right = left + 1, right - 1
        if n - 1 <= right:
            high = right
        elif n - 1 >= left:
            low = left
        else:
            break
    return values[n - 1]


@kernel
def rotate(vector: Any, signs: Any) -> None:
    """Turn a float32 vector (dim,) in place, so that its weight spreads evenly over its bits.

    Each round flips signs (num_rounds, dim) and applies a Hadamard transform to
    the first or the last 2^n components: orthogonal, and mixed after four rounds.
    """
    dim = len(vector)
    width = 1
    while 2 * width <= dim:
        width *= 2
    scale = np.float32(1 / np.sqrt(width))
    for turn in range(len(signs)):
        for i in range(dim):
            vector[i] *= signs[turn, i]
        window = vector[:width] if turn % 2 == 0 else vector[dim - width :]
        half = 1
        if width >= _LANES:  # the first four steps as one
            for start in range(0, width, _LANES):
                _mix(window, start)
            half = _LANES
        while half < width:
            for start in range(0, width, 2 * half):
                low, high = window[start : start + half], window[start + half : start + 2 * half]
                for i in range(half):
                    low[i], high[i] = low[i] + high[i], low[i] - high[i]
            half *= 2
        for i in range(width):
            window[i] *= scale


@kernel
def _encode(turned: Any, centre: Any, squares: Any, rest: Any, words: Any) -> Any:
    """Signs of a turned row's residual into words (num_words,); the factor that belongs to it.

    squares is the residual's squared length. The factor turns a sum over signs
    into an inner product. rest (64 * num_words,) is room for the residual; what
    is beyond its width must be 0.

    Source: Gao and Long 2024 (RaBitQ), section 3, without the second error factor.
    """
    for i in range(len(centre)):
        rest[i] = turned[i] - centre[i]
    total = _absolute_sum(rest)
    for word in range(len(words)):
        bits = np.int64(0)
        for part in range(0, 64, _LANES):
            bits |= _signs_at(rest, 64 * word + part) << part
        words[word] = np.uint64(bits)
    return np.float32(squares) / total if total > 0 else np.float32(0)


@kernel
def encode_centres(turned: Any, middle: Any, blocks: Any) -> None:
    """Blocks of turned centres (num_lists, dim) about their turned middle (dim,), as one list."""
    words = np.empty((blocks.shape[1] - _HEAD) // _SLOTS, np.uint64)
    rest = np.zeros(64 * len(words), np.float32)
    for slot in range(_SLOTS * len(blocks)):
        factor = np.float32(np.nan)
        if slot < len(turned):
            squares = np.float32(0)
            for i in range(len(middle)):
                squares += (turned[slot, i] - middle[i]) ** 2
            factor = _encode(turned[slot], middle, squares, rest, words)
        _put(blocks, slot, words, slot if slot < len(turned) else -1, factor)


@kernel
def _put(blocks: Any, slot: Any, words: Any, place: Any, factor: Any) -> None:
    """Put a row's bits, place and factor into a slot."""
    block, lane = slot // _SLOTS, slot % _SLOTS
    blocks.view(np.int32)[block, lane] = place
    blocks.view(np.float32)[block, _SLOTS + lane] = factor
    for word in range(len(words)):
        blocks[block, _HEAD + word * _SLOTS + lane] = words[word]


@kernel
def _candidates(
    row: Any,
    groups: Any,
    group_firsts: Any,
    num_groups: Any,
    centres: Any,
    blocks: Any,
    planes: Any,
    settings: Any,
    keys: Any,
) -> Any:
    """Keys of the lists that seem nearest to a row, of those of its nearest groups; how many.

    keys (4 * num_wanted + 8,) has room to collect them.
    """
    near = np.empty(num_groups, np.int64)
    size = 0
    for group in range(len(groups)):
        size = _keep(near, size, _key(half_dot(row, groups, group), group))
    settings[0], settings[3] = half_dot(row, centres, len(centres) - 1), np.float32(-np.inf)
    rough = np.empty(_SLOTS, np.float32)
    found, wanted = 0, (len(keys) - _SLOTS) // 4
    for i in range(size):
        group = 0xFFFF_FFFF - (near[i] & 0xFFFF_FFFF)
        first, last = group_firsts[group], group_firsts[group + 1]
        for block in range(first // _SLOTS, (last + _SLOTS - 1) // _SLOTS):
            reach = _bit_scores(planes, blocks, block, settings, rough)
            while reach != 0:
                lane = _lowest(reach)
                reach &= reach - 1
                each = block * _SLOTS + lane
                if first <= each < last:  # the next group's lists may begin in this block
                    keys[found] = _key(rough[lane], each)
                    found += 1
            if found >= 4 * wanted:
                settings[3] = _score_of(_nth(keys, found, wanted))
                found = wanted
    if found > wanted:
        _nth(keys, found, wanted)
    return min(found, wanted)


@kernel
def place_rows(
    halves: Any,
    groups: Any,
    group_firsts: Any,
    num_groups: Any,
    num_looked: Any,
    centres: Any,
    turned_centres: Any,
    blocks: Any,
    signs: Any,
    lists: Any,
    codes: Any,
    code_factors: Any,
) -> None:
    """The nearest list of each row, and a second one, into lists (num_rows, 2); -1 for none.

    The second is near, too, but lies in another direction from the row: what
    hides the row from a query in one list does not in the other.

    The arrays:
        halves: (num_rows, dim) uint16; a row of NaN gets no list.
        groups: (num_groups, dim) halves; group_firsts: the first list of each, and the end.
        num_groups: In how many of them to look.
        num_looked: Lists that may become a row's two, by their centres' bits.
        centres, signs: As for `search_lists`; blocks: its centre_blocks.
        turned_centres: (num_lists, dim) float32.
        codes: (num_rows, 2, num_words) uint64, filled with the row's bits in each of its
            lists; code_factors: (num_rows, 2), filled. Both may be empty: then they are left out.

    Source: Sun et al. 2023 (SOAR), equation 3 with lambda 1.
    """
    dim = halves.shape[1]
    row, first_centre = np.empty(dim, np.float32), np.empty(dim, np.float32)
    planes = np.empty(((blocks.shape[1] - _HEAD) // _SLOTS, _PLANES), np.uint64)
    rest = np.zeros(64 * len(planes), np.float32)
    settings = np.empty(4, np.float32)
    rests = np.empty(2, np.float32)
    keys = np.empty(4 * num_looked + _SLOTS, np.int64)
    near = np.empty(num_looked, np.float32)
    for place in range(len(halves)):
        for i in range(dim):
            row[i] = _half_at(halves, place, i)
        lists[place, 0], lists[place, 1] = -1, -1
        if row[0] != row[0]:
            continue
        planes[:] = 0
        turned, unit, total = _bit_planes(row, signs, planes)
        settings[1], settings[2] = 2 * unit, np.float32(total) / 2
        found = _candidates(
            row, groups, group_firsts, num_groups, centres, blocks, planes, settings, keys
        )
        first, best = 0, np.float32(-np.inf)
        for i in range(found):
            keys[i] = 0xFFFF_FFFF - (keys[i] & 0xFFFF_FFFF)
            near[i] = half_dot(row, centres, keys[i])
            if near[i] > best or (near[i] == best and keys[i] < first):
                first, best = keys[i], near[i]
        for i in range(dim):
            first_centre[i] = _half_at(centres, first, i)
        length = np.float32(0)
        for i in range(dim):
            length += row[i] * row[i]
        size = half_dot(first_centre, centres, first)  # 1, but for rounding, as all are
        short = max(length - 2 * best + size, np.float32(1e-9))
        second, least = -1, np.float32(np.inf)
        rests[1] = 0
        for i in range(found):
            if keys[i] != first:
                along = length - best - near[i] + half_dot(first_centre, centres, keys[i])
                loss = size - 2 * near[i] + along * along / short
                if loss < least or (loss == least and keys[i] < second):
                    second, least = keys[i], loss
                    rests[1] = max(length - 2 * near[i] + size, np.float32(0))
        lists[place, 0], lists[place, 1] = first, second
        if len(codes) > 0:
            rests[0] = max(length - 2 * best + size, np.float32(0))
            for i in range(2):
                if lists[place, i] >= 0:
                    code_factors[place, i] = _encode(
                        turned, turned_centres[lists[place, i]], rests[i], rest, codes[place, i]
                    )


@kernel
def fill_with_bits(codes: Any, code_factors: Any, slots: Any, which: Any, blocks: Any) -> None:
    """Put the codes of `place_rows` into slots: of places slots (num_slots,), lists which."""
    nothing = np.zeros(codes.shape[2], np.uint64)
    for slot in range(len(slots)):
        place = slots[slot]
        if place < 0:
            _put(blocks, slot, nothing, place, np.float32(np.nan))
        else:
            factor = code_factors[place, which[slot]]
            _put(blocks, slot, codes[place, which[slot]], place, factor)


@kernel
def keep_best(scores: Any, start: Any, keys: Any, sizes: Any) -> None:
    """Add scores (num_queries, num_rows) of the rows from `start` to a heap for each query."""
    depth = keys.shape[1]
    for query in range(len(scores)):
        size = sizes[query]
        for i in range(scores.shape[1]):
            key = _key(scores[query, i], start + i)
            if scores[query, i] == scores[query, i] and (size < depth or key > keys[query, 0]):
                size = _keep(keys[query], size, key)
        sizes[query] = size


@kernel
def unpack_best(keys: Any, sizes: Any, scores: Any, places: Any) -> None:
    """What `keep_best` kept, best first."""
    for query in range(len(keys)):
        _unpack(keys[query], sizes[query], scores[query], places[query])


@kernel
def fill_with_bytes(halves: Any, slots: Any, spread: Any, blocks: Any) -> None:
    """Encode the rows at slots (num_slots,): in units of `spread` (dim,) and of a row's largest."""
    dim = halves.shape[1]
    vector = np.empty(dim, np.float32)
    places, factors, codes = blocks.view(np.int32), blocks.view(np.float32), blocks.view(np.int8)
    row_bytes = blocks.shape[1] - _HEAD
    for slot in range(len(slots)):
        block, lane = slot // _SLOTS, slot % _SLOTS
        places[block, lane] = slots[slot]
        factors[block, _SLOTS + lane] = np.nan
        if slots[slot] < 0:
            continue
        largest = np.float32(0)
        for i in range(dim):
            vector[i] = _half_at(halves, slots[slot], i) / spread[i]
            largest = max(largest, abs(vector[i]))
        factors[block, _SLOTS + lane] = largest / np.float32(127)
        start = 8 * _HEAD + lane * row_bytes
        for i in range(dim if largest > 0 else 0):
            codes[block, start + i] = np.int8(np.rint(vector[i] / largest * np.float32(127)))


@kernel
def _bit_planes(query: Any, signs: Any, planes: Any) -> Any:
    """Add to planes (num_words, 4) the query's; it turned, its unit, the sum of its components."""
    dim = len(query)
    turned = np.zeros(64 * len(planes), np.float32)
    turned[:dim] = query
    rotate(turned[:dim], signs)
    bits = turned.view(np.int32)
    largest = np.int32(0)
    for i in range(dim):  # without its sign, a float's bits order as an integer's
        largest = max(largest, bits[i] & np.int32(0x7FFF_FFFF))
    unit = _score_of(np.int64(largest) << 32) / np.float32(7)
    if unit == 0:
        unit = np.float32(1)
    total = np.int64(0)
    for word in range(len(planes)):
        for part in range(0, 64, _LANES):
            found = _planes_at(turned, 64 * word + part, unit)
            for plane in range(_PLANES):
                bit = (found >> (_LANES * plane)) & 0xFFFF
                planes[word, plane] |= np.uint64(bit) << np.uint64(part)
                total += (-_count(bit) if plane == _PLANES - 1 else _count(bit)) << plane
    return turned[:dim], unit, total


@kernel
def _short_query(query: Any, spread: Any) -> Any:
    """The query in int16, so fine that no sum with 127 times itself leaves int32; its unit."""
    largest, total = np.float64(0), np.float64(0)
    for i in range(len(query)):
        value = abs(np.float64(query[i]) * spread[i])
        largest, total = max(largest, value), total + value
    unit = max(largest / 32_000, total * 128 / 2.0e9)
    short = np.zeros(len(query), np.int16)
    if unit > 0:
        for i in range(len(query)):
            short[i] = np.int16(np.rint(query[i] * spread[i] / unit))
    return short, np.float32(unit)


@kernel
def _byte_dot(query: Any, codes: Any) -> Any:
    total = np.int32(0)
    for i in range(len(query)):
        total = np.int32(total + np.int32(np.int32(query[i]) * np.int32(codes[i])))
    return total


@kernel
def _order(keys: Any, size: Any) -> None:
    """Make a heap whose root is the least."""
    for at in range(size // 2 - 1, -1, -1):
        key, hole = keys[at], at
        while True:
            child = 2 * hole + 1
            if child >= size:
                break
            if child + 1 < size and keys[child + 1] < keys[child]:
                child += 1
            if keys[child] >= key:
                break
            keys[hole] = keys[child]
            hole = child
        keys[hole] = key


@kernel
def _all_lists(query: Any, centres: Any, taken: Any, keys: Any) -> Any:
    """Fill `keys` with a heap of the lists not taken yet, the nearest at its root; how many."""
    size = 0
    for each in range(len(taken)):
        if not taken[each]:
            keys[size] = ~_key(half_dot(query, centres, each), each)
            size += 1
    _order(keys, size)
    return size


@kernel
def _near_lists(
    query: Any, centres: Any, blocks: Any, planes: Any, settings: Any, keys: Any, n: Any
) -> Any:
    """The same for some n of the nearest lists, which are found by their centres' bits."""
    num_lists = len(centres) - 1
    settings[0], settings[3] = half_dot(query, centres, num_lists), np.float32(-np.inf)
    rough = np.empty(_SLOTS * len(blocks), np.float32)
    for block in range(len(blocks)):
        _bit_scores(planes, blocks, block, settings, rough[block * _SLOTS :])
    sample = rough[:num_lists:_SLOTS].copy()
    threshold = _nth(sample, len(sample), min(n // _SLOTS + 2, len(sample)))
    size = 0
    for each in range(num_lists):
        if rough[each] >= threshold:
            keys[size] = ~_key(half_dot(query, centres, each), each)
            size += 1
    _order(keys, size)
    return size


@kernel
def rank_lists(query: Any, centres: Any, ranks: Any) -> None:
    """Rank of each list for a query, 0 for the nearest, into ranks (num_lists,)."""
    keys = np.empty(len(ranks), np.int64)
    size = _all_lists(query, centres, np.zeros(len(ranks), np.bool_), keys)
    for rank in range(size):
        ranks[0xFFFF_FFFF - (~keys[0] & 0xFFFF_FFFF)] = rank
        _sink(keys, size - rank - 1, keys[size - rank - 1])


@kernel
def _some_slots(places: Any, block: Any, allowed: Any) -> Any:
    """A bit for each row of a block that is not full, 1 where it is allowed."""
    bits = np.int64(0)
    for lane in range(_SLOTS):
        place = places[block, lane]
        if place >= 0 and (len(allowed) == 0 or allowed[place] != 0):
            bits |= np.int64(1) << lane
    return bits


@kernel
def _byte_scores(
    query: Any, codes: Any, factors: Any, block: Any, lanes: Any, settings: Any, scores: Any
) -> Any:
    """Score those of the 8 rows of a block that are in `lanes`; which reach the threshold."""
    reach = np.int64(0)
    row_bytes = codes.shape[1] // 8 - _HEAD
    for lane in range(_SLOTS):
        if (lanes >> lane) & 1:
            start = 8 * _HEAD + lane * row_bytes
            product = np.float32(_byte_dot(query, codes[block, start : start + len(query)]))
            scores[lane] = factors[block, _SLOTS + lane] * product * settings[1]
            if scores[lane] >= settings[3]:
                reach |= np.int64(1) << lane
    return reach


@kernel
def _distinct(keys: Any, size: Any) -> Any:
    """The places of some keys, ascending and each once, int32."""
    places = np.empty(size, np.int32)
    for i in range(size):
        places[i] = 0xFFFF_FFFF - (keys[i] & 0xFFFF_FFFF)
    places.sort()
    found = 0
    for i in range(size):
        if i == 0 or places[i] != places[i - 1]:
            places[found] = places[i]
            found += 1
    return places[:found]


@kernel
def search_lists(
    query: Any,
    halves: Any,
    centres: Any,
    centre_blocks: Any,
    signs: Any,
    spread: Any,
    firsts: Any,
    blocks: Any,
    allowed: Any,
    least_probes: Any,
    least_allowed: Any,
    most_allowed: Any,
    depth: Any,
    scores: Any,
    places: Any,
    seen: Any,
) -> Any:
    """The best k of the rows in the lists nearest to a query; how many were found.

    Reads `least_probes` lists, then on until they held `least_allowed` allowed
    rows (and more, the fewer the first ones held), and k different ones; scores
    the best `depth` candidates again from `halves`. Where it would have to read
    more than `most_allowed` rows, it gives up and returns -1.

    The arrays:
        centres: (num_lists + 1, dim) uint16 halves; the last is the mean of the others.
        centre_blocks: Blocks of bits of the centres, as one list about that mean.
        signs: (num_rounds, dim) of `rotate`.
        spread: (dim,), see `fill_with_bytes`; empty where the codes are bits.
        firsts: (num_lists + 1,) int64: the first block of each list.
        blocks: Of all lists; a row lies in two of them.
        allowed: (num_rows,) uint8, or empty for every row.
        scores: (k,) float32, filled; places: (k,) int64, filled.
        seen: (3,) int64, filled: lists read, codes scored, rows scored from halves.
    """
    num_lists, by_bits = len(firsts) - 1, len(spread) == 0
    planes = np.zeros(((centre_blocks.shape[1] - _HEAD) // _SLOTS, _PLANES), np.uint64)
    settings = np.empty(4, np.float32)
    _, unit, total = _bit_planes(query, signs, planes)
    settings[1], settings[2] = 2 * unit, np.float32(total) / 2
    taken = np.zeros(num_lists, np.bool_)
    order = np.empty(num_lists, np.int64)
    near = _WIDER * least_probes + _SLOTS * _SLOTS
    if 2 * near < num_lists:
        left = _near_lists(query, centres, centre_blocks, planes, settings, order, near)
    else:
        left = _all_lists(query, centres, taken, order)
    short = np.empty(0, np.int16)
    if not by_bits:
        short, settings[1] = _short_query(query, spread)
    settings[3] = -np.inf
    row_places, factors = blocks.view(np.int32), blocks.view(np.float32)
    codes = blocks.view(np.int8)
    rough = np.empty(_SLOTS, np.float32)
    keys = np.empty(4 * depth + _SLOTS, np.int64)
    size, probes, scanned = 0, 0, 0
    lines = blocks.shape[1] // 8 if by_bits and len(allowed) == 0 else 1
    while probes < num_lists and (
        probes < least_probes or scanned < least_allowed or scanned < 2 * len(scores)
    ):
        if left == 0:
            left = _all_lists(query, centres, taken, order)
        settings[0] = _score_of(~order[0])
        each = 0xFFFF_FFFF - (~order[0] & 0xFFFF_FFFF)
        taken[each] = True
        left -= 1
        _sink(order, left, order[left])
        if left > 0:  # ask for the next list while this one is read
            then = 0xFFFF_FFFF - (~order[0] & 0xFFFF_FFFF)
            for block in range(firsts[then], firsts[then + 1]):
                _prefetch(blocks, block, lines)
        probes += 1
        if probes == least_probes + 1:
            # Where allowed rows are rarer near the query than elsewhere, the best lie scattered.
            rarer = least_allowed / max(scanned, 1)
            least_allowed = int(least_allowed * min(rarer, 1000.0) ** 1.5) if rarer > _RARER else 0
            if least_allowed > most_allowed:
                return -1
        for block in range(firsts[each], firsts[each + 1]):
            lanes = np.int64((1 << _SLOTS) - 1)
            if row_places[block, _SLOTS - 1] < 0:
                lanes = _some_slots(row_places, block, allowed)
            elif len(allowed) > 0:
                lanes = _allowed_of(blocks, block, allowed)
            if lanes == 0:
                continue
            if by_bits:
                reach = _bit_scores(planes, blocks, block, settings, rough) & lanes
            else:
                reach = _byte_scores(short, codes, factors, block, lanes, settings, rough)
            scanned += _count(lanes)
            while reach != 0:
                lane = _lowest(reach)
                reach &= reach - 1
                keys[size] = _key(rough[lane], row_places[block, lane])
                size += 1
            if size >= 4 * depth:
                settings[3] = _score_of(_nth(keys, size, depth))
                size = depth
    if size > depth:
        _nth(keys, size, depth)
        size = depth
    chosen = _distinct(keys, size)
    seen[0], seen[1], seen[2] = probes, scanned, len(chosen)
    return best_of(query, halves, chosen, scores, places)
