"""Calendar days by zone, against zoneinfo one by one."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from obligor.credit.calendar import local_days


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 4_000_000_000_000_000), min_size=1, max_size=5),
    st.sampled_from(["UTC", "Africa/Lagos", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"]),
)
def test_days_equal_zoneinfo(moments: list[int], zone: str) -> None:
    expected = [
        ((datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=m)).astimezone(ZoneInfo(zone)).date()).toordinal()
        - date(1970, 1, 1).toordinal()
        for m in moments
    ]
    assert local_days(np.array(moments), zone).tolist() == expected


def test_no_moments_have_no_days() -> None:
    assert local_days(np.empty(0, np.int64), "UTC").tolist() == []
