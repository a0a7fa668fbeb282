"""Instructions that numba has no functions for: bit counts, and sums of rows in vector registers."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mksgn.deploy.kernels.blocks import VECTOR

WIDE = 4  # vectors that are kept in registers at a time

INT64 = ir.IntType(64)


@intrinsic
def trailing_zeros(_, word):
    """Count the zero bits below the lowest set bit of a uint64; 64 if none is set."""

    def generate(_context, builder, _signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def set_bits(_, word):
    """Count the set bits of an unsigned word, as a word of its type."""

    def generate(_context, builder, _signature, arguments):
        return builder.ctpop(arguments[0])

    return word(word), generate


@intrinsic
def load_word(_, spikes, first):
    """Read 8 bytes of a contiguous uint8 array as one uint64."""

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), INT64.as_pointer())
        return builder.load(place, align=1)

    return types.uint64(spikes, types.int64), generate


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
