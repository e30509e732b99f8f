"""Escape control characters of file names and messages, which a terminal would interpret as commands."""

from __future__ import annotations

import codecs
import re
import sys
from typing import IO

# Controls (C0 except tab and newline, DEL, C1), marks and overrides of the writing direction, line and
# paragraph separators, interlinear and tag characters, and surrogates, which represent bytes of a name that
# are not UTF-8.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_PLAIN = str.maketrans(  # ASCII replacements of the signs in tables and messages, also those of click
    dict(zip("─│┌┐└┘├┤┬┴┼━┃–—·×≤≥", "-|++++++++" + "+-|--.x<>", strict=True)) | {"…": "...", "→": "->"}
)
# encoding error handler: writes ASCII signs for known characters, `?` for others
PLAIN_SIGNS = "shardwave.plain"


def printable(text: str, *, lines: bool = True) -> str:
    r"""Replace control characters by escapes such as `\x1b`.

    Args:
        text: The text to print.
        lines: Keep newlines and tabs; else they are escaped too.
    """
    text = _UNSAFE.sub(_escaped, text)
    return text if lines else text.replace("\n", "\\n").replace("\t", "\\t")


def one_line(text: str) -> str:
    """Replace control characters, line ends and tabs of a name by escapes."""
    return printable(text, lines=False)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode represents a byte that is not UTF-8 by such a surrogate
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end].translate(_PLAIN)
    return "".join(sign if sign.isascii() else "?" for sign in signs), error.end


codecs.register_error(PLAIN_SIGNS, _plain)


def write_line(text: str, file: IO[str] | None = None) -> None:
    """Print a line without control characters.

    Args:
        text: The line; characters that the encoding of `file` lacks are replaced.
        file: Stream to write to; None: standard output.
    """
    file = file or sys.stdout
    encoding = getattr(file, "encoding", None) or "utf-8"
    print(printable(text).encode(encoding, PLAIN_SIGNS).decode(encoding), file=file, flush=True)
