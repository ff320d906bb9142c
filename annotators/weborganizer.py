"""The topics and formats of WebOrganizer (arXiv 2502.10341), and their names from model labels."""

from __future__ import annotations

import re

TOPICS = (
    "Adult Content",
    "Art & Design",
    "Software Development",
    "Crime & Law",
    "Education & Jobs",
    "Electronics & Hardware",
    "Entertainment",
    "Social Life",
    "Fashion & Beauty",
    "Finance & Business",
    "Food & Dining",
    "Games",
    "Health",
    "History & Geography",
    "Home & Hobbies",
    "Industrial",
    "Literature",
    "Politics",
    "Religion",
    "Science, Math & Technology",
    "Software",
    "Sports & Fitness",
    "Transportation",
    "Travel & Tourism",
)
"""The 24 topics, in the order of their class numbers."""

FORMATS = (
    "Academic Writing",
    "Content Listing",
    "Creative Writing",
    "Customer Support Page",
    "Discussion Forum / Comment Section",
    "FAQs",
    "Incomplete Content",
    "Knowledge Article",
    "Legal Notices",
    "Listicle",
    "News Article",
    "Nonfiction Writing",
    "Organizational About Page",
    "Organizational Announcement",
    "Personal About Page",
    "Personal Blog",
    "Product Page",
    "Q&A Forum",
    "Spam / Ads",
    "Structured Data",
    "Technical Writing",
    "Transcript / Interview",
    "Tutorial / How-To Guide",
    "User Reviews",
)
"""The 24 formats, in the order of their class numbers."""

# Shorter names that stand in WebOrganizer's own code and in model labels beside the display names.
_OTHER_TOPICS = {
    "Adult": "Adult Content",
    "Hardware": "Electronics & Hardware",
    "History": "History & Geography",
    "Science & Tech": "Science, Math & Technology",
    "Science & Technology": "Science, Math & Technology",
    "Software Dev": "Software Development",
    "Sports": "Sports & Fitness",
    "Travel": "Travel & Tourism",
}
_OTHER_FORMATS = {
    "About Org": "Organizational About Page",
    "About Organization": "Organizational About Page",
    "About Pers": "Personal About Page",
    "About Personal": "Personal About Page",
    "Audio Transcript": "Transcript / Interview",
    "Comment Section": "Discussion Forum / Comment Section",
    "Customer Support": "Customer Support Page",
    "Discussion Forum": "Discussion Forum / Comment Section",
    "Documentation": "Technical Writing",
    "FAQ": "FAQs",
    "How-To Guide": "Tutorial / How-To Guide",
    "Legal Notice": "Legal Notices",
    "News Org": "Organizational Announcement",
    "News Organization": "Organizational Announcement",
    "Question & Answer Forum": "Q&A Forum",
    "Spam": "Spam / Ads",
    "Transcript": "Transcript / Interview",
    "Truncated": "Incomplete Content",
    "Tutorial": "Tutorial / How-To Guide",
    "User Review": "User Reviews",
}


def slug(name: str) -> str:
    """`Science, Math & Technology` → `science_math_and_technology`: lower case, `&` as `and`, the rest as one `_`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("&", " and ")).strip("_")


def topic_name(label: str) -> str | None:
    """The display name of a topic from its slug, a variant of it, its name or its number (`"19"`); None if none."""
    return _TOPIC_OF.get(_key(label))


def format_name(label: str) -> str | None:
    """The display name of a format from its slug, a variant of it, its name or its number (`"19"`); None if none."""
    return _FORMAT_OF.get(_key(label))


def _key(name: str) -> str:
    """What all spellings of a name share: its slug without `and` and without separators."""
    return "".join(word for word in slug(name).split("_") if word != "and")


def _table(names: tuple[str, ...], others: dict[str, str]) -> dict[str, str]:
    numbers = {str(number): name for number, name in enumerate(names)}
    return numbers | {_key(other): name for other, name in others.items()} | {_key(name): name for name in names}


_TOPIC_OF = _table(TOPICS, _OTHER_TOPICS)
_FORMAT_OF = _table(FORMATS, _OTHER_FORMATS)
