"""The topics and formats of WebOrganizer (arXiv 2502.10341), and their names for model labels."""

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

# Shorter names in WebOrganizer's own code and in model labels.
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
    """Lower case, `&` as `and`, other marks as one `_`: `Science, Math & Tech` → `science_math_and_tech`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("&", " and ")).strip("_")


def topic_name(label: str) -> str | None:
    """The topic with this slug, name, short name or number (`"19"`); None if there is none."""
    return _TOPIC_NAMES.get(_spelling_key(label))


def format_name(label: str) -> str | None:
    """The format with this slug, name, short name or number (`"19"`); None if there is none."""
    return _FORMAT_NAMES.get(_spelling_key(label))


def _spelling_key(name: str) -> str:
    """The slug without `and` and separators, equal for all spellings: `Q&A Forum` and `qa_forum` give `qaforum`."""
    return "".join(word for word in slug(name).split("_") if word != "and")


def _name_table(names: tuple[str, ...], others: dict[str, str]) -> dict[str, str]:
    numbers = {str(number): name for number, name in enumerate(names)}
    short_names = {_spelling_key(other): name for other, name in others.items()}
    return numbers | short_names | {_spelling_key(name): name for name in names}


_TOPIC_NAMES = _name_table(TOPICS, _OTHER_TOPICS)
_FORMAT_NAMES = _name_table(FORMATS, _OTHER_FORMATS)
