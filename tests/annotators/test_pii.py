"""The `pii` annotator: what it finds and replaces, on single cases and on a labelled set."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.annotators.base import AnnotatorError
from colophon.annotators.personal_data.ibans import LENGTHS, has_checksum
from colophon.annotators.pii import PiiAnnotator, PiiConfig
from tests.annotators.personal_data import labelled_texts

ALL: dict[str, Any] = {"kinds": ["email", "ip", "iban", "phone"]}


def build(**settings: Any) -> PiiAnnotator:
    return PiiConfig.model_validate(settings).build("pii")


def found(text: str, **settings: Any) -> list[tuple[str, str]]:
    """Kind and text of each span."""
    (row,) = build(**settings).annotate(pa.record_batch({"text": [text]})).to_pylist()
    assert row["pii_count"] == len(row["pii_spans"])
    return [(span["kind"], text[span["start"] : span["end"]]) for span in row["pii_spans"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Größe 日本: anna.m@uni.ch!", ["anna.m@uni.ch"]),
        ("a@b.co.uk,c@d.org", ["a@b.co.uk", "c@d.org"]),
        ("ANNA@GMAIL.COM.", ["ANNA@GMAIL.COM"]),
        ("k.müller@müller.de", ["k.müller@müller.de"]),
        ("'anna@gmail.com'", ["anna@gmail.com"]),
        ("see anna@gmail.com/about", ["anna@gmail.com"]),
        (f"{'a' * 64}@gmail.com", [f"{'a' * 64}@gmail.com"]),
        (f"{'a' * 65}@gmail.com", []),
        (f"a@{'b' * 64}.com", []),
        (f"a@{'b.' * 126}com", []),
        (".@gmail.com", []),
        ("a.@gmail.com", []),
        ("@gmail.com", []),
        ("a@gmail", []),
        ("a@@gmail.com", []),
        ("a@com", []),
        ("a@co.uk", []),
        ("a@1.2.3.4", []),
        ("git@github.com:a/b.git", []),
        ("https://me@host.org/x", []),
        ("@me@mastodon.social", []),
    ],
)
def test_emails(text: str, expected: list[str]) -> None:
    assert found(text, kinds=["email"]) == [("email", each) for each in expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("185.12.44.7", ["185.12.44.7"]),
        ("(91.20.30.40)", ["91.20.30.40"]),
        ("91.20.30.40/24, 91.20.30.40:80.", ["91.20.30.40", "91.20.30.40"]),
        ("http://91.20.30.40/", ["91.20.30.40"]),
        ("2a00:1450:4001::200e, 2001:4860:4860:0:0:0:0:8888", ["2a00:1450:4001::200e", "2001:4860:4860:0:0:0:0:8888"]),
        ("at 2a00::: no", []),
        ("2a00:1450:4001:: is a net", ["2a00:1450:4001::"]),
        ("1.2.3.4 91.20.30.400 91.20.30 91.020.30.40 91.20.30.40.50", []),
        ("10.0.0.1 192.168.0.1 172.16.3.4 127.0.0.1 169.254.1.1 100.64.0.1 224.0.0.251 0.0.0.0 255.255.255.255", []),
        (
            "v91.20.30.40 x-91.20.30.40 91.20.30.40-rc1 91.20.30.40b2 a/91.20.30.40 version: 91.20.30.40 §91.20.30.40",
            [],
        ),
        ("2001:db8::1 fe80::1 ::1 2023:10:11 face::b00c 2a00:g::1", []),
    ],
)
def test_ip_addresses(text: str, expected: list[str]) -> None:
    assert found(text, kinds=["ip"]) == [("ip", each) for each in expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CH9300762011623852957", ["CH9300762011623852957"]),
        ("DE89 3704 0044 0532 0130 00.", ["DE89 3704 0044 0532 0130 00"]),
        ("GB82-WEST-1234-5698-7654-32", ["GB82-WEST-1234-5698-7654-32"]),
        ("NO9386011117947 NEXT", ["NO9386011117947"]),
        ("MT84 MALT 0110 0001 2345 MTLC AST0 01S", ["MT84 MALT 0110 0001 2345 MTLC AST0 01S"]),
        ("CH9300762011623852958", []),
        ("CH93007620116238529577", []),
        ("XCH9300762011623852957", []),
        ("CH93  0076 2011 6238 5295 7", []),
        ("ZZ9300762011623852957", []),
        ("CH930076201162385295", []),
    ],
)
def test_ibans(text: str, expected: list[str]) -> None:
    assert found(text, kinds=["iban"]) == [("iban", each) for each in expected]


def test_lengths_are_those_of_known_numbers() -> None:
    examples = "AD1200012030200359100100 BE68539007547034 FR1420041010050500013M02606 HU42117730161111101800000000 "
    examples += "LC55HEMM000100010012001200023015 PL61109010140000071219812874 SE4550000000058398257466 "
    examples += "TR330006100519786457841326 RU0304452522540817810538091310419 BR1800360305000010009795493C1"
    for number in examples.split():
        assert has_checksum(number)
        assert LENGTHS[number[:2]] == len(number)


def test_phones() -> None:
    pytest.importorskip("phonenumbers")
    assert found("call +41 44 668 18 00 or 044 668 18 00", kinds=["phone"]) == [("phone", "+41 44 668 18 00")]
    swiss = found("call +1 650-253-0000 or 044 668 18 00", kinds=["phone"], phone_regions=["CH"])
    assert swiss == [("phone", "+1 650-253-0000"), ("phone", "044 668 18 00")]
    with pytest.raises(AnnotatorError, match=r"annotators\.pii\.phone_regions: no region 'Bern'"):
        build(kinds=["phone"], phone_regions=["Bern"])


def test_settings_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AnnotatorError, match=r"annotators\.pii\.phone_regions: kinds does not have 'phone'"):
        build(phone_regions=["CH"])
    with pytest.raises(ValueError, match="kinds"):
        build(kinds=[])
    monkeypatch.setitem(__import__("sys").modules, "phonenumbers", None)
    with pytest.raises(AnnotatorError, match=r"needs the package phonenumbers: pip install 'colophon\[pii\]'"):
        build(**ALL)
    assert build().schema.names == ["pii_count", "pii_emails", "pii_ips", "pii_ibans", "pii_spans"]


def test_placeholders_replace_the_spans_alone() -> None:
    texts = ["Größe: a@uni.ch 🎉 91.20.30.40, CH93 0076 2011 6238 5295 7!", None, "", "nothing", "b@uni.ch"]
    expected = ["Größe: <email-pii> 🎉 <ip-pii>, <iban-pii>!", None, "", "nothing", "<email-pii>"]
    for kind in (pa.string(), pa.large_string()):
        rewritten = build().rewrite(pa.array(texts, kind))
        assert rewritten.type == kind
        assert rewritten.to_pylist() == expected
    counts = build().annotate(pa.record_batch({"text": texts})).to_pydict()
    assert counts["pii_count"] == [3, None, 0, 0, 1]
    assert counts["pii_ips"] == [1, None, 0, 0, 0]


def test_overlapping_matches_are_one_span() -> None:
    assert found("tel41446681800@uni.ch root@91.20.30.40", kinds=["email", "ip"]) == [
        ("email", "tel41446681800@uni.ch"),
        ("ip", "91.20.30.40"),
    ]


def test_precision_and_recall_on_the_labelled_set() -> None:
    """The numbers of docs/annotators.md; the set has cases that are known to be wrong."""
    pytest.importorskip("phonenumbers")
    labelled = labelled_texts()
    rows = build(**ALL).annotate(pa.record_batch({"text": [each.text for each in labelled]}))
    right: dict[str, int] = dict.fromkeys(ALL["kinds"], 0)
    wrong, missed = dict(right), dict(right)
    for each, spans in zip(labelled, rows.column("pii_spans").to_pylist(), strict=True):
        given = {(span["start"], span["end"], span["kind"]) for span in spans}
        for counts, which in (
            (right, given & {*each.spans}),
            (wrong, given - {*each.spans}),
            (missed, {*each.spans} - given),
        ):
            for _, _, kind in which:
                counts[kind] += 1
    assert min(right.values()) > 200
    precision = {kind: right[kind] / (right[kind] + wrong[kind]) for kind in right}
    recall = {kind: right[kind] / (right[kind] + missed[kind]) for kind in right}
    for kind, (at_least, found_at_least) in EXPECTED.items():
        assert precision[kind] >= at_least, f"{kind}: precision {precision[kind]:.3f}"
        assert recall[kind] >= found_at_least, f"{kind}: recall {recall[kind]:.3f}"


EXPECTED = {"email": (1.0, 0.95), "ip": (0.95, 1.0), "iban": (1.0, 1.0), "phone": (1.0, 1.0)}
"""At least this precision and recall by kind."""


@given(st.text(st.sampled_from("ab1.@:-+ 9CH\n/é\U0001f600"), max_size=60))
def test_any_text_is_rewritten_by_its_spans(text: str) -> None:
    annotator = build()
    (row,) = annotator.annotate(pa.record_batch({"text": pa.array([text])})).to_pylist()
    expected, end = "", 0
    for span in row["pii_spans"]:
        assert end <= span["start"] < span["end"] <= len(text)
        expected += text[end : span["start"]] + f"<{span['kind']}-pii>"
        end = span["end"]
    (rewritten,) = annotator.rewrite(pa.array([text])).to_pylist()
    assert rewritten == expected + text[end:]


@pytest.mark.parametrize("part", ["@", "a@", "1.", "2a00:", "AA11 ", "+1 ", "a@b.", "9"])
def test_hostile_texts_take_linear_time(part: str) -> None:
    """Steps of the interpreter are counted, not time: twice the text takes at most about twice the steps."""
    annotator = build()
    counts = [_calls(annotator, part * size) for size in (2000, 4000)]
    assert counts[1] <= 2.5 * counts[0] + 1000


def _calls(annotator: PiiAnnotator, text: str) -> int:
    import sys

    num_calls = 0

    def count(*_: object) -> None:
        nonlocal num_calls
        num_calls += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        annotator.rewrite(pa.array([text]))
    finally:
        sys.setprofile(before)
    return num_calls
