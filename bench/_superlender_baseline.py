"""The peer: what a good analyst would do with pandas and LightGBM on the SuperLender files in an afternoon.

Features are written by hand, loan by loan, from the customer's loans before the moment of application; rows, cut-off
and purge are the project's own. The settings were chosen on loans before July 2017, as the project's were.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["features", "fit_and_score"]

Columns = dict[str, Any]  # name -> values of all loans, by as_of
Places = np.ndarray[Any, np.dtype[np.int64]]

LAGOS = pd.Timedelta(hours=1)
SETTINGS: dict[str, Any] = {
    "n_estimators": 150,
    "learning_rate": 0.03,
    "num_leaves": 8,
    "min_child_samples": 40,
    "subsample": 0.8,
    "subsample_freq": 1,
    "colsample_bytree": 0.5,
    "reg_lambda": 10,
    "random_state": 7,
    "n_jobs": 2,
    "verbose": -1,
}


def features(folder: Path) -> pd.DataFrame:
    """Return one row a loan, by systemloanid: `as_of` (Lagos time), `bad`, `scored` and the features."""
    earlier = pd.read_parquet(folder / "trainprevloans.parquet").assign(scored=False)
    scored = pd.read_parquet(folder / "trainperf.parquet").assign(scored=True)
    late = earlier.firstrepaiddate.dt.normalize() > earlier.firstduedate.dt.normalize()
    loans = pd.concat([earlier.assign(bad=late), scored.assign(bad=scored.good_bad_flag == "Bad")], ignore_index=True)
    loans["as_of"] = loans.creationdate + LAGOS
    loans["late"] = _days(loans.firstrepaiddate - loans.firstduedate)
    loans["late_days"] = _days(loans.firstrepaiddate.dt.normalize() - loans.firstduedate.dt.normalize())
    loans["open_days"] = _days(loans.closeddate - loans.approveddate)
    loans = loans.sort_values("as_of", kind="stable").reset_index(drop=True)
    columns = {name: loans[name].to_numpy() for name in loans.columns}
    customers = [np.sort(rows) for rows in loans.groupby("customerid").indices.values()]
    rows = [_loan_features(columns, row, customer) for customer in customers for row in customer]
    return pd.DataFrame(rows).set_index("systemloanid")


def _days(length: Any) -> Any:
    return length / np.timedelta64(1, "D")


def _before(columns: Columns, customer: Places, name: str, now: Any) -> Places:
    """Return the customer's loans whose moment `name` lies before `now`, in its order."""
    moments = columns[name][customer]
    past = customer[moments < now]
    ordered: Places = past[np.argsort(columns[name][past], kind="stable")]
    return ordered


def _loan_features(columns: Columns, row: int, customer: Places) -> dict[str, Any]:
    now = columns["as_of"][row]
    opened, repaid, closed = (
        _before(columns, customer, name, now) for name in ("approveddate", "firstrepaiddate", "closeddate")
    )
    found = {
        "systemloanid": columns["systemloanid"][row],
        "as_of": now,
        "bad": bool(columns["bad"][row]),
        "scored": bool(columns["scored"][row]),
        "amount": columns["loanamount"][row],
        "total_due": columns["totaldue"][row],
        "term": columns["termdays"][row],
        "number": columns["loannumber"][row],
        "referred": float(isinstance(columns["referredby"][row], str)),
        "hour": pd.Timestamp(now).hour,
        "opened": len(opened),
        "repaid": len(repaid),
        "closed": len(closed),
    }
    if len(opened):
        ages = _days(now - columns["as_of"][opened])
        found |= {"since_opened": ages[-1], "since_first": ages[0]}
        found |= {f"opened_{days}": int((ages < days).sum()) for days in (30, 90, 180)}
    if len(repaid):
        found |= _lateness(columns, repaid, now)
    if len(closed):
        found |= _past_loans(columns, closed, row, now)
    return found


def _lateness(columns: Columns, repaid: Places, now: Any) -> dict[str, Any]:
    late, moments = columns["late"][repaid], columns["firstrepaiddate"][repaid]
    by_calendar = columns["late_days"][repaid] > 0
    return {
        "late_last": late[-1],
        "late_before": late[-2] if len(late) > 1 else np.nan,
        "late_first": late[0],
        "late_mean": late.mean(),
        "late_three": late[-3:].mean(),
        "late_max": late.max(),
        "late_min": late.min(),
        "late_std": late.std(),
        "late_count": int(by_calendar.sum()),
        "late_share": float(by_calendar.mean()),
        "since_repaid": _days(now - moments[-1]),
        "since_first_repaid": _days(now - moments[0]),
        "hour_repaid": pd.Timestamp(moments[-1]).hour,
    }


def _past_loans(columns: Columns, closed: Places, row: int, now: Any) -> dict[str, Any]:
    last, amounts = closed[-1], columns["loanamount"][closed]
    return {
        "since_closed": _days(now - columns["closeddate"][last]),
        "last_amount": amounts[-1],
        "last_term": columns["termdays"][last],
        "last_open_days": columns["open_days"][last],
        "mean_open_days": columns["open_days"][closed].mean(),
        "mean_amount": amounts.mean(),
        "max_amount": amounts.max(),
        "sum_amount": amounts.sum(),
        "amount_to_last": columns["loanamount"][row] / amounts[-1],
        "mean_price": (columns["totaldue"][closed] / amounts - 1).mean(),
    }


def fit_and_score(frame: pd.DataFrame, train: list[int], test: list[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the probabilities of the loans `test`, from one fit on the loans `train` (systemloanids)."""
    from lightgbm import LGBMClassifier

    columns = [name for name in frame.columns if name not in ("as_of", "bad", "scored")]
    model = LGBMClassifier(**SETTINGS).fit(frame.loc[train, columns], frame.loc[train, "bad"])
    scores: Any = model.predict_proba(frame.loc[test, columns])
    return np.asarray(scores)[:, 1]
