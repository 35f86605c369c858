from __future__ import annotations

import pytest

from obligor.events.chain import BrokenLink, genesis, ledger_link, link


def test_a_link_depends_on_every_part_and_on_where_parts_end() -> None:
    links = [link(b"a", b"bc"), link(b"ab", b"c"), link(b"a", b"b", b"c"), link(b"a", b"bc", b""), link(b"a")]
    assert len(set(links)) == len(links)
    assert {len(one) for one in links} == {32}


def test_links_are_fixed_for_ever() -> None:
    """A log written by one release is verified by every later one."""
    assert genesis(b"id", "log").hex() == "5c98a91c8c660167d8d5d8774b3112c1d741a96a150b6ff50c0bdb52d58fc8cd"
    assert (
        ledger_link(bytes(32), "d-1", 7, b"{}").hex()
        == "1d1344f645d1f70c77ca597a3bac119185c685ac836a0289898f6b1dd1586970"
    )


@pytest.mark.parametrize("other", [("d-2", 7, b"{}"), ("d-1", 8, b"{}"), ("d-1", 7, b"{} "), ("d-", 7, b"{}")])
def test_a_ledger_link_covers_the_whole_row(other: tuple[str, int, bytes]) -> None:
    assert ledger_link(bytes(32), "d-1", 7, b"{}") != ledger_link(bytes(32), *other)
    assert ledger_link(bytes(32), "d-1", 7, b"{}") != ledger_link(bytes([1]) * 32, "d-1", 7, b"{}")


def test_logs_and_their_chains_begin_apart() -> None:
    assert len({genesis(b"a", "log"), genesis(b"b", "log"), genesis(b"a", "ledger")}) == 3


def test_a_broken_link_says_where() -> None:
    assert (
        str(BrokenLink("log", 8193, "the block does not fit its link"))
        == "log at 8193: the block does not fit its link"
    )
