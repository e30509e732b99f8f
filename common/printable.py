"""Text from files made safe to print: names and reasons may hold what a terminal takes for a command."""

from __future__ import annotations

import codecs
import re
import sys
from typing import IO

# Controls (C0 but tab and newline, DEL, C1), marks and overrides of the writing direction, line and paragraph separators,
# interlinear and tag characters, and surrogates, which stand for bytes of a name that are not UTF-8.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_PLAIN = str.maketrans(  # of our own tables and messages, and of click's
    dict(zip("─│┌┐└┘├┤┬┴┼━┃–—·×≤≥", "-|++++++++" + "+-|--.x<>", strict=True)) | {"…": "...", "→": "->"}
)
PLAIN_SIGNS = "shardwave.plain"  # handler for the errors of an encoding: `-` for `─`, `?` for other characters that it lacks


def printable(text: str, *, lines: bool = True) -> str:
    r"""Replace control characters by escapes such as `\x1b`.

    Args:
        text: what is to be printed.
        lines: whether newlines and tabs may stay; else they are escaped too.
    """
    text = _UNSAFE.sub(_escaped, text)
    return text if lines else text.replace("\n", "\\n").replace("\t", "\\t")


def one_line(text: str) -> str:
    """Replace control characters and line ends of a name."""
    return printable(text, lines=False)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte, as os.fsdecode keeps it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end].translate(_PLAIN)
    return "".join(sign if sign.isascii() else "?" for sign in signs), error.end


codecs.register_error(PLAIN_SIGNS, _plain)


def write_line(text: str, file: IO[str] | None = None) -> None:
    """Print `text` without control characters on `file` (standard output by default), in signs that its encoding has."""
    file = file or sys.stdout
    encoding = getattr(file, "encoding", None) or "utf-8"
    print(printable(text).encode(encoding, PLAIN_SIGNS).decode(encoding), file=file, flush=True)
