"""What all tests share."""

from __future__ import annotations

import ctypes
import os
import signal

# Where the tests run in the background of a shell, an interrupt is ignored, and so it would be by every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Without a GPU its kernels run on the CPU, by Triton's interpreter; Triton wants to know before anything imports it.
try:
    ctypes.CDLL("libcuda.so.1")
except OSError:
    os.environ["TRITON_INTERPRET"] = "1"
