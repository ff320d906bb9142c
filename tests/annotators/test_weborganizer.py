"""WebOrganizer's 24 topics and 24 formats, found from every reasonable spelling."""

from __future__ import annotations

import pytest

from colophon.annotators.weborganizer import FORMATS, TOPICS, format_name, slug, topic_name


def test_twenty_four_each_with_distinct_slugs() -> None:
    assert len({slug(name) for name in TOPICS}) == len(TOPICS) == 24
    assert len({slug(name) for name in FORMATS}) == len(FORMATS) == 24


def test_every_name_is_found_from_its_spellings() -> None:
    for names, find in ((TOPICS, topic_name), (FORMATS, format_name)):
        for number, name in enumerate(names):
            bare = slug(name).replace("_and_", "_")
            for spelling in (name, name.upper(), slug(name), slug(name).replace("_", "-"), bare, str(number)):
                assert find(spelling) == name


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("science_math_and_technology", "Science, Math & Technology"),
        ("Software Dev.", "Software Development"),
        ("software", "Software"),
        ("travel", "Travel & Tourism"),
        ("games", "Games"),
    ],
)
def test_topic_labels(label: str, name: str) -> None:
    assert topic_name(label) == name


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("q_and_a_forum", "Q&A Forum"),
        ("qa_forum", "Q&A Forum"),
        ("about_org", "Organizational About Page"),
        ("tutorial_how_to_guide", "Tutorial / How-To Guide"),
        ("comment_section", "Discussion Forum / Comment Section"),
    ],
)
def test_format_labels(label: str, name: str) -> None:
    assert format_name(label) == name


def test_unknown_labels() -> None:
    assert topic_name("") is None
    assert topic_name("listicle") is None
    assert format_name("24") is None
