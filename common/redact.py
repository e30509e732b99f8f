"""Masking of passwords, tokens and signatures in URLs, for all text that is printed, logged or written."""

from __future__ import annotations

import itertools
import re
import urllib.parse
from typing import Any

MASK = "***"
# user names are not masked
SQL = re.compile(r"(postgres|mysql|mariadb|oracle|mssql|cockroach|sqlite)", re.IGNORECASE)
# Query parameters whose values are no secrets; all others are masked, because the names of secrets are not
# all known.
PLAIN = frozenset(
    (
        "host",
        "hostaddr",
        "port",
        "dbname",
        "database",
        "service",
        "sslmode",
        "charset",
        "application_name",
        "connect_timeout",
    )
    + ("timeout", "mode", "uri", "cache", "unix_socket", "target_session_attrs", "versionid", "region")
)
_URL = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]*://\S*[^\s'"<>()\[\]{},;:.]""")
_ASSIGNED = re.compile(
    r"(?i)\b(\w*(?:password|passwd|passphrase|pwd|secret|token)\w*\s*=\s*)"
    r"('[^']*'|\"[^\"]*\"|[^\s,;&'\"]*[^\s,;&'\":.)\]])"
)
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.%]+\]")


def mask_url(url: str) -> str:
    """Mask the secrets of a URL. If the extent of a password is ambiguous, the larger part is masked.

    Args:
        url: The value of an option that takes a URL. Text without `://` is treated as a mistyped URL.

    Returns:
        The URL with `***` in place of passwords (of all user information, unless the scheme is a database's),
        of the values of the query that are not in `PLAIN`, and of assignments in the fragment (except
        `sha256=`).
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        if url.startswith("journal:"):
            return url
        position = url.rfind("@")
        return _mask_assignments(url if position < 0 else MASK + url[position:])
    pieces = _pieces(rest, SQL.match(scheme) is not None)
    return f"{scheme}://" + "".join(MASK if hidden else part for part, hidden in pieces)


def redact(text: str, *urls: str) -> str:
    """Mask the secrets of all URLs in a text, and values assigned to a password (`password=...`).

    Args:
        text: A message, for example of a database driver.
        *urls: URLs whose passwords the text may repeat in part, as drivers do if they parse a URL wrongly.
    """
    for secret in sorted({secret for url in urls for secret in _secrets(url)}, key=len, reverse=True):
        text = text.replace(secret, MASK + ("@" if secret.endswith("@") else ""))
    if "://" in text:
        text = _URL.sub(lambda match: mask_url(match.group()), text)
    return _mask_assignments(text) if "=" in text else text


def redact_values(value: Any) -> Any:
    """Mask the secrets in all strings of nested dicts, lists and tuples, except in names of classes."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: item if name == "classes" else redact_values(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_values(item) for item in value]
    return value


def _spans(rest: str, sql: bool) -> list[tuple[int, int]]:
    """Return the intervals [start, stop) to mask in the part of a URL after `://`."""
    spans = []
    fragment = rest.find("#")
    if (
        fragment >= 0
        and "=" in rest[fragment:]
        and not re.fullmatch(r"#sha256=[0-9A-Fa-f]+", rest[fragment:])
    ):
        spans.append((fragment + 1, len(rest)))
    question = rest.find("?")
    well_formed = True
    if question >= 0:
        position = question + 1
        end = fragment if fragment > question else len(rest)
        for part in re.split(r"[&;]", rest[position:end]):
            name, equals, value = part.partition("=")
            well_formed &= bool(re.fullmatch(r"[\w.%-]+", name) and equals)
            if name.lower() not in PLAIN or "@" in value:
                spans.append((position + len(name + equals) if equals else position, position + len(part)))
            position += len(part) + 1
    user = _user_information(rest, question if well_formed else -1, sql)
    if user is not None:
        end = len(rest) if 0 <= question < user else user  # a `?` in a password, or an `@` in the query
        colon = rest.find(":", 0, user)
        if colon >= 0 or not sql:
            spans.append((colon + 1 if sql else 0, end))
    elif (stray := _stray_password(rest)) is not None:
        spans.append((stray + 1, len(rest)))
    return spans


def _user_information(rest: str, query: int, sql: bool) -> int | None:
    """Return the position of the `@` that ends the user information, or None if there is none.

    It is the last `@`, because a password may contain `@`, `/`, `?` or `#`. An `@` in a well-formed query
    (which begins at `query`) does not count. Neither does one in a path after a host without a port, except
    in the URL of a database.
    """
    if rest.startswith("/"):
        return None
    last = rest.rfind("@")
    before_query = rest if query < 0 else rest[:query]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if last < 0 or not (sql or "@" in authority or ":" in authority):
        return None
    if "@" not in before_query and re.fullmatch(r"[^:]*(:\d*)?", _IPV6.sub("", authority)):
        return None
    return last


def _stray_password(rest: str) -> int | None:
    """Return the position of a colon without a valid port, as in `user:password` without `@host`, or None."""
    authority = _IPV6.sub(lambda match: "x" * len(match.group()), re.split(r"[/?#]", rest, maxsplit=1)[0])
    colon = authority.find(":")
    return None if colon < 0 or re.fullmatch(r"\d*|PORT", authority[colon + 1 :]) else colon


def _pieces(rest: str, sql: bool) -> list[tuple[str, bool]]:
    """Split the part of a URL after `://` into pieces, each with a flag that is True if it must be masked."""
    hidden = [False] * len(rest)
    for start, end in _spans(rest, sql):
        hidden[start:end] = [True] * (end - start)
    groups = itertools.groupby(zip(rest, hidden, strict=True), lambda pair: pair[1])
    return [("".join(sign for sign, _ in pairs), secret) for secret, pairs in groups]


def _secrets(url: str) -> set[str]:
    """Return the forms of the secrets of a URL that a driver may print.

    These are the secrets themselves, percent-decoded, and the parts of a password after an `@`.
    """
    rest = url.partition("://")[2]
    secrets = set()
    for part, hidden in _pieces(rest, True):
        if hidden:
            secrets |= {part, urllib.parse.unquote(part), urllib.parse.unquote_plus(part)}
            secrets |= {piece + "@" for piece in part.split("@")[1:] if piece}
    return {secret for secret in secrets if len(secret) >= 3 or secret.endswith("@")}


def _mask_assignments(text: str) -> str:
    return _ASSIGNED.sub(lambda match: match.group(1) + MASK, text)
