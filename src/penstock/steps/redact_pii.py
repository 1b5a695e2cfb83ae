"""Replace what names a person, a machine or a secret by a placeholder of its type."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from penstock.errors import ConfigError
from penstock.kernels import I64, text_buffers, text_from_buffers
from penstock.records import to_json

_LOOK_BEHIND = 48
_MAX_BLOCK = 64 << 10
_LARGEST = (b"+2147483647", b"+2147483648", b"+4294967295", b"+4294967296")
_NAMES = {"emails": b"<EMAIL>", "ips": b"<IP>", "phones": b"<PHONE>", "keys": b"<KEY>"}

# File names and attributes after a dot that no top-level domain is called: ``icon@2x.png``.
_NO_DOMAINS = frozenset(
    b"bmp css csv dll dtype exe gif gz htm html ico ini java jpeg jpg js json jsx kt lock log md5 "
    b"pdf php png ppt scss shape sql svg tif tiff toml ts tsx txt vue wasm wav webp whl xls xlsx "
    b"xml yaml yml example invalid localhost".split()
)
_VERSION = re.compile(
    rb"(?:version|revision|(?<![A-Za-z])(?:ver|release|rev|build|v|section|chapter|clause)|\xc2\xa7)"
    rb"(?:number|info)?[\"']?[\s:=.(\"'>]{0,4}$"
    rb"|[~<>!=]=$|(?:^|\n)#{1,6} $",
    re.IGNORECASE,
)
_LABEL = re.compile(
    rb"(?<![A-Za-z])(?:tele?|tel(?:e|\xc3\xa9)phone|telefono|telefon|t\xc3\xa9l|phone|fax|mobile|"
    rb"mobil|handy|cell|whatsapp|call)(?:[ _-]?(?:number|no|nr))?[\"']?[.:=\s\"'>]{1,4}$",
    re.IGNORECASE,
)
_PHONES = (
    # International: a country's code and groups, or digits alone.
    re.compile(
        rb"\+[1-9]\d{0,2}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{1,8}(?:[ ./-]\d{2,8}){0,5}(?![\w-])"
    ),
    re.compile(rb"\+[1-9]\d{9,14}(?![\w-])"),
    # North American: an area's code and an exchange begin with 2 to 9.
    re.compile(
        rb"(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d(?P<sep>[ .-]))[2-9]\d\d(?(sep)(?P=sep)|[ .-])"
        rb"\d{4}(?![\w-])(?!\.\d)"
    ),
)
_LABELLED = re.compile(rb"[+(]?\d[\d ()./-]{5,22}\d(?![\w-])")
_KEYS = tuple(
    re.compile(pattern)
    for pattern in (
        rb"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])",
        rb"gh[pousr]_[A-Za-z0-9]{36,255}(?![A-Za-z0-9])",
        rb"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}(?![A-Za-z0-9])",
        rb"glpat-[A-Za-z0-9_-]{20,64}",
        rb"xox[abeoprs]-(?:\d+-)?[A-Za-z0-9-]{10,250}",
        rb"[sr]k_(?:live|test)_[A-Za-z0-9]{16,250}",
        rb"AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])",
        rb"hf_[A-Za-z]{34}(?![A-Za-z0-9])",
        rb"npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])",
        rb"pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,1000}",
        rb"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])",
        rb"eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{8,65536}\.[A-Za-z0-9_-]{16,4096}",
    )
)
_MIXED_KEY = re.compile(rb"sk-(?:proj-|ant-|svcacct-)?[A-Za-z0-9_-]{20,250}")
_AWS_SECRET = re.compile(
    rb"(?i:aws_?(?:secret)?_?(?:access)?_?key)[\"']?\s{0,3}[:=]\s{0,3}[\"']?"
    rb"(?P<key>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
)
_BLOCK = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_BLOCK_END = re.compile(rb"-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_BLOCK_REST = re.compile(rb"(?:(?:\r?\n|\\n)[A-Za-z0-9+/=]{16,76})+")
_ASSIGNED = re.compile(
    rb"(?:api[_-]?key|secret|token|passw(?:or)?d|access[_-]?key|private[_-]?key|credentials?)"
    rb"[A-Za-z0-9_]{0,12}[\"']?\s?[:=]\s?$",
    re.IGNORECASE,
)
_QUOTED = re.compile(rb"[\"']([A-Za-z0-9_\-+/=.]{20,512})[\"']")
_HEXADECIMAL = re.compile(rb"[0-9a-f]{32,}|[0-9A-F]{32,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactPII:
    """Replace personal data and secrets in each document's text by ``<EMAIL>``, ``<IP>`` and so on.

    How many were replaced goes into the metadata as ``pii_emails``, ``pii_ips``,
    ``pii_phones`` and ``pii_keys``, where any was. Precision goes before recall:
    what may as well be a version, a date, a hash or an ISBN stays.

    E-mail addresses: of ASCII letters, with a dot in the domain; not the user of
    ``git@host:path``, a call such as ``a@b.dot(c)`` or a file such as ``icon@2x.png``.

    IP addresses: public ones, as Python's `ipaddress` says; not behind a word such
    as "version", nor those that end in ``.0``. IPv6 only of 2000::/3 and with three
    groups or more, else ``abc::def`` in C++ would be one.

    Phone numbers: international ones that begin with ``+``; North American ones
    with separators; others of 7 to 15 digits behind a word such as "phone".

    Keys: those with a mark of their own (AWS, GitHub, GitLab, Slack, Stripe,
    Google, Hugging Face, npm, PyPI, SendGrid, OpenAI, Anthropic, JSON Web Tokens),
    blocks of private keys, and long random values in quotes that something called
    a key, secret, token or password is set to.

    Guarantees: a second pass changes nothing.

    Source: datatrove's `PIIFormatter` for e-mail and public IP addresses. Differs:
        typed placeholders instead of made-up addresses; characters such as ``'``
        and ``/`` end the part before the ``@``; bracketed IP domains are not found;
        versions are told apart; IPv6, phone numbers and keys are found as well.

    Cost: 2 ms per MB of text on one thread without the GIL, and 5 us per span looked at.
    """

    emails: bool = True
    """Replace e-mail addresses by ``<EMAIL>``."""
    ips: bool = True
    """Replace public IPv4 and IPv6 addresses by ``<IP>``."""
    phones: bool = True
    """Replace phone numbers by ``<PHONE>``."""
    keys: bool = True
    """Replace keys, tokens and private keys by ``<KEY>``."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in _NAMES:
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"RedactPII.{name}", getattr(self, name), "must be True or False")
        if not any(getattr(self, name) for name in _NAMES):
            raise ConfigError("RedactPII", self, "must have one of emails, ips, phones and keys on")

    def apply(self, documents: pa.RecordBatch) -> pa.RecordBatch:
        """The same rows with `text` and `metadata` replaced; the same batch if nothing is found."""
        from penstock.kernels import pii

        wanted = (
            pii.EMAIL * self.emails
            | (pii.IPV4 | pii.IPV6) * self.ips
            | pii.PHONE * self.phones
            | (pii.KEY | pii.QUOTED) * self.keys
        )
        offsets, utf8 = text_buffers(documents["text"])
        candidates = pii.find_candidates(offsets, utf8, wanted)
        if not len(candidates):
            return documents
        parts: list[bytes | memoryview] = []
        counts: dict[int, Counter[str]] = {}
        lengths = np.diff(offsets)
        copied = int(offsets[0])
        for row in np.unique(candidates[:, 0]).tolist():
            low, high = np.searchsorted(candidates[:, 0], [row, row + 1])
            start, end = int(offsets[row]), int(offsets[row + 1])
            spans = candidates[low:high, 1:] - np.array([0, start, start])
            text, found = _redacted(utf8[start:end].tobytes(), spans, wanted)
            if found:
                parts += [utf8.data[copied:start], text]
                copied = end
                lengths[row] = len(text)
                counts[row] = found
        if not counts:
            return documents
        parts.append(utf8.data[copied : int(offsets[-1])])
        return _replaced(documents, lengths, b"".join(parts), counts)


def _redacted(text: bytes, candidates: I64, wanted: int) -> tuple[bytes, Counter[str]]:
    """One text with placeholders, and how many of each.

    A placeholder ends what its neighbour was part of, and that may be something
    by itself, so the text is looked at until nothing is found.
    """
    from penstock.kernels import pii

    counts: Counter[str] = Counter()
    while spans := _spans(text, candidates):
        parts = []
        done = 0
        for first, last, name in spans:
            parts += [text[done:first], _NAMES[name]]
            done = last
            counts[name] += 1
        text = b"".join([*parts, text[done:]])
        row = text_buffers(pa.array([text], pa.large_binary()))
        candidates = pii.find_candidates(*row, wanted)[:, 1:]
    return text, counts


def _replaced(
    documents: pa.RecordBatch, lengths: I64, data: bytes, counts: dict[int, Counter[str]]
) -> pa.RecordBatch:
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    text = text_from_buffers(ends, np.frombuffer(data, np.uint8))
    metadata = documents["metadata"].to_pylist()
    for row, found in counts.items():
        known = json.loads(metadata[row])
        metadata[row] = to_json(known | {f"pii_{name}": n for name, n in found.items()})
    for name, column in (("text", text), ("metadata", pa.array(metadata, pa.string()))):
        place = documents.schema.get_field_index(name)
        field = documents.schema.field(place).with_type(column.type)
        documents = documents.set_column(place, field, column)
    return documents


def _spans(text: bytes, candidates: I64) -> list[tuple[int, int, str]]:
    """What is to be replaced in one text: start, end and name, ascending and apart."""
    found = []
    for kind, first, last in candidates.tolist():
        span = _judged(text, kind, first, last)
        if span is not None:
            found.append(span)
    found.sort(key=lambda span: (span[0], -span[1]))
    apart: list[tuple[int, int, str]] = []
    for span in found:
        if not apart or span[0] >= apart[-1][1]:
            apart.append(span)
    return apart


def _judged(text: bytes, kind: int, first: int, last: int) -> tuple[int, int, str] | None:
    from penstock.kernels import pii

    if kind == pii.EMAIL:
        return (first, last, "emails") if _is_email(text, first, last) else None
    if kind in (pii.IPV4, pii.IPV6):
        return (first, last, "ips") if _is_public(text, first, last) else None
    if kind == pii.PHONE:
        end = _phone_end(text, first)
        return (first, end, "phones") if end else None
    span = _key_span(text, first) if kind == pii.KEY else _assigned_span(text, first)
    return (*span, "keys") if span else None


def _is_email(text: bytes, first: int, last: int) -> bool:
    if text[max(first, last - 24) : last].rpartition(b".")[2].lower() in _NO_DOMAINS:
        return False
    after = text[last : last + 2]
    if after.startswith(b"("):
        return False
    # git@host:path names a repository; "me@host: hello" is an address.
    return not (after[:1] == b":" and after[1:].isalnum() and text[first : first + 4] == b"git@")


def _is_public(text: bytes, first: int, last: int) -> bool:
    try:
        address = ipaddress.ip_address(text[first:last].decode())
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return address.is_global and sum(map(bool, text[first:last].split(b":"))) >= 3
    # 6.1.0.0 is a version or, before a slash, a network.
    if text[last - 2 : last] == b".0" and text[last : last + 1] != b"/":
        return False
    return address.is_global and not _VERSION.search(text, max(0, first - _LOOK_BEHIND), first)


def _phone_end(text: bytes, first: int) -> int:
    """Where the phone number that begins here ends; 0 if none does."""
    for pattern in _PHONES:
        match = pattern.match(text, first)
        # Without separators, eight digits behind a sign are as likely a number.
        least = 10 if match and match[0][1:].isdigit() else 8
        if match and least <= _num_digits(match[0]) <= 15 and not _is_decimal(match[0]):
            return match.end()
    if _LABEL.search(text, max(0, first - _LOOK_BEHIND), first):
        match = _LABELLED.match(text, first)
        if match and 7 <= _num_digits(match[0]) <= 15 and not _is_decimal(match[0]):
            return match.end()
    return 0


def _num_digits(text: bytes) -> int:
    return sum(0x30 <= byte <= 0x39 for byte in text)


def _is_decimal(text: bytes) -> bool:
    """Whether this may be a number with a decimal point, a date, or the largest of integers."""
    separators = re.findall(rb"[ ()./-]+", text)
    is_date = re.fullmatch(
        rb"\+?(?:\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.]\d{4})(?: .*)?", text
    )
    return separators == [b"."] or is_date is not None or text in _LARGEST


def _key_span(text: bytes, first: int) -> tuple[int, int] | None:
    if first and (text[first - 1 : first].isalnum() or text[first - 1] == 0x5F):
        return None
    if text.startswith(b"-----BEGIN", first):
        return _block_span(text, first)
    match = _AWS_SECRET.match(text, first)
    if match:
        return match.span("key") if _is_random(match["key"]) else None
    for pattern in _KEYS:
        match = pattern.match(text, first)
        if match:
            return match.span() if len(set(match[0])) > 10 else None
    match = _MIXED_KEY.match(text, first)
    return match.span() if match and _is_random(match[0]) else None


def _block_span(text: bytes, first: int) -> tuple[int, int] | None:
    """A private key to its end, or as far as its lines go where the end was cut off."""
    match = _BLOCK.match(text, first)
    if not match:
        return None
    end = _BLOCK_END.search(text, match.end(), match.end() + _MAX_BLOCK)
    rest = _BLOCK_REST.match(text, match.end())
    if end:
        return first, end.end()
    return (first, rest.end()) if rest else None


def _assigned_span(text: bytes, quote: int) -> tuple[int, int] | None:
    match = _QUOTED.match(text, quote)
    if not match or not _ASSIGNED.search(text, max(0, quote - _LOOK_BEHIND), quote):
        return None
    value = match[1]
    is_hexadecimal = _HEXADECIMAL.fullmatch(value) is not None and _entropy(value) > 3.0
    return match.span(1) if is_hexadecimal or _is_random(value) else None


def _is_random(value: bytes) -> bool:
    """Whether letters of both cases and digits follow each other as in no word or path."""
    kinds = (re.findall(kind, value) for kind in (rb"[a-z]", rb"[A-Z]", rb"[0-9]"))
    return all(len(found) > 1 for found in kinds) and _entropy(value) > 3.5


def _entropy(value: bytes) -> float:
    """Bits per character that the frequencies of the characters leave open."""
    shares = [count / len(value) for count in Counter(value).values()]
    return -sum(share * math.log2(share) for share in shares)
