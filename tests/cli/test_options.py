"""Moments as options."""

from __future__ import annotations

import pytest

from obligor.cli.options import instant
from obligor.errors import BadInput


def test_dates_and_moments() -> None:
    assert instant("1970-01-02", "--since", 0) == 86_400_000_000
    assert instant("1970-01-01T00:00:01Z", "--since", 0) == 1_000_000
    assert instant(None, "--since", 5) == 5


def test_anything_else_is_refused_by_its_option() -> None:
    with pytest.raises(BadInput, match="--since: expected an RFC 3339"):
        instant("yesterday", "--since", 0)
