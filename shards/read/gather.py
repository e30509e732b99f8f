"""Copy rows from arbitrary addresses into one batch, without the interpreter lock."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def _memcpy(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """Call memcpy(target, source, count) with integer addresses."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        destination, origin = (builder.inttoptr(address, pointer) for address in arguments[:2])
        cgutils.raw_memcpy(builder, destination, origin, arguments[2], 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@njit(["void(int64[::1], int64, int64)"], nogil=True, cache=True)
def _copy(sources: np.ndarray, target: int, row: int) -> None:
    for i in range(len(sources)):
        # The compiler passes the intrinsic's first argument itself
        _memcpy(target + i * row, sources[i], row)  # type: ignore[call-arg]


def copy_rows(addresses: np.ndarray, out: np.ndarray) -> None:
    """Copy one row from each address.

    Args:
        addresses: Address of each row. int64 [rows].
        out: Array to write to, C-contiguous. [rows, ...].

    Raises:
        ValueError: `out` is not C-contiguous or has another number of rows.
    """
    if not out.flags.c_contiguous or len(addresses) != len(out):
        raise ValueError("out must be C-contiguous, with one row per address")
    if len(out):
        _copy(np.ascontiguousarray(addresses, np.int64), out.ctypes.data, out.nbytes // len(out))
