"""API keys: found by digest, named, and never kept."""

from __future__ import annotations

import pytest

from obligor.decisions.auth import ApiKeys, format_key, key_digest
from obligor.errors import DefinitionError

KEY = format_key(bytes(range(32)))
KEYS = ApiKeys({"shop": key_digest(KEY), "desk": key_digest("other")})


@pytest.mark.parametrize(
    "headers",
    [{"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer  {KEY} "}, {"x-api-key": KEY}],
)
def test_a_known_key_names_its_caller(headers: dict[str, str]) -> None:
    assert KEYS.identify(headers) == "shop"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": KEY},
        {"authorization": "Bearer "},
        {"authorization": f"Basic {KEY}"},
        {"authorization": f"Bearer {KEY}x"},
        {"x-api-key": key_digest(KEY)},
        {"x-api-key": ""},
    ],
)
def test_anything_else_names_nobody(headers: dict[str, str]) -> None:
    assert KEYS.identify(headers) is None


def test_a_wrong_configuration_names_everything_wrong_and_no_secret() -> None:
    with pytest.raises(DefinitionError) as caught:
        ApiKeys({"shop": KEY, "a b": key_digest("x"), "fine": key_digest("y")})
    assert len(caught.value.problems) == 2
    assert KEY not in str(caught.value)


def test_keys_from_text() -> None:
    keys = ApiKeys.from_text(f"shop={key_digest(KEY)},desk={key_digest('b')}")
    assert keys.identify({"x-api-key": "b"}) == "desk"
    assert len(ApiKeys.from_text("")) == 0
    with pytest.raises(DefinitionError, match="two API keys of one name"):
        ApiKeys.from_text(f"shop={key_digest('a')},shop={key_digest('b')}")


def test_a_key_is_made_of_32_bytes() -> None:
    with pytest.raises(ValueError, match="expected 32 random bytes, got 3"):
        format_key(b"abc")
