"""Dates and timestamps as text in ISO 8601."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.shards.common.arrays import NumPyArray

_ISO_8601 = re.compile(
    r"\s*([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?"
    r"\s?(?:[Zz]|(?P<zone>[+-][0-9]{2})(?::?(?P<zone_minutes>[0-9]{2}))?)?)?\s*"
)


def iso_8601(array: pa.Array) -> pa.Array:
    """Dates as `2024-03-01`, timestamps as `2024-03-01T12:30:00.5`; with a time zone in UTC and with `Z`: string [n].

    Python's range of years is no limit, and no database of time zones is read, which may lack the one given.
    """
    moments, is_moment = moments_of(array)
    suffix = "Z" if pa.types.is_timestamp(array.type) and array.type.tz is not None else ""
    texts = np.datetime_as_string(moments)
    shortened = pc.replace_substring_regex(pa.array(texts.astype(object), pa.string()), r"(\.\d*?)0+$", r"\1")
    with_zone = pc.binary_join_element_wise(pc.utf8_rtrim(shortened, "."), suffix, "")
    return pc.if_else(pa.array(is_moment), with_zone, pa.scalar(None, pa.string()))


def moments_of(array: pa.Array) -> tuple[NumPyArray, NumPyArray]:
    """Dates as datetime64[D] [n], timestamps in their unit; and bool [n]: whether there is one."""
    kind = array.type
    unit = kind.unit if pa.types.is_timestamp(kind) else "D" if pa.types.is_date32(kind) else "ms"
    counts = pc.fill_null(array.view(pa.int32() if pa.types.is_date32(kind) else pa.int64()), 0)
    moments = counts.to_numpy(zero_copy_only=False).astype("int64").view(f"datetime64[{unit}]")
    is_moment = array.is_valid().to_numpy(zero_copy_only=False) & ~np.isnat(moments)
    return moments.astype("datetime64[D]") if pa.types.is_date(kind) else moments, is_moment


def parsed_iso_8601(text: str) -> datetime | None:
    """`2013-05-18T05:48:54Z`, `2013-05-18 05:48+02:00` or `2013-05-18` as a time in UTC; None if it is no such text.

    A time without a zone counts as UTC. Digits after those of microseconds are cut.
    """
    found = _ISO_8601.fullmatch(text)
    if found is None:
        return None
    *parts, fraction, zone, zone_minutes = found.groups("0")
    shift = timedelta(hours=int(zone), minutes=int(f"{zone[0].strip('0')}{zone_minutes}"))
    try:
        year, month, day, hour, minute, second = map(int, parts)
        moment = datetime(year, month, day, hour, minute, second, int(f"{fraction:0<6}"[:6]), timezone.utc)
        return moment - shift
    except (ValueError, OverflowError):  # no such day; or a zone leads beyond the years 1 to 9999
        return None
