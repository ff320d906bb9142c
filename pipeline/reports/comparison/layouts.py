"""The cost in tokens of the layouts of two runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from colophon.pipeline.reports.summary import layout_counts
from colophon.shards.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class LayoutCost:
    """The tokens of one layout in one run."""

    sequences: int
    by_role: Mapping[str, int]
    utilisation: float
    """The share of tokens that are not padding."""
    against_plain: float | None
    """Tokens without padding, divided by those of the run's plain layout, minus 1; None without a plain layout."""

    @property
    def tokens(self) -> int:
        """All tokens, padding included."""
        return sum(self.by_role.values())


def layout_costs(manifest: Manifest) -> dict[str, LayoutCost]:
    """The cost of each layout of a run, by its name."""
    counts = {name: layout_counts(packed.records) for name, packed in manifest.layouts.items()}
    plain = next((counts[name] for name in counts if _is_plain(manifest, name)), None)
    return {
        name: LayoutCost(
            sequences=one["sequences"],
            by_role=one["tokens"],
            utilisation=one["utilisation"],
            against_plain=None if plain is None else _without_pad(one) / max(_without_pad(plain), 1) - 1,
        )
        for name, one in counts.items()
    }


def _is_plain(manifest: Manifest, layout: str) -> bool:
    settings = manifest.layouts[layout].settings.get("layout")
    return isinstance(settings, dict) and settings.get("position") == "plain"


def _without_pad(counts: Mapping[str, Any]) -> int:
    tokens: Mapping[str, int] = counts["tokens"]
    return sum(tokens.values()) - tokens["pad"]
