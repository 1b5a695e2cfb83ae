from __future__ import annotations

import json
import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.protocols import DocumentStep
from penstock.steps.redact_pii import RedactPII

RANDOM = "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3zA5"


def _batch(*texts: str, metadata: str = "{}") -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "doc_id": [f"d{i}" for i in range(len(texts))],
            "media_type": ["text/plain"] * len(texts),
            "metadata": [metadata] * len(texts),
            "text": pa.array(texts, pa.large_string()),
        }
    )


def _redacted(text: str, **settings: bool) -> str:
    found: str = RedactPII(**settings).apply(_batch(text))["text"][0].as_py()
    return found


FOUND = {
    "address": ("Write to foo.bar@example.com.", "Write to <EMAIL>."),
    "brackets": ("A. N. <a_n+x%y@mail.example.co.uk>", "A. N. <<EMAIL>>"),
    "link": ("[me](mailto:me@host.org)", "[me](mailto:<EMAIL>)"),
    "between ideographs": ("邮箱foo@bar.com请", "邮箱<EMAIL>请"),
    "right to left": ("דוא״ל: foo@bar.com", "דוא״ל: <EMAIL>"),
    "encoded domain": ("x@host.xn--p1ai", "<EMAIL>"),
    "two dots before": ("foo..bar@host.org", "foo..<EMAIL>"),
    "colon and text": ("me@host.org: hello", "<EMAIL>: hello"),
    "whole text": ("a@b.io", "<EMAIL>"),
    "public address": ("ping 8.8.8.8, then", "ping <IP>, then"),
    "server": ("server 8.8.8.8", "server <IP>"),
    "network": ("8.8.8.0/24", "<IP>/24"),
    "port": ("http://93.184.215.14:80/", "http://<IP>:80/"),
    "version 6": ("at 2606:4700:4700::1111.", "at <IP>."),
    "version 6, whole": ("[2a00:1450:4009:080b:0000:0000:0000:200e]:443", "[<IP>]:443"),
    "international": ("+1 415 555 2671 now", "<PHONE> now"),
    "international, digits": ("call +14155552671.", "call <PHONE>."),
    "international, brackets": ("+44 (0)20 7946 0958", "<PHONE>"),
    "german": ("+49 30 901820", "<PHONE>"),
    "north american": ("(415) 555-2671", "<PHONE>"),
    "north american, dashes": ("415-555-2671", "<PHONE>"),
    "north american, one": ("1-800-555-2671", "<PHONE>"),
    "labelled": ("Tel: 030 1234567", "Tel: <PHONE>"),
    "labelled field": ('{"phone": "01234 567890"}', '{"phone": "<PHONE>"}'),
    "aws": ("AKIAIOSFODNN7EXAMPLE", "<KEY>"),
    "aws secret": (f"aws_secret_access_key = {RANDOM}/abc", "aws_secret_access_key = <KEY>"),
    "github": (f"ghp_{RANDOM}", "<KEY>"),
    "github fine": (f"github_pat_{RANDOM[:22]}_{RANDOM}{RANDOM[:23]}", "<KEY>"),
    "gitlab": (f"glpat-{RANDOM[:20]}", "<KEY>"),
    "slack": ("xoxb-123456789012-abcdefABCDEF", "<KEY>"),
    "stripe": (f"sk_live_{RANDOM[:24]}", "<KEY>"),
    "google": (f"key=AIza{RANDOM[:35]}", "key=<KEY>"),
    "openai": (f"sk-proj-{RANDOM}", "<KEY>"),
    "hugging face": ("hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH", "<KEY>"),
    "npm": (f"npm_{RANDOM}", "<KEY>"),
    "sendgrid": (f"SG.{RANDOM[:22]}.{RANDOM}{RANDOM[:7]}", "<KEY>"),
    "web token": (f"Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0.{RANDOM}", "Bearer <KEY>"),
    "private key": (
        "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb",
        "a\n<KEY>\nb",
    ),
    "private key cut off": (
        f"-----BEGIN PRIVATE KEY-----\n{RANDOM}\n{RANDOM}\n\nText",
        "<KEY>\n\nText",
    ),
    "assigned": (f'API_KEY = "{RANDOM}"', 'API_KEY = "<KEY>"'),
    "assigned, json": (f'"client_secret": "{RANDOM[:24]}"', '"client_secret": "<KEY>"'),
    "assigned, hexadecimal": (
        "token: '0123456789abcdef0123456789abcdef'",
        "token: '<KEY>'",
    ),
}

KEPT = {
    "decorator": "@app.route('/')\n@dataclass",
    "handle": "by @user.name and foo@bar",
    "npm scope": "import x from '@types/node'; react@18.2.0",
    "image": "icon@2x.png and sprite@3x.webp",
    "matrix product": "y = w@x.transpose(1, 0); a@b.T",
    "repository": "git@github.com:user/repo.git",
    "dots": "a.@b.com .@b.com a@.com a@b..com",
    "long local part": "a" * 65 + "@host.org",
    "private addresses": "10.0.0.1 192.168.1.1 172.16.0.1 127.0.0.1 169.254.1.1 0.0.0.0",
    "version": "v1.2.3.4, version 1.2.3.4, FileVersion: 4.8.3.1, ver. 9.9.9.9",
    "version in a table": "Name 6.1.0.0 1.1.1.0",
    "requirement": "package==1.2.3.4 other>=2.3.4.5",
    "section": "## 7.1.4.3 Subscripts",
    "largest integers": "from -2147483648 to +2147483647",
    "signed year": "+1980-02-29 01:02:03",
    "long version": "1.2.3.4.5 and 10.0.19041.1 and 1.2.3.4-beta 1.2.3.4rc1",
    "no octets": "256.1.1.1 1.2.3 01.02.03.04 8.8.8.300",
    "scopes": "abc::def std::string ::1 fe80::1 dead::beef 2001:db8::1",
    "times": "12:30:45 2024-01-01T12:30:45 2023:12:31",
    "hardware address": "20:3a:bb:cc:dd:ee",
    "isbn": "ISBN 978-0-306-40615-7, 0-306-40615-2, 9780306406157",
    "dates": "2024-01-02 01/02/2024 2024.01.02 20240102123456",
    "numbers": "3.14159265358979 1,234,567 415 555 +12.5 +1234.56789 1234567890",
    "social": "078-05-1120 and 4111-1111-1111-1111",
    "area code": "115-555-2671 415-155-2671",
    "in an identifier": "id-415-555-2671 x415-555-2671 415-555-2671-1",
    "hash": "commit 0123456789abcdef0123456789abcdef01234567",
    "integrity": f'integrity="sha512-{RANDOM}"',
    "placeholder": 'token = "xxxxxxxxxxxxxxxxxxxxxxxxxxxx" password: "YOUR_PASSWORD_GOES_HERE"',
    "few characters": 'token = "AAAAAAAAAAaaaaaaaaaa1111"',
    "class": "sk-fading-circle-container-long ghp_short AKIAshort hf_hub_download",
    "public key": "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
    "certificate": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "rule": "-" * 80,
    "web token's head": "eyJhbGciOiJIUzI1NiJ9 alone",
    "empty": "",
    "no words": "… — ، \n\n",
}


@pytest.mark.parametrize(("text", "expected"), FOUND.values(), ids=FOUND.keys())
def test_personal_data_gives_way_to_a_placeholder(text: str, expected: str) -> None:
    assert _redacted(text) == expected


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT.keys())
def test_what_looks_like_personal_data_stays(text: str) -> None:
    assert _redacted(text) == text


def test_what_was_replaced_is_counted_where_there_is_any() -> None:
    batch = _batch("a@b.io c@d.io 8.8.8.8", "nothing", metadata='{"title":"é"}')

    done = RedactPII().apply(batch)

    assert done["metadata"].to_pylist() == [
        '{"pii_emails":2,"pii_ips":1,"title":"é"}',
        '{"title":"é"}',
    ]
    assert done["text"].to_pylist() == ["<EMAIL> <EMAIL> <IP>", "nothing"]
    assert done["doc_id"] == batch["doc_id"]
    assert isinstance(RedactPII(), DocumentStep)


@pytest.mark.parametrize("name", ["emails", "ips", "phones", "keys"])
def test_each_kind_can_be_chosen(name: str) -> None:
    text = "a@b.io 8.8.8.8 +14155552671 AKIAIOSFODNN7EXAMPLE"
    off = dict.fromkeys(("emails", "ips", "phones", "keys"), False)
    done = RedactPII(**(off | {name: True})).apply(_batch(text))

    assert list(json.loads(done["metadata"][0].as_py())) == [f"pii_{name}"]
    assert done["text"][0].as_py().count("<") == 1


def test_a_batch_without_any_is_the_same_batch() -> None:
    batch = _batch("nothing", "1.2.3")

    assert RedactPII().apply(batch) is batch
    assert RedactPII().apply(batch.slice(0, 0)).num_rows == 0


def test_a_slice_is_redacted_like_a_whole_batch() -> None:
    batch = _batch("x@y.io", "zz a@b.io", "8.8.8.8 é", "last")

    assert RedactPII().apply(batch.slice(1, 2))["text"].to_pylist() == ["zz <EMAIL>", "<IP> é"]


PIECES = ["a@b.io", "8.8.8.8", ".", "@", "+1 415 555 2671", " ", "-", "é", "9", ":", '"', "<IP>"]
PIECES += ["2606:4700::1111", "ghp_", RANDOM, "AKIA", "eyJ", "tel ", "token='", "'", "x", "(", "\n"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=4))
def test_rows_are_independent_and_a_second_pass_keeps_all_but_what_is_new(texts: list[str]) -> None:
    done = RedactPII().apply(_batch(*texts))["text"].to_pylist()

    assert done == [_redacted(text) for text in texts]
    assert [_redacted(text) for text in done] == done


# The shapes as regular expressions, without the judgement that follows.
LOCAL = r"(?<![A-Za-z0-9_%+-])[A-Za-z0-9_](?:\.?[A-Za-z0-9_%+-])*"
EMAIL = re.compile(LOCAL + r"@(?:[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*\.)+[A-Za-z]{2,}(?![A-Za-z0-9.@-])")


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b9", ".", "@", "io", "-", " ", "é", "_"]), max_size=14))
def test_plain_addresses_are_those_of_a_regular_expression(pieces: list[str]) -> None:
    text = "".join(pieces)
    expected = EMAIL.sub("<EMAIL>", text)

    if text.count("@") == 1 and not re.search(r"@.*[-.](?:[^A-Za-z0-9]|$)", text):
        assert _redacted(text, ips=False, phones=False, keys=False) == expected


@pytest.mark.parametrize(
    "character", ["@", "1", "1.", "a@", ":", "1:", "+1 ", "ghp_", "'", "='a", "-", "eyJ", "("]
)
def test_a_long_text_of_one_piece_takes_no_longer_than_others(character: str) -> None:
    text = character * (300_000 // len(character))

    assert _redacted(text) == text


@pytest.mark.parametrize(
    "given",
    [{"emails": 1}, {"keys": "yes"}, dict.fromkeys(("emails", "ips", "phones", "keys"), False)],
)
def test_invalid_settings_are_errors(given: dict[str, bool]) -> None:
    with pytest.raises(ConfigError, match="RedactPII"):
        RedactPII(**given)
