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
    rows = [
        _loan_features(loan, customer)
        for _, customer in loans.sort_values("as_of").groupby("customerid", sort=False)
        for _, loan in customer.iterrows()
    ]
    return pd.DataFrame(rows).set_index("systemloanid")


def _days(length: Any) -> Any:
    return length / pd.Timedelta(days=1)


def _loan_features(loan: pd.Series, customer: pd.DataFrame) -> dict[str, Any]:
    now = loan.as_of
    opened = customer[customer.approveddate < now]
    repaid = customer[customer.firstrepaiddate < now].sort_values("firstrepaiddate")
    closed = customer[customer.closeddate < now].sort_values("closeddate")
    row = {
        "systemloanid": loan.systemloanid,
        "as_of": now,
        "bad": bool(loan.bad),
        "scored": bool(loan.scored),
        "amount": loan.loanamount,
        "total_due": loan.totaldue,
        "term": loan.termdays,
        "number": loan.loannumber,
        "referred": float(isinstance(loan.referredby, str)),
        "hour": now.hour,
        "opened": len(opened),
        "repaid": len(repaid),
        "closed": len(closed),
    }
    if len(opened):
        ages = _days(now - opened.as_of).to_numpy()
        row |= {"since_opened": ages[-1], "since_first": ages[0]}
        row |= {f"opened_{days}": int((ages < days).sum()) for days in (30, 90, 180)}
    if len(repaid):
        row |= _lateness(repaid, now)
    if len(closed):
        row |= _past_loans(closed, loan, now)
    return row


def _lateness(repaid: pd.DataFrame, now: pd.Timestamp) -> dict[str, Any]:
    late = repaid.late.to_numpy()
    return {
        "late_last": late[-1],
        "late_before": late[-2] if len(late) > 1 else np.nan,
        "late_first": late[0],
        "late_mean": late.mean(),
        "late_three": late[-3:].mean(),
        "late_max": late.max(),
        "late_min": late.min(),
        "late_std": late.std(),
        "late_count": int((repaid.late_days > 0).sum()),
        "late_share": float((repaid.late_days > 0).mean()),
        "since_repaid": _days(now - repaid.firstrepaiddate.iloc[-1]),
        "since_first_repaid": _days(now - repaid.firstrepaiddate.iloc[0]),
        "hour_repaid": repaid.firstrepaiddate.iloc[-1].hour,
    }


def _past_loans(closed: pd.DataFrame, loan: pd.Series, now: pd.Timestamp) -> dict[str, Any]:
    last = closed.iloc[-1]
    return {
        "since_closed": _days(now - last.closeddate),
        "last_amount": last.loanamount,
        "last_term": last.termdays,
        "last_open_days": last.open_days,
        "mean_open_days": closed.open_days.mean(),
        "mean_amount": closed.loanamount.mean(),
        "max_amount": closed.loanamount.max(),
        "sum_amount": closed.loanamount.sum(),
        "amount_to_last": loan.loanamount / last.loanamount,
        "mean_price": (closed.totaldue / closed.loanamount - 1).mean(),
    }


def fit_and_score(frame: pd.DataFrame, train: list[int], test: list[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the probabilities of the loans `test`, from one fit on the loans `train` (systemloanids)."""
    from lightgbm import LGBMClassifier

    columns = [name for name in frame.columns if name not in ("as_of", "bad", "scored")]
    model = LGBMClassifier(**SETTINGS).fit(frame.loc[train, columns], frame.loc[train, "bad"])
    scores: Any = model.predict_proba(frame.loc[test, columns])
    return np.asarray(scores)[:, 1]
