"""International bank account numbers (ISO 13616): a country's length and a checksum."""

from __future__ import annotations

import re
from collections.abc import Iterator

_BEGINNING = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}")
_REST = re.compile(r"[A-Z0-9]")
_SEPARATORS = " \u00a0\u202f-"

LENGTHS = {
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE",), 16),
    **dict.fromkeys(("DK", "FI", "FK", "FO", "GL", "NL", "SD"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "LT", "LU", "MN", "XK"), 20),
    **dict.fromkeys(("CH", "HR", "LI", "LV"), 21),
    **dict.fromkeys(("BG", "BH", "CR", "DE", "GB", "GE", "IE", "ME", "RS", "VA"), 22),
    **dict.fromkeys(("AE", "GI", "IL", "IQ", "OM", "SO", "TL"), 23),
    **dict.fromkeys(("AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"), 24),
    **dict.fromkeys(("LY", "PT", "ST"), 25),
    **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("BI", "DJ", "FR", "GR", "IT", "MC", "MR", "SM"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "GT", "HN", "HU", "LB", "NI", "PL", "SV"), 28),
    **dict.fromkeys(("BR", "EG", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU", "YE"), 30),
    **dict.fromkeys(("MT", "SC"), 31),
    **dict.fromkeys(("LC",), 32),
    **dict.fromkeys(("RU",), 33),
}
"""Characters of an IBAN by its country."""


def ibans(text: str) -> Iterator[tuple[int, int]]:
    """The start and end of each IBAN in capitals, perhaps in groups with single spaces or hyphens between them."""
    for found in _BEGINNING.finditer(text):
        length = LENGTHS.get(found[0][:2])
        if length is None:
            continue
        end, name = _read(text, found.start(), length)
        if len(name) == length and has_checksum(name) and not text[end : end + 1].isalnum():
            yield found.start(), end


def _read(text: str, start: int, length: int) -> tuple[int, str]:
    """The end of the next `length` letters and digits, and these, up to the first other character."""
    place, letters = start, ""
    while len(letters) < length and place < len(text):
        if _REST.match(text, place):
            letters += text[place]
        elif text[place] not in _SEPARATORS or text[place - 1] in _SEPARATORS:
            break
        place += 1
    return place, letters


def has_checksum(name: str) -> bool:
    """Whether the number is 1 modulo 97 (ISO 7064), with its first four characters at the end and A = 10 to Z = 35."""
    return int("".join(str(int(letter, 36)) for letter in name[4:] + name[:4])) % 97 == 1
