"""Labelled texts for `pii`: sentences with personal data of each kind, and with what only resembles it.

A sentence is a template and values for its slots; a slot `{email}` is personal data, everything else is none. Among
them are texts that the annotator is known to miss, or to take for personal data by mistake. No value belongs to a
person.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import NamedTuple

from colophon.annotators.personal_data.ibans import LENGTHS


class Labelled(NamedTuple):
    """A text and its personal data: start, end and kind of each."""

    text: str
    spans: tuple[tuple[int, int, str], ...]


_NAMES = ("anna", "j.smith", "maria_rossi", "li-wei", "o'neil", "k.müller", "peter+news", "info", "sales.eu", "x9")
_HOSTS = ("gmail.com", "mail.unibe.ch", "firma.co.uk", "nhs.net", "müller.de", "a-b.museum", "dept.cs.uni.edu.au")
_TEMPLATES = {
    "email": (
        "Write to {email} for details.",
        "Contact: {email}, or call.",
        "<{email}> wrote:",
        "mailto:{email}?subject=hi",
        "E-mail={email}; fax none",
        "Kontakt ({email}).",
        "送信先は {email} です。",
        "{email}\n{email}",
        "Please mail {email}.Thanks!",
    ),
    "ip": (
        "The request came from {ip} at noon.",
        "ssh root@{ip}",
        "Login failed for admin from {ip} port 22",
        "http://{ip}:8080/index.html",
        "{ip} - - [10/Oct/2000:13:55:36 -0700] GET /",
        "host {ip}, then {ip}.",
        "X-Forwarded-For: {ip}",
        "the version on {ip} is old",
    ),
    "iban": (
        "IBAN: {iban}",
        "Bitte auf {iban} überweisen.",
        "Konto {iban}, BIC COBADEFFXXX",
        "({iban})",
        "Pay into account {iban}.",
    ),
    "phone": (
        "Call {phone} today.",
        "Tel. {phone}, fax on request",
        "Phone: {phone}",
        "☎ {phone}",
        "WhatsApp {phone}.",
    ),
}
_PHONES = (
    *("+41 44 668 18 00", "+1 650-253-0000", "+49 30 901820", "+44 20 7946 0018", "+33 1 70 39 65 50"),
    *("+81 3-5253-1111", "+61 2 9374 4000", "+39 06 6982", "+55 11 2395-8400", "+41446681800"),
)
_FALSE_FRIENDS = (
    "Release 10.0.14.2 fixes a crash.",
    "Upgrade to v2.31.4.17 now.",
    "Chrome/91.0.44.124 Safari/537.36",
    "see section 4.1.2.3 and figure 12.10.3.4",
    "package-1.22.33.44.tar.gz",
    "SNMP OID 1.3.6.1.4.1.2021",
    "The router is at 192.168.1.1, the gateway 10.0.0.138.",
    "127.0.0.1 localhost",
    "netmask 255.255.255.0, broadcast 172.16.255.255",
    "documentation uses 192.0.2.44 and 198.51.100.7",
    "Python 3.11.7, numpy 2.4.6",
    "on 12.05.2021 at 12:30:45",
    "999.12.13.14 is no address",
    "ratio 16:9, MAC 00:1a:2b:3c:4d:5e",
    "std::vector and fe80::1%eth0, 2001:db8::ff00:42:8329",
    "user@localhost and root@myhost",
    "icon@2x.png, logo@3x.jpg",
    "git@github.com:org/repo.git",
    "follow @name or @name@mastodon.social",
    "https://user@intranet.example/",
    "john.doe@example.com is a placeholder",
    "@Override public void run()",
    "a @ b, 5 @ $3.00",
    "npm install left-pad@1.3.0",
    "Order DE12 3456 7890 1234 5678 90 has shipped",
    "serial GB29NWBK60161331926818",
    "FR7630006000011234567890188",
    "ISBN 978-3-16-148410-0, EAN 4006381333931",
    "VAT DE123456789, part AB12CD34EF56GH78",
    "card 4111 1111 1111 1111",
    "+1 000 000 0000 and +99 1234",
    "1,234,567,890 people in 2024-01-02",
    "E = mc2, 3 + 41 44",
)
_KNOWN_MISTAKES = (
    "anna (at) gmail (dot) com",
    "Please try 91.20.30.40 (the build of May)",
    "chapter and verse: 12.13.14.15",
)
"""The first is personal data that is not found; the others are numbers that are taken for addresses."""


def labelled_texts(num_texts: int = 2000, *, seed: int = 0) -> list[Labelled]:
    """Two thirds of the texts with personal data, the others without; each has sentences around."""
    source = random.Random(seed)
    return [_surrounded(_sentence(source, number), source) for number in range(num_texts)]


def _sentence(source: random.Random, number: int) -> Labelled:
    if number % 3 == 0:
        return Labelled(source.choice(_FALSE_FRIENDS), ())
    if number % 50 == 1:
        text = _KNOWN_MISTAKES[number // 50 % len(_KNOWN_MISTAKES)]
        return Labelled(text, ((0, len(text), "email"),) if "(at)" in text else ())
    kind = source.choice(list(_TEMPLATES))
    text, spans = "", []
    for part in re.split(r"(\{\w+\})", source.choice(_TEMPLATES[kind])):
        if part != f"{{{kind}}}":
            text += part
            continue
        value = _value(kind, source)
        text += "[" if text.endswith("//") and ":" in value else ""
        spans.append((len(text), len(text) + len(value), kind))
        text += f"{value}]" if text.endswith("[") else value
    return Labelled(text, tuple(spans))


def _surrounded(labelled: Labelled, source: random.Random) -> Labelled:
    before = " ".join(
        source.choices(("The", "old", "house.", "Größe", "日本語", "10", "%", "and"), k=source.randrange(6))
    )
    before += source.choice((" ", "\n", "\t")) if before else ""
    spans = tuple((start + len(before), end + len(before), kind) for start, end, kind in labelled.spans)
    return Labelled(f"{before}{labelled.text}{source.choice(('', ' ', ' And more.'))}", spans)


def _value(kind: str, source: random.Random) -> str:
    if kind == "email":
        return f"{source.choice(_NAMES)}@{source.choice(_HOSTS)}"
    if kind == "ip":
        return next(_addresses(source))
    return next(_ibans(source)) if kind == "iban" else source.choice(_PHONES)


def _addresses(source: random.Random) -> Iterator[str]:
    """Public addresses: of 5.0.0.0/8, 91.0.0.0/8 and 185.0.0.0/8, and of 2a00::/12."""
    if source.random() < 0.3:
        yield f"2a0{source.randrange(16):x}:{source.randrange(1, 65536):x}::{source.randrange(1, 65536):x}"
    yield ".".join(map(str, (source.choice((5, 91, 185)), *(source.randrange(10, 256) for _ in range(3)))))


def _ibans(source: random.Random) -> Iterator[str]:
    """Numbers with a right checksum, joined or in groups of four."""
    country = source.choice(("CH", "DE", "FR", "GB", "IT", "NL", "NO", "MT"))
    account = "".join(source.choices("0123456789", k=LENGTHS[country] - 4))
    digits = int("".join(str(int(letter, 36)) for letter in f"{account}{country}00"))
    joined = f"{country}{98 - digits % 97:02d}{account}"
    yield joined if source.random() < 0.5 else " ".join(joined[i : i + 4] for i in range(0, len(joined), 4))
