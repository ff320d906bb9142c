"""Telephone numbers that are valid in their country, by the library phonenumbers."""

from __future__ import annotations

from collections.abc import Iterator

from phonenumbers import Leniency, PhoneNumberMatcher


def phones(text: str, *, regions: tuple[str | None, ...]) -> Iterator[tuple[int, int]]:
    """The start and end of each number with a country code, and of each national number of these regions."""
    for region in regions:
        for found in PhoneNumberMatcher(text, region, leniency=Leniency.VALID):
            yield found.start, found.end
