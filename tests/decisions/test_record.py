"""The canonical record: one decision, one sequence of bytes."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from tests.decisions.lender import Linear, take

from obligor.decisions.record import decision_id, decode, derive_seed, encode, features_of
from obligor.errors import LimitError

LOG = b"\x01" * 16


def record(**changes: object) -> bytes:
    return encode(replace(take(), **changes), log_id=LOG, bundle="ab" * 32, chain=b"\x02" * 32)  # type: ignore[arg-type]


def test_a_record_holds_inputs_and_results() -> None:
    data = decode(record())
    assert data["application"] == {"event_id": "a-1", "type": "loan_application", "position": 7}
    assert (data["as_of"], data["cut"], data["seed"], data["rung"]) == (1_000, {"0": 6}, 5, "full")
    assert (data["bundle"], data["chain"]) == ("ab" * 32, "02" * 32)
    assert data["features"] == [0.0, 20.0, 0.0, 0.0, 0.0]
    assert data["offer"] == {
        "amount": 50_000,
        "currency": "NGN",
        "expires_at": 1_800_001_000,
        "term_days": 30,
        "fee": 2500,
    }
    assert (data["outcome"], data["reasons"], data["request"]) == ("approve", [], {"amount": 50_000})
    assert data["decision_id"] == decision_id(LOG, "a-1")


def test_the_bytes_are_canonical() -> None:
    encoded = record()
    assert encoded == record()
    canonical = json.dumps(json.loads(encoded), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert encoded.decode() == canonical


def test_null_and_zero_have_one_form() -> None:
    assert decode(record(features=(math.nan, -0.0, 1.5)))["features"] == [None, 0.0, 1.5]
    assert b"-0" not in record(features=(-0.0,))
    features = features_of({"features": [None, 1.5]})
    assert features is not None
    assert math.isnan(features[0])
    assert features[1] == 1.5
    assert features_of({"features": None}) is None


def test_an_infinite_number_is_refused() -> None:
    with pytest.raises(LimitError, match="finite numbers only"):
        record(features=(math.inf,))


def test_every_float_comes_back_to_the_bit() -> None:
    values = (0.1 + 0.2, 1e-310, 2**53 + 0.0, 1 / 3, 1e22, 5e-324)
    assert tuple(decode(record(features=values))["features"]) == values


@pytest.mark.parametrize(
    "change",
    [{"as_of": 2}, {"seed": 6}, {"rung": "cached"}, {"outcome": "refer"}, {"cut": {0: 7}}, {"features": (1.0,)}],
)
def test_any_change_changes_the_bytes(change: dict[str, object]) -> None:
    assert record(**change) != record()


def test_a_declined_record_names_reasons() -> None:
    encoded = encode(take(scorer=Linear(0.5)), log_id=LOG, bundle="ab", chain=b"")
    assert decode(encoded)["reasons"][0] == {
        "code": "LATE",
        "text": "Late payments in the last 90 days",
        "contribution": 1.0,
    }


def test_ids_and_seeds_are_derived_from_log_and_application() -> None:
    assert decision_id(LOG, "a-1") != decision_id(LOG, "a-2") != decision_id(b"\x02" * 16, "a-2")
    assert 0 <= derive_seed(LOG, "a-1") < 2**63
    assert derive_seed(LOG, "a-1") != derive_seed(LOG, "a-2")
