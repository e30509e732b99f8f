"""Text from files made safe to print: names and reasons may hold what a terminal takes for a command."""

from __future__ import annotations

import re
import sys
import unicodedata
from typing import IO

# Controls (C0 but tab and newline, DEL, C1), marks and overrides of the writing direction, line and paragraph separators,
# interlinear and tag characters, and surrogates, which stand for bytes of a name that are not UTF-8.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_PLAIN = str.maketrans({"─": "-", "·": ".", "…": "...", "→": "->", "–": "-", "×": "x"})  # of our own tables and messages


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


def write_line(text: str, file: IO[str] | None = None) -> None:
    """Print `text` without control characters on `file` (standard output by default).

    Characters that the stream's encoding lacks are replaced: lines of tables by `-`, other characters by `?`.
    """
    file = file or sys.stdout
    text = printable(text)
    encoding = getattr(file, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = unicodedata.normalize("NFC", text.translate(_PLAIN)).encode(encoding, "replace").decode(encoding)
    print(text, file=file, flush=True)
