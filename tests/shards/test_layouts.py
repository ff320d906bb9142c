"""Layout settings and templates: which are refused, and the text that a template renders."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from colophon.shards.common.errors import ShardError
from colophon.shards.layouts import describe_weights, dropped, parse_layout
from colophon.shards.schema import ROLE_NAMES
from tests.shards import oracle
from tests.shards.cases import make_layout


class TestSettings:
    def test_defaults_are_the_papers(self) -> None:
        prepend = make_layout("prepend", template="{url}")
        assert prepend.model_dump() == {
            "role_weights": {},
            "dropout": 0.1,
            "when_dropped": "empty",
            "template": "{url}",
            "max_metadata_tokens": 128,
            "position": "prepend",
            "segments": "every",
        }
        assert make_layout("append", template="{url}").model_dump() == {**prepend.model_dump(), "position": "append"}
        assert make_layout("meta_tokens").model_dump() == {
            "role_weights": {},
            "dropout": 0.0,
            "when_dropped": "empty",
            "position": "meta_tokens",
            "num_meta_tokens": 5,
            "segments": "every",
        }
        assert make_layout("plain").model_dump() == {"role_weights": {}, "position": "plain"}

    @pytest.mark.parametrize(
        ("position", "settings"),
        [
            ("sideways", {}),
            ("prepend", {}),  # no template
            ("plain", {"template": "{url}"}),
            ("plain", {"dropout": 0.1}),
            ("meta_tokens", {"template": "{url}"}),
            ("meta_tokens", {"num_meta_tokens": 0}),
            ("prepend", {"template": "{url}", "typo": 1}),
            ("prepend", {"template": "{url}", "dropout": 1.5}),
            ("prepend", {"template": "{url}", "dropout": -0.1}),
            ("prepend", {"template": "{url}", "dropout": float("nan")}),
            ("prepend", {"template": "{url}", "when_dropped": "never"}),
            ("prepend", {"template": "{url}", "segments": "last"}),
            ("append", {"template": "{url}", "segments": "first"}),
            ("prepend", {"template": "{url}", "max_metadata_tokens": 0}),
            ("prepend", {"template": "{url}", "num_meta_tokens": 5}),
            ("plain", {"role_weights": {"text": -1}}),
            ("plain", {"role_weights": {"text": float("inf")}}),
            ("plain", {"role_weights": {"text": float("nan")}}),
            ("plain", {"role_weights": {"body": 1}}),
            ("plain", {"role_weights": {"pad": 1}}),
        ],
    )
    def test_refused(self, position: str, settings: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            make_layout(position, **settings)

    def test_layouts_are_frozen(self) -> None:
        with pytest.raises(ValidationError):
            make_layout("plain").role_weights = {"text": 2}  # type: ignore[misc]

    def test_a_layout_is_parsed_from_its_settings_with_its_name_or_without(self) -> None:
        layout = make_layout("prepend", template="{url}", dropout=0.5)
        settings = layout.model_dump()
        assert parse_layout(settings, where="x") == parse_layout({"name": "a", **settings}, where="x") == layout

    def test_settings_that_are_no_layout_are_an_error_with_their_file(self) -> None:
        with pytest.raises(ShardError, match=r"^out/manifest\.json: damaged layout: Input tag 'sideways'"):
            parse_layout({"position": "sideways"}, where="out/manifest.json")

    def test_fields(self) -> None:
        assert make_layout("plain").fields == ()
        assert make_layout("meta_tokens").fields == ()
        assert make_layout("append", template="{topic}, {format} {topic}").fields == ("topic", "format")


class TestWeights:
    @pytest.mark.parametrize("position", ["plain", "prepend", "meta_tokens"])
    def test_text_and_eos_have_weight(self, position: str) -> None:
        settings = {"template": "{url}"} if position == "prepend" else {}
        assert make_layout(position, **settings).weights() == {
            "pad": 0, "bos": 0, "eos": 1, "wrapper": 0, "metadata": 0, "meta_token": 0, "text": 1,
        }  # fmt: skip

    def test_the_metadata_of_append_has_weight(self) -> None:
        assert make_layout("append", template="{url}").weights() == {
            "pad": 0, "bos": 0, "eos": 1, "wrapper": 1, "metadata": 1, "meta_token": 0, "text": 1,
        }  # fmt: skip

    @pytest.mark.parametrize("position", ["plain", "prepend", "append", "meta_tokens"])
    def test_weights_are_in_the_order_of_roles_as_packed_files_store_them(self, position: str) -> None:
        settings = {"template": "{url}"} if position in ("prepend", "append") else {}
        assert tuple(make_layout(position, role_weights={"text": 2}, **settings).weights()) == ROLE_NAMES

    def test_any_role_but_padding_can_be_set(self) -> None:
        given_weights: dict[str, float] = {name: 0.25 for name in ROLE_NAMES if name != "pad"}
        assert make_layout("append", template="x", role_weights=given_weights).weights() == {
            "pad": 0,
            **given_weights,
        }
        assert make_layout("plain", role_weights={"pad": 0}).weights()["pad"] == 0

    def test_one_line_for_reports(self) -> None:
        assert describe_weights(make_layout("plain").weights()) == "text eos"
        append = make_layout("append", template="x", role_weights={"metadata": 0.5, "wrapper": 0})
        assert describe_weights(append.weights()) == "text metadata×0.5 eos"
        assert describe_weights(make_layout("plain", role_weights={"text": 0, "eos": 0}).weights()) == ""


class TestDropped:
    # Computed without this code: BLAKE2b of 8 bytes, keyed with the seed, read as a little-endian number in [0, 1):
    # a 0.2266, b 0.6795, c 0.8091 with seed 0.
    @pytest.mark.parametrize(("dropout", "lost"), [(0.2, ""), (0.3, "a"), (0.7, "ab"), (0.9, "abc")])
    def test_golden(self, dropout: float, lost: str) -> None:
        mask = dropped(["a", "b", "c"], dropout=dropout, seed=0)
        assert "".join(name for name, gone in zip("abc", mask, strict=True) if gone) == lost

    def test_the_ends(self) -> None:
        names = [str(i) for i in range(1000)]
        assert dropped(names, dropout=1.0, seed=0).all()
        assert not dropped(names, dropout=0.0, seed=0).any()
        assert dropped([], dropout=0.5, seed=0).tolist() == []

    def test_null_and_empty_ids_are_one_id(self) -> None:
        assert dropped([None, ""], dropout=0.5, seed=3).tolist() in ([True, True], [False, False])

    @given(
        st.lists(st.none() | st.text(max_size=10), max_size=10),
        st.floats(0, 1),
        st.integers(-(2**63), 2**63 - 1),
    )
    def test_like_the_oracle(self, ids: list[str | None], dropout: float, seed: int) -> None:
        expected = [oracle.is_dropped(i, dropout=dropout, seed=seed) for i in ids]
        assert dropped(ids, dropout=dropout, seed=seed).tolist() == expected
