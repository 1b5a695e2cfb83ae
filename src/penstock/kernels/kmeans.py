"""Products of rows with many columns, in tiles that stay in registers: distances and near pairs.

Rows are worked on `TILE` at a time. What they are multiplied with lies in
*panels* of a few columns, (num_panels, dim, width), so that a step of the inner
loop loads a panel's line once and multiplies it with each row of the tile. A
tile's products never leave the processor's first cache: what is looked for,
the least distance or the pairs above a threshold, is taken from them at once.

Each product is a chain of fused multiply-adds over the components in order, the
same wherever the pair lies in a tile: so a distance is the same bit for bit, in
whatever block, thread or pass it is computed. This is what makes skipping exact.

Works in float32 and float64. The width of a vector, and so of a panel, follows the processor's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from penstock.kernels.compiled import kernel


def _shape() -> tuple[int, int]:
    """Bytes of a vector, and rows of a tile: as many sums as there are registers for."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 12  # 24 sums, 2 vectors of the panel and a row's component of 32 registers
    return (32, 6) if features.get("avx") else (16, 12)


_VECTOR_BYTES, TILE = _shape()
_VECTORS = 2  # of a panel's line
_LINE = 2048  # bytes of a tile's row that are multiplied in one go
_GAP = 64  # bytes between rows, else all would compete for the same lines of the first cache
_TILES = 8  # tiles that share the reading of a panel

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def width(dtype: Any) -> int:
    """Columns of a panel."""
    return _VECTORS * _VECTOR_BYTES // int(np.dtype(dtype).itemsize)


def panels_of(columns: Any) -> Any:
    """Columns (num_columns, dim) as panels (num_panels, dim, width), filled up with zeros."""
    num, dim = columns.shape
    size = width(columns.dtype)
    padded = np.zeros((-(-num // size) * size, dim), columns.dtype)
    padded[:num] = columns
    return np.ascontiguousarray(padded.reshape(-1, size, dim).transpose(0, 2, 1))


def tiles(dim: int, dtype: Any) -> Any:
    """Room for a block of rows cut into tiles, (num_tiles, num_lines, TILE, stride)."""
    size = int(np.dtype(dtype).itemsize)
    num_lines = max(1, -(-dim * size // _LINE))
    return np.zeros((_TILES, num_lines, TILE, (_LINE + _GAP) // size), dtype)


def _parts(context: Any, builder: Any, signature: Any, args: Any, i: int) -> Any:
    return context.make_array(signature.args[i])(context, builder, args[i])


def _kinds(array_type: Any) -> tuple[Any, int, int]:
    """A float type of LLVM, its lanes in a vector, and its bytes."""
    single = array_type.dtype == types.float32
    size = 4 if single else 8
    return (ir.FloatType() if single else ir.DoubleType()), _VECTOR_BYTES // size, size


@intrinsic
def _multiply(
    typing: Any, tiles: Any, tile: Any, line: Any, panels: Any, panel: Any, count: Any, out: Any
) -> Any:
    """Add to out (TILE, width) the products of one line of a tile with a panel, `count` long."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        real, lanes, size = _kinds(signature.args[0])
        vector = ir.VectorType(real, lanes)
        stride = (_LINE + _GAP) // size
        whole = [
            context.cast(builder, args[i], signature.args[i], types.int64) for i in (1, 2, 4, 5)
        ]
        rows, columns = (_parts(context, builder, signature, args, i) for i in (0, 3))
        sums = _parts(context, builder, signature, args, 6).data
        lines = builder.extract_value(rows.shape, 1)
        at = builder.mul(builder.add(builder.mul(whole[0], lines), whole[1]), _I64(TILE * stride))
        row = builder.gep(rows.data, [at])
        dim = builder.extract_value(columns.shape, 1)
        at = builder.add(builder.mul(whole[2], dim), builder.mul(whole[1], _I64(_LINE // size)))
        column = builder.gep(columns.data, [builder.mul(at, _I64(_VECTORS * lanes))])
        name = f"llvm.fma.v{lanes}f{size * 8}"
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), name
        )

        def place(i: int) -> Any:
            pointer = builder.gep(sums, [_I64(i * lanes)])
            return builder.bitcast(pointer, vector.as_pointer())

        num = TILE * _VECTORS
        before = builder.block
        start = [builder.load(place(i), align=size) for i in range(num)]
        body, after = (builder.append_basic_block(name) for name in ("multiply", "multiplied"))
        builder.branch(body)
        builder.position_at_end(body)
        step = builder.phi(_I64)
        step.add_incoming(_I64(0), before)
        totals = [builder.phi(vector) for _ in range(num)]
        line_at = builder.mul(step, _I64(_VECTORS * lanes))
        loaded = []
        for v in range(_VECTORS):
            pointer = builder.gep(column, [builder.add(line_at, _I64(v * lanes))])
            loaded.append(builder.load(builder.bitcast(pointer, vector.as_pointer()), align=size))
        zeros = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
        nothing = ir.Constant(vector, ir.Undefined)
        results = []
        for r in range(TILE):
            value = builder.load(builder.gep(row, [builder.add(step, _I64(r * stride))]))
            one = builder.insert_element(nothing, value, _I32(0))
            spread = builder.shuffle_vector(one, nothing, zeros)
            for v in range(_VECTORS):
                total = totals[r * _VECTORS + v]
                results.append(builder.call(fma, [spread, loaded[v], total]))
        for total, first, result in zip(totals, start, results, strict=True):
            total.add_incoming(first, before)
            total.add_incoming(result, body)
        following = builder.add(step, _I64(1))
        step.add_incoming(following, body)
        builder.cbranch(builder.icmp_signed("<", following, whole[3]), body, after)
        builder.position_at_end(after)
        for i, result in enumerate(results):
            builder.store(result, place(i), align=size)
        return context.get_dummy_value()

    signature = types.void(tiles, types.int64, types.int64, panels, types.int64, types.int64, out)
    return signature, codegen


@intrinsic
def _two_least(typing: Any, products: Any, row: Any, offsets: Any, panel: Any) -> Any:
    """The two least of offsets[panel] - products[row], and the first lane that has the least."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        real, lanes, size = _kinds(signature.args[0])
        vector = ir.VectorType(real, lanes)
        total_lanes = _VECTORS * lanes

        def vectors(i: int) -> list[Any]:
            whole = context.cast(builder, args[i + 1], signature.args[i + 1], types.int64)
            data = _parts(context, builder, signature, args, i).data
            at = builder.mul(whole, _I64(total_lanes))
            found = []
            for v in range(_VECTORS):
                pointer = builder.gep(data, [builder.add(at, _I64(v * lanes))])
                pointer = builder.bitcast(pointer, vector.as_pointer())
                found.append(builder.load(pointer, align=size))
            return found

        values = [builder.fsub(o, p) for p, o in zip(vectors(0), vectors(2), strict=True)]

        def less(a: Any, b: Any) -> Any:
            return builder.select(builder.fcmp_ordered("<", a, b), a, b)

        def least(parts: list[Any]) -> Any:
            low = parts[0]
            for part in parts[1:]:
                low = less(low, part)
            left = lanes
            while left > 1:
                left //= 2
                nothing = ir.Constant(low.type, ir.Undefined)
                halves = [
                    builder.shuffle_vector(
                        low,
                        nothing,
                        ir.Constant(ir.VectorType(_I32, left), list(range(f, f + left))),
                    )
                    for f in (0, left)
                ]
                low = less(halves[0], halves[1])
            return builder.extract_element(low, _I32(0))

        first = least(values)
        nothing = ir.Constant(vector, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
        spread = builder.shuffle_vector(
            builder.insert_element(nothing, first, _I32(0)), nothing, zeros
        )
        bits = _I64(0)
        for v, value in enumerate(values):
            equal = builder.fcmp_ordered("==", value, spread)
            mask = builder.zext(builder.bitcast(equal, ir.IntType(lanes)), _I64)
            bits = builder.or_(bits, builder.shl(mask, _I64(v * lanes)))
        lane = builder.cttz(bits, ir.Constant(ir.IntType(1), 0))
        # All but that one lane; two equal values are both the least.
        endless = ir.Constant(vector, [float("inf")] * lanes)
        others = []
        for v, value in enumerate(values):
            numbers = ir.Constant(ir.VectorType(_I64, lanes), [v * lanes + i for i in range(lanes)])
            many = ir.VectorType(_I64, lanes)
            whole = builder.shuffle_vector(
                builder.insert_element(ir.Constant(many, ir.Undefined), lane, _I32(0)),
                ir.Constant(many, ir.Undefined),
                zeros,
            )
            same = builder.icmp_unsigned("==", numbers, whole)
            others.append(builder.select(same, endless, value))
        return context.make_tuple(builder, signature.return_type, [first, least(others), lane])

    real = products.dtype
    result = types.Tuple([real, real, types.int64])
    return result(products, row, offsets, panel), codegen


@intrinsic
def _reaching(typing: Any, products: Any, row: Any, threshold: Any) -> Any:
    """Which lanes of products[row] reach the threshold, a bit each."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        real, lanes, size = _kinds(signature.args[0])
        vector = ir.VectorType(real, lanes)
        whole = context.cast(builder, args[1], signature.args[1], types.int64)
        data = _parts(context, builder, signature, args, 0).data
        nothing = ir.Constant(vector, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
        one = builder.insert_element(nothing, args[2], _I32(0))
        spread = builder.shuffle_vector(one, nothing, zeros)
        bits = _I64(0)
        for v in range(_VECTORS):
            at = builder.add(builder.mul(whole, _I64(_VECTORS * lanes)), _I64(v * lanes))
            pointer = builder.bitcast(builder.gep(data, [at]), vector.as_pointer())
            reached = builder.fcmp_ordered(">=", builder.load(pointer, align=size), spread)
            mask = builder.zext(builder.bitcast(reached, ir.IntType(lanes)), _I64)
            bits = builder.or_(bits, builder.shl(mask, _I64(v * lanes)))
        return bits

    return types.int64(products, row, products.dtype), codegen


@intrinsic
def _lowest(typing: Any, bits: Any) -> Any:
    """Number of the lowest bit that is set."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), codegen


@kernel
def _pack(points: Any, rows: Any, mean: Any, room: Any) -> None:
    """Copy rows, less the mean, into a block of tiles; what is left over of the last is zero."""
    per_line = room.shape[3] - _GAP // room.itemsize
    for i in range(-(-len(rows) // TILE) * TILE):
        tile, r = i // TILE, i % TILE
        for line in range(room.shape[1]):
            first = line * per_line
            count = min(per_line, points.shape[1] - first)
            to = room[tile, line, r, :count]
            if i < len(rows):
                values, middle = points[rows[i], first : first + count], mean[first:]
                for j in range(count):
                    to[j] = values[j] - middle[j]
            else:
                to[:] = 0


@kernel
def _products(room: Any, tile: Any, panels: Any, panel: Any, out: Any) -> None:
    """Products of a tile with a panel, out (TILE, width)."""
    per_line = room.shape[3] - _GAP // room.itemsize
    out[:] = 0
    for line in range(room.shape[1]):
        count = min(per_line, panels.shape[1] - line * per_line)
        _multiply(room, tile, line, panels, panel, count, out)


@kernel
def _look(
    room: Any,
    count: Any,
    panels: Any,
    offsets: Any,
    first: Any,
    last: Any,
    out: Any,
    low: Any,
    second: Any,
    label: Any,
) -> None:
    """Of each row of a block: the two least in these panels, and which column has the least."""
    columns = offsets.shape[1]
    low[:count] = np.inf
    second[:count] = np.inf
    label[:count] = first * columns
    for panel in range(first, last):
        for tile in range(-(-count // TILE)):
            _products(room, tile, panels, panel, out)
            for i in range(tile * TILE, min(count, tile * TILE + TILE)):
                a, b, lane = _two_least(out, i - tile * TILE, offsets, panel)
                if a < low[i]:
                    second[i] = min(low[i], b)
                    low[i], label[i] = a, panel * columns + lane
                else:
                    second[i] = min(second[i], a)


@kernel
def _take(
    row: Any,
    g: Any,
    low: Any,
    second: Any,
    label: Any,
    owners: Any,
    square: Any,
    labels: Any,
    least: Any,
    lower: Any,
) -> None:
    """Note what group `g` has for a point: its least, its second least, and whose the least is."""
    bound = low
    if low < least[row]:
        if len(lower) > 0 and least[row] < np.inf:
            own = owners[labels[row]]
            lower[row, own] = min(lower[row, own], np.sqrt(max(square + 2 * least[row], 0)))
        labels[row], least[row] = label, low
        bound = second
    if len(lower) > 0:
        lower[row, g] = np.sqrt(max(square + 2 * bound, 0))


@kernel
def nearest(
    points: Any,
    first: Any,
    last: Any,
    mean: Any,
    squares: Any,
    panels: Any,
    offsets: Any,
    groups: Any,
    owners: Any,
    room: Any,
    labels: Any,
    least: Any,
    lower: Any,
) -> None:
    """The nearest centre of each point from `first` to `last`.

    Args:
        points: (num_points, dim), float32 or float64 like all that is not told here.
        first: Point.
        last: Point, exclusive.
        mean: (dim,), taken off the points; the centres have it taken off.
        squares: (num_points,), square of each point's length, less the mean.
        panels: Of the centres, as `panels_of`.
        offsets: (num_panels, width), half the square of each centre; inf fills up the last panel.
        groups: (num_groups + 1,) int64, the first panel of each group.
        owners: (num_panels * width,) int32, the group of each centre.
        room: As `tiles` makes.
        labels: (num_points,) int32, filled.
        least: (num_points,), filled with the squared distance to the nearest centre.
        lower: (num_points, num_groups), filled with the least distance to a centre of the
            group that is not the nearest of all; or (0, 0): not wanted.
    """
    size = len(room) * TILE
    rows = np.empty(size, np.int64)
    out = np.empty((TILE, offsets.shape[1]), points.dtype)
    low, second = np.empty(size, points.dtype), np.empty(size, points.dtype)
    label = np.empty(size, np.int64)
    for start in range(first, last, size):
        count = min(size, last - start)
        for i in range(count):
            rows[i] = start + i
            labels[start + i], least[start + i] = 0, np.inf
        _pack(points, rows[:count], mean, room)
        for g in range(len(groups) - 1):
            _look(room, count, panels, offsets, groups[g], groups[g + 1], out, low, second, label)
            for i in range(count):
                row = start + i
                square = squares[row]
                _take(row, g, low[i], second[i], label[i], owners, square, labels, least, lower)
        for row in range(start, start + count):
            least[row] = max(squares[row] + 2 * least[row], 0)


@kernel
def nearest_again(
    points: Any,
    first: Any,
    last: Any,
    mean: Any,
    squares: Any,
    panels: Any,
    offsets: Any,
    groups: Any,
    owners: Any,
    room: Any,
    labels: Any,
    least: Any,
    lower: Any,
    drifts: Any,
    margin: Any,
) -> Any:
    """As `nearest`, after the centres have moved: looks only at groups that may be nearer.

    A centre that moved by some distance is nearer by that at most. `least` and
    `lower` are those of the call before; where nothing can be nearer, `least`
    is left as an upper bound.

    Args:
        points: See `nearest` for this and the following.
        first: .
        last: .
        mean: .
        squares: .
        panels: .
        offsets: .
        groups: .
        owners: .
        room: .
        labels: .
        least: .
        lower: .
        drifts: (num_panels * width,), how far each centre moved.
        margin: By how much a square may be off by rounding.

    Returns:
        How many groups were looked at.

    Source: Ding et al. 2015 (Yinyang k-means), its global and group filters.
    """
    num_groups = len(groups) - 1
    size = len(room) * TILE
    rows = np.empty(size, np.int64)
    out = np.empty((TILE, offsets.shape[1]), points.dtype)
    low, second = np.empty(size, points.dtype), np.empty(size, points.dtype)
    label = np.empty(size, np.int64)
    group_drift = np.zeros(num_groups, points.dtype)
    for c in range(len(drifts)):
        group_drift[owners[c]] = max(group_drift[owners[c]], drifts[c])
    marks = np.zeros((num_groups, last - first), np.bool_)
    before = np.full(last - first, -1, np.int32)
    for row in range(first, last):
        moved = np.sqrt(least[row]) + drifts[labels[row]]
        least[row] = moved * moved
        closest = lower[row, 0] - group_drift[0]
        for g in range(num_groups):
            lower[row, g] -= group_drift[g]
            closest = min(closest, lower[row, g])
        if closest <= np.sqrt(least[row] + margin):
            before[row - first] = owners[labels[row]]
            marks[before[row - first], row - first] = True
            least[row] = np.inf
    looked = 0
    for turn in range(2):  # its own group first: that may be enough
        for g in range(num_groups):
            at = 0
            while at < last - first:
                count = 0
                while at < last - first and count < size:
                    if marks[g, at]:
                        marks[g, at] = False
                        rows[count] = first + at
                        count += 1
                    at += 1
                if count == 0:
                    continue
                looked += count
                _pack(points, rows[:count], mean, room)
                _look(
                    room, count, panels, offsets, groups[g], groups[g + 1], out, low, second, label
                )
                for i in range(count):
                    row = rows[i]
                    sq = squares[row]
                    _take(row, g, low[i], second[i], label[i], owners, sq, labels, least, lower)
        if turn == 0:
            for i in range(last - first):
                if before[i] >= 0:
                    row = first + i
                    most = np.sqrt(max(squares[row] + 2 * least[row], 0) + margin)
                    for g in range(num_groups):
                        marks[g, i] = g != before[i] and lower[row, g] <= most
    for i in range(last - first):
        if before[i] >= 0:
            row = first + i
            least[row] = max(squares[row] + 2 * least[row], 0)
    return looked


@kernel
def distances(
    points: Any,
    first: Any,
    last: Any,
    mean: Any,
    squares: Any,
    panels: Any,
    offsets: Any,
    room: Any,
    out: Any,
) -> None:
    """Squared distance of these points to every centre, into out (last - first, num_centres)."""
    size, columns = len(room) * TILE, offsets.shape[1]
    rows = np.empty(size, np.int64)
    tile_out = np.empty((TILE, columns), points.dtype)
    for start in range(first, last, size):
        count = min(size, last - start)
        for i in range(count):
            rows[i] = start + i
        _pack(points, rows[:count], mean, room)
        for panel in range(len(panels)):
            column = panel * columns
            for tile in range(-(-count // TILE)):
                _products(room, tile, panels, panel, tile_out)
                for i in range(tile * TILE, min(count, tile * TILE + TILE)):
                    row = start + i
                    for j in range(min(columns, out.shape[1] - column)):
                        half = offsets[panel, j] - tile_out[i - tile * TILE, j]
                        out[row - first, column + j] = max(squares[row] + 2 * half, 0)


@kernel
def squares_of(points: Any, first: Any, last: Any, mean: Any, out: Any) -> None:
    """Square of the length of each of these points, less the mean, added up in double."""
    for row in range(first, last):
        a, b, c, d = 0.0, 0.0, 0.0, 0.0
        whole = points.shape[1] // 4 * 4
        for j in range(0, whole, 4):  # four sums, for one addition waits for the one before
            v, w = (
                np.float64(points[row, j] - mean[j]),
                np.float64(points[row, j + 1] - mean[j + 1]),
            )
            x = np.float64(points[row, j + 2] - mean[j + 2])
            y = np.float64(points[row, j + 3] - mean[j + 3])
            a, b, c, d = a + v * v, b + w * w, c + x * x, d + y * y
        for j in range(whole, points.shape[1]):
            v = np.float64(points[row, j] - mean[j])
            a += v * v
        out[row] = (a + b) + (c + d)


@kernel
def moments(points: Any, first: Any, last: Any, mean: Any, sums: Any, squares: Any) -> None:
    """Add these points, less the mean, and their squares to sums and squares, (dim,) float64."""
    for row in range(first, last):
        for j in range(points.shape[1]):
            value = np.float64(points[row, j]) - mean[j]
            sums[j] += value
            squares[j] += value * value


@kernel
def sum_members(
    points: Any, mean: Any, weights: Any, members: Any, bounds: Any, first: Any, last: Any, out: Any
) -> None:
    """Sums of runs of members, out (num_runs, dim) float64, for the runs from first to last.

    members (num_points,) int64 are points; bounds (num_runs, 2) int64 say where
    in them a run is; weights (num_points,) float64, or empty where all are 1.
    """
    for run in range(first, last):
        for i in range(bounds[run, 0], bounds[run, 1]):
            row = members[i]
            weight = weights[row] if len(weights) > 0 else 1.0
            for j in range(points.shape[1]):
                out[run, j] += weight * np.float64(points[row, j] - mean[j])


@kernel
def spread_of(
    points: Any,
    first: Any,
    last: Any,
    mean: Any,
    weights: Any,
    labels: Any,
    centres: Any,
) -> Any:
    """Weighted sum of squared distances of these points to their centres, by differences."""
    dim = points.shape[1]
    parts = np.zeros(dim, np.float64)
    for row in range(first, last):
        weight = weights[row] if len(weights) > 0 else 1.0
        for j in range(dim):
            value = np.float64(points[row, j] - mean[j]) - centres[labels[row], j]
            parts[j] += weight * value * value
    total = 0.0
    for j in range(dim):
        total += parts[j]
    return total


@kernel
def turn(points: Any, mean: Any, first: Any, last: Any, out: Any) -> None:
    """Blocks of points by component, less the mean, out (num_blocks, dim, size); then zeros."""
    size = out.shape[2]
    for block in range(first, last):
        for i in range(size):
            row = block * size + i
            for j in range(points.shape[1]):
                out[block, j, i] = points[row, j] - mean[j] if row < len(points) else 0


@kernel
def few(
    turned: Any, num_points: Any, first: Any, last: Any, centres: Any, labels: Any, sums: Any
) -> Any:
    """Assign these blocks of points to the nearest of few centres, and sum them up, in one pass.

    Args:
        turned: As `turn` makes.
        num_points: How many points there are.
        first: Block.
        last: Block, exclusive.
        centres: (num_centres, dim) float64.
        labels: (num_blocks, size) int32, of the pass before; filled.
        sums: (num_centres, dim + 1) float64, filled with sums and numbers of the points.

    Returns:
        Whether a label changed.
    """
    k, dim = centres.shape
    size = turned.shape[2]
    best, square = np.empty(size, turned.dtype), np.empty(size, turned.dtype)
    found = np.empty(size, np.int32)
    middle = centres.astype(turned.dtype)
    lanes = np.zeros((k, dim, size), np.float64)
    sums[:] = 0
    changed = np.int32(0)
    for block in range(first, last):
        points = turned[block]
        best[:] = np.inf
        found[:] = 0
        for c in range(k):
            square[:] = 0
            for j in range(dim):
                _add_squares(points[j], middle[c, j], square)
            _take_nearer(square, np.int32(c), best, found)
        valid = min(size, num_points - block * size)
        found[valid:] = -1
        own = labels[block]
        for i in range(size):
            changed |= own[i] ^ found[i]
            own[i] = found[i]
        for c in range(k):
            this = np.int32(c)
            number = 0
            for i in range(size):
                number += found[i] == this
            sums[c, dim] += number
            for j in range(dim):
                _add_members(points[j], found, this, lanes[c, j])
    for c in range(k):
        for j in range(dim):
            total = 0.0
            for i in range(size):
                total += lanes[c, j, i]
            sums[c, j] = total
    return changed != 0


# Loops of their own, without a branch, so that the compiler makes vectors of them.


@kernel
def _add_squares(values: Any, middle: Any, square: Any) -> None:
    for i in range(len(square)):
        value = values[i] - middle
        square[i] += value * value


@kernel
def _take_nearer(square: Any, this: Any, best: Any, found: Any) -> None:
    for i in range(len(best)):
        nearer = square[i] < best[i]
        found[i] = this if nearer else found[i]
        best[i] = square[i] if nearer else best[i]


@kernel
def _add_members(values: Any, found: Any, this: Any, lanes: Any) -> None:
    for i in range(len(lanes)):
        lanes[i] += np.float64(values[i]) if found[i] == this else 0.0


@kernel
def pairs_reaching(
    points: Any,
    rows: Any,
    mean: Any,
    panels: Any,
    columns: Any,
    threshold: Any,
    room: Any,
    left: Any,
    right: Any,
    scores: Any,
    found: Any,
    start: Any,
) -> Any:
    """Pairs of a row and another column whose product reaches the threshold.

    Args:
        points: (num_points, dim).
        rows: (num_rows,) int64, points.
        mean: (dim,) zeros.
        panels: Of the points in `columns`.
        columns: (num_columns,) int64, points.
        threshold: Least product.
        room: As `tiles` makes.
        left: (num_pairs,) int64, filled with the pair's smaller point.
        right: (num_pairs,) int64, filled with the larger.
        scores: (num_pairs,), filled.
        found: How many there are already.
        start: The first row to look at.

    Returns:
        How many there are now, and the first row that was not looked at for want of room.
    """
    size, width = len(room) * TILE, panels.shape[2]
    out = np.empty((TILE, width), points.dtype)
    for first in range(start, len(rows), size):
        count = min(size, len(rows) - first)
        if found + count * len(columns) > len(left):
            return found, first
        _pack(points, rows[first : first + count], mean, room)
        for panel in range(len(panels)):
            for tile in range(-(-count // TILE)):
                _products(room, tile, panels, panel, out)
                for i in range(tile * TILE, min(count, tile * TILE + TILE)):
                    bits = _reaching(out, i - tile * TILE, threshold)
                    while bits != 0:
                        lane = _lowest(bits)
                        bits &= bits - 1
                        column = panel * width + lane
                        if column < len(columns) and columns[column] != rows[first + i]:
                            left[found] = min(columns[column], rows[first + i])
                            right[found] = max(columns[column], rows[first + i])
                            scores[found] = out[i - tile * TILE, lane]
                            found += 1
    return found, len(rows)


@kernel
def represent(
    firsts: Any, others: Any, scores: Any, order: Any, rank: Any, kept: Any, best: Any
) -> None:
    """Who stays for each row: rows in their order stay unless linked with one that does.

    Args:
        firsts: (num_rows + 1,) where the links of each row begin.
        others: (num_links,) the other row of each link; each link is there from both sides.
        scores: (num_links,) of the links.
        order: (num_rows,) rows in the order in which they are taken.
        rank: (num_rows,) the place of each row in that order.
        kept: (num_rows,) int64 of the row's own number; filled.
        best: (num_rows,) float32 of -inf; filled with the score of the link to who stays.
    """
    for row in order:
        if kept[row] != row:
            continue
        for i in range(firsts[row], firsts[row + 1]):
            other = others[i]
            if rank[other] > rank[row] and scores[i] > best[other]:
                best[other], kept[other] = scores[i], row
