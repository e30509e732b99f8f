"""Copies rows that lie anywhere in memory into one batch, outside the interpreter's lock."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def _memcpy(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """memcpy(target, source, count) on integer addresses."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        to, of = (builder.inttoptr(address, pointer) for address in arguments[:2])
        cgutils.raw_memcpy(builder, to, of, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@njit(["void(int64[::1], int64, int64)"], nogil=True, cache=True)
def _copy(sources: np.ndarray, target: int, row: int) -> None:
    for i in range(len(sources)):
        _memcpy(target + i * row, sources[i], row)  # type: ignore[call-arg]  # the intrinsic's own first argument is the compiler's


def copy_rows(addresses: np.ndarray, out: np.ndarray) -> None:
    """Copy one row of `out` ([rows, ...], C-contiguous) from each of `addresses` (int64 [rows])."""
    if not out.flags.c_contiguous or len(addresses) != len(out):
        raise ValueError("out must be C-contiguous, with one row per address")
    if len(out):
        _copy(np.ascontiguousarray(addresses, np.int64), out.ctypes.data, out.nbytes // len(out))
