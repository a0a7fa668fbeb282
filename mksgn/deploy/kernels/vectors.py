"""Instructions that numba has no functions for: bit counts, and sums of rows in vector registers."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mksgn.deploy.kernels.blocks import VECTOR

LANES = 8  # of 32 bits
WIDE = 4  # vectors that are kept in registers at a time

INT32, INT64 = ir.IntType(32), ir.IntType(64)


@intrinsic
def set_bits(_, word):
    """Count the set bits of an unsigned word, as a word of its type."""

    def generate(_context, builder, _signature, arguments):
        return builder.ctpop(arguments[0])

    return word(word), generate


def _packing(name: str, number: int) -> Any:
    """Make the function that reads `number` bytes of 0 or 1 as the bits of a word."""

    def pack(_, spikes, first):
        def generate(context, builder, signature, arguments):
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            several = ir.VectorType(ir.IntType(8), number)
            place = builder.bitcast(builder.gep(array.data, [arguments[1]]), several.as_pointer())
            fires = builder.icmp_unsigned("!=", builder.load(place, align=1), ir.Constant(several, [0] * number))
            return builder.zext(builder.bitcast(fires, ir.IntType(number)), INT64)

        return types.uint64(spikes, types.int64), generate

    pack.__name__ = pack.__qualname__ = name
    return intrinsic(pack)


bits_of_8, bits_of_16, bits_of_32 = (_packing(f"bits_of_{number}", number) for number in (8, 16, 32))


def _splat(builder: Any, value: Any, vector: Any) -> Any:
    """Put a value into all elements of a vector."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, INT32(0))
    zeros = ir.Constant(ir.VectorType(INT32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


@intrinsic
def count_common_bits(_, counts, row, at, queries, query, keys, first, number):
    """Count the set bits that a word, or a column of words, has in common with each of several others.

    counts[row, at + j] = sum over w of set_bits(queries[w, query] & keys[w, first + j]), 0 <= j < number

    Up to LANES - 1 counts and keys beyond are written and read: they have to be there, and may hold anything.

    Args:
        counts: int16 or int32 (rows, C), contiguous.
        row, at: where to write.
        queries: uint32 (W, ...), contiguous.
        query: column of the queries.
        keys: uint32 (W, ...), contiguous.
        first: column of the first key.
        number: number of keys.
    """

    def generate(context, builder, signature, arguments):
        counts_array, query_array, key_array = (
            context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 3, 5)
        )
        words, columns = cgutils.unpack_tuple(builder, query_array.shape)
        pitch = cgutils.unpack_tuple(builder, key_array.shape)[1]
        width = cgutils.unpack_tuple(builder, counts_array.shape)[1]
        lanes, stored = ir.VectorType(INT32, LANES), ir.VectorType(counts_array.data.type.pointee, LANES)
        start = builder.add(builder.mul(arguments[1], width), arguments[2])
        kind, name = ir.FunctionType(lanes, [lanes]), f"llvm.ctpop.v{LANES}i32"
        set_bits_of_lanes = cgutils.get_or_insert_function(builder.module, kind, name)

        def common(word: Any, j: Any) -> Any:
            place = builder.add(builder.mul(word, columns), arguments[4])
            one = builder.load(builder.gep(query_array.data, [place]))
            place = builder.add(builder.mul(word, pitch), builder.add(arguments[6], j))
            key = builder.load(builder.bitcast(builder.gep(key_array.data, [place]), lanes.as_pointer()), align=4)
            return builder.call(set_bits_of_lanes, [builder.and_(_splat(builder, one, lanes), key)])

        total = cgutils.alloca_once(builder, lanes)
        with cgutils.for_range_slice(builder, INT64(0), arguments[7], INT64(LANES), inc=True) as (j, _):
            builder.store(common(INT64(0), j), total)
            with cgutils.for_range_slice(builder, INT64(1), words, INT64(1), inc=True) as (word, _):
                builder.store(builder.add(builder.load(total), common(word, j)), total)
            target = builder.bitcast(builder.gep(counts_array.data, [builder.add(start, j)]), stored.as_pointer())
            found = builder.load(total)
            builder.store(found if stored == lanes else builder.trunc(found, stored), target, align=2)
        return context.get_dummy_value()

    integers = types.int64
    signature = types.void(counts, integers, integers, queries, integers, keys, integers, integers)
    return signature, generate


@intrinsic
def list_bits(_, listed, at, places, mask, first):
    """Write the row `mask` of `places`, plus `first`, to listed[at : at + 8], in one instruction.

    Args:
        listed: int32, contiguous.
        at: where to write.
        places: int32 (256, 8), contiguous.
        mask: int64, a row of `places`.
        first: int64, what is added.
    """

    def generate(context, builder, signature, arguments):
        listed_array, places_array = (
            context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2)
        )
        row = ir.VectorType(INT32, 8)
        source = builder.gep(places_array.data, [builder.mul(arguments[3], ir.Constant(INT64, 8))])
        places_of_mask = builder.load(builder.bitcast(source, row.as_pointer()), align=4)
        added = _splat(builder, builder.trunc(arguments[4], INT32), row)
        target = builder.bitcast(builder.gep(listed_array.data, [arguments[1]]), row.as_pointer())
        builder.store(builder.add(places_of_mask, added), target, align=4)
        return context.get_dummy_value()

    return types.void(listed, types.int64, places, types.int64, types.int64), generate


@intrinsic
def add_rows(_, sums, target, weight, block, listed, first, end):
    """Add rows of a block of weights to a row of accumulators.

    sums[target] += weight[block][listed[first:end]].sum(0)

    The accumulators stay in registers while the rows are added. The compiler does not find this
    form by itself, since it cannot know that the arrays do not overlap.

    Args:
        sums: int16 or int32 (rows, C), C a multiple of VECTOR, contiguous.
        target: row of the accumulators.
        weight: int8 (blocks, C_in, C), contiguous.
        block: index of the block.
        listed: int32, indices of rows.
        first, end: which of them.
    """

    def generate(context, builder, signature, arguments):
        sums_array, weight_array, listed_array = (
            context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2, 4)
        )
        row, block_of, start, stop = (arguments[i] for i in (1, 3, 5, 6))
        width = cgutils.unpack_tuple(builder, sums_array.shape)[1]
        inputs = cgutils.unpack_tuple(builder, weight_array.shape)[1]
        rows = builder.gep(weight_array.data, [builder.mul(block_of, builder.mul(inputs, width))])
        accumulators = builder.gep(sums_array.data, [builder.mul(row, width)])
        column = cgutils.alloca_once_value(builder, ir.Constant(INT64, 0))
        for vectors in (WIDE, 1):
            _columns(builder, column, width, vectors, accumulators, rows, listed_array.data, start, stop)
        return context.get_dummy_value()

    signature = types.void(sums, types.int64, weight, types.int64, listed, types.int64, types.int64)
    return signature, generate


def _columns(
    builder: Any, column: Any, width: Any, vectors: int, sums: Any, rows: Any, listed: Any, start: Any, stop: Any
) -> None:
    """Loop over the columns of a row in steps of some vectors, as long as they fit."""
    step = ir.Constant(INT64, vectors * VECTOR)
    stored, read = (ir.VectorType(pointer.type.pointee, vectors * VECTOR) for pointer in (sums, rows))
    head, body, done = (builder.append_basic_block(name) for name in ("columns", "column", "columns_end"))
    builder.branch(head)
    builder.position_at_end(head)
    at = builder.load(column)
    builder.cbranch(builder.icmp_signed("<=", builder.add(at, step), width), body, done)
    builder.position_at_end(body)
    place = builder.bitcast(builder.gep(sums, [at]), stored.as_pointer())
    before = builder.load(place, align=2)
    entry = builder.block
    loop, after = builder.append_basic_block("events"), builder.append_basic_block("events_end")
    builder.branch(loop)
    builder.position_at_end(loop)
    i, total = builder.phi(INT64), builder.phi(stored)
    i.add_incoming(start, entry)
    total.add_incoming(before, entry)
    index = builder.zext(builder.load(builder.gep(listed, [i])), INT64)
    source = builder.gep(rows, [builder.add(builder.mul(index, width), at)])
    row = builder.load(builder.bitcast(source, read.as_pointer()), align=1)
    added = builder.add(total, builder.sext(row, stored))
    following = builder.add(i, ir.Constant(INT64, 1))
    i.add_incoming(following, loop)
    total.add_incoming(added, loop)
    builder.cbranch(builder.icmp_signed("<", following, stop), loop, after)
    builder.position_at_end(after)
    builder.store(added, place, align=2)
    builder.store(builder.add(at, step), column)
    builder.branch(head)
    builder.position_at_end(done)
