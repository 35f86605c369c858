"""The upcasts of `evolving.Sale` written out by hand, row by row: what the columnar reading is held to."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Row = dict[str, Any]

_V1 = ("shop", "buyer", "amt", "tip", "fee", "duty", "method", "note", "at", "gift")
_V2: tuple[str, ...] = (
    "shop",
    "buyer",
    "amount",
    "gratuity",
    "gratuity.currency",
    "exact_fee",
    "duty",
    "paid_by",
    "remark",
    "channel",
)
_V2 += ("at", "online")
_V3: tuple[str, ...] = (
    "merchant",
    "buyer",
    "price",
    "price.currency",
    "gratuity",
    "gratuity.currency",
    "commission",
    "duties",
    "rail",
)
_V3 += ("remark", "channel", "shipped", "online", "tax", "tax.currency")


def second_of_first(row: Row) -> Row:
    """Return a row of version 1 as one of version 2."""
    return {
        "shop": row["shop"],
        "buyer": row["buyer"],
        "amount": row["amt"],
        "gratuity": row["tip"],
        "gratuity.currency": None if row["tip"] is None else "NGN",
        "exact_fee": row["fee"] * 100,
        "duty": row["duty"],
        "paid_by": "card" if row["method"] in ("cc", "debit") else row["method"],
        "remark": "none" if row["note"] is None else row["note"],
        "channel": "till",
        "at": row["at"],
        "online": None,
    }


def third_of_second(row: Row) -> Row:
    """Return a row of version 2 as one of version 3."""
    return {
        "merchant": row["shop"],
        "buyer": row["buyer"],
        "price": row["amount"],
        "price.currency": "NGN",
        "gratuity": row["gratuity"],
        "gratuity.currency": row["gratuity.currency"],
        "commission": row["exact_fee"] * 100,
        "duties": None if row["duty"] is None else row["duty"] * 10,
        "rail": row["paid_by"] if row["paid_by"] in ("card", "cash") else "other",
        "remark": row["remark"],
        "channel": row["channel"],
        "shipped": row["at"],
        "online": row["online"],
        "tax": 7,
        "tax.currency": "KES",
    }


def _exactly(value: int | None, by: int) -> int | None:
    return value // by if value is not None and value % by == 0 else None


def second_back_from_third(row: Row) -> Row:
    """Return what a row of version 3 says in the words of version 2 that version 3 gave up."""
    return {
        "shop": row["merchant"],
        "amount": row["price"] if row["price.currency"] == "NGN" else None,
        "exact_fee": _exactly(row["commission"], 100),
        "duty": _exactly(row["duties"], 10),
        "paid_by": None if row["rail"] == "other" else row["rail"],
        "at": row["shipped"],
    }


def first_back_from_second(row: Row) -> Row:
    """Return what a row of version 2 says in the words of version 1 that version 2 gave up."""
    return {
        "amt": row["amount"],
        "tip": row["gratuity"] if row["gratuity.currency"] == "NGN" else None,
        "fee": _exactly(row["exact_fee"], 100),
        "method": None if row["paid_by"] == "card" else row["paid_by"],
        "note": row["remark"],
        "gift": None,
    }


def answers(version: int, row: Row) -> Row:
    """Return a row of a version by the names of all versions."""
    if version == 1:
        second = second_of_first(row)
        return third_of_second(second) | second | row
    if version == 2:
        return third_of_second(row) | first_back_from_second(row) | row
    second = second_back_from_third(row)
    return first_back_from_second(row | second) | second | row


def stored_rows(version: int) -> st.SearchStrategy[Row]:
    """Return rows of a version in stored form."""
    numbers = st.integers(-(10**6), 10**6)
    amounts = st.integers(0, 10**12)
    some = {
        "shop": st.sampled_from(["m-1", "m-2"]),
        "buyer": st.sampled_from([None, "c-1", "c-2"]),
        "at": st.one_of(st.none(), numbers),
        "duty": st.one_of(st.none(), numbers),
        "online": st.sampled_from([None, True, False]),
        "channel": st.sampled_from(["till", "web"]),
        "remark": st.sampled_from(["", "none", "x"]),
    }
    if version == 1:
        some |= {"amt": amounts, "tip": st.one_of(st.none(), amounts), "fee": numbers}
        some |= {"method": st.sampled_from(["cc", "debit", "cash", "iou"]), "note": st.sampled_from([None, "", "x"])}
        return st.fixed_dictionaries({n: some.get(n, st.sampled_from([None, True])) for n in _V1})
    if version == 2:
        some |= {"amount": amounts, "exact_fee": numbers, "paid_by": st.sampled_from(["card", "cash", "iou", "wallet"])}
        return _with_money(some, _V2, {"gratuity": ("NGN", "KES", None)})
    some |= {"merchant": some["shop"], "commission": numbers, "duties": some["duty"], "shipped": some["at"]}
    some |= {"rail": st.sampled_from(["card", "cash", "other"]), "channel": st.sampled_from(["till", "web", "phone"])}
    return _with_money(some, _V3, {"gratuity": ("NGN", "GHS", None), "price": ("NGN", "KES"), "tax": ("NGN", "KES")})


def _with_money(
    fields: dict[str, st.SearchStrategy[Any]], names: tuple[str, ...], money: dict[str, tuple[str | None, ...]]
) -> st.SearchStrategy[Row]:
    """Return rows whose amounts are there where their currencies are."""
    amounts, currencies = st.integers(0, 10**12), {f"{n}.currency": st.sampled_from(own) for n, own in money.items()}
    drawn = st.fixed_dictionaries({**fields, **currencies, **dict.fromkeys(money, amounts)})
    return drawn.map(lambda row: {n: None if n in money and row[f"{n}.currency"] is None else row[n] for n in names})
