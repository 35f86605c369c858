"""What we look at: each feature with its reason code, the direction of risk where it is certain, and words."""

from __future__ import annotations

from obligor.features import as_of, feature, outstanding, request, reserved

from .events import (
    AppVisit,
    BankTransaction,
    ChargedOff,
    Dispute,
    InstalmentDue,
    LoanApplication,
    LoanCancelled,
    LoanOpened,
    PaymentFailed,
    Purchase,
    Repayment,
    Signup,
)

# ---- the request ----------------------------------------------------------------------------------------------------

amount = request("amount", reason="AMOUNT", description="Amount asked for")
instalments = request("instalments", reason="TERMS", description="Number of instalments asked for")
bureau_score = request("bureau_score", reason="BUREAU", monotone="decreasing", description="Score of the credit bureau")
hour = as_of.hour(reason="TIMING", description="Hour of the application")

# ---- who asks -------------------------------------------------------------------------------------------------------

_income = Signup.by("consumer").last("declared_income")
declared_income = feature(_income, reason="INCOME", monotone="decreasing", description="Income stated at sign-up")
account_age = Signup.by("consumer").time_since_last(
    unit="days", reason="TENURE", monotone="decreasing", description="Days since the account was opened"
)
amount_to_income = feature(
    request("amount") / _income, reason="AFFORDABILITY", description="Amount asked for against income stated at sign-up"
)

# ---- repayment behaviour --------------------------------------------------------------------------------------------

_paid = Repayment.by("consumer").sum("amount", "30d", "90d", "365d")
_fell_due = InstalmentDue.by("consumer").sum("amount", "30d", "90d", "365d")
_failures = PaymentFailed.by("consumer")

paid_of_due = feature(
    _paid / _fell_due, reason="REPAYMENT", description="Share paid of what fell due (above 1: earlier debts paid too)"
)
repayments = Repayment.by("consumer").count("90d", reason="REPAYMENT", description="Payments received")
failed_payments = _failures.count(
    "30d", "90d", "365d", reason="FAILED_PAYMENTS", monotone="increasing", description="Collections that failed"
)
no_funds = _failures.where(PaymentFailed.cause == "insufficient_funds").count(
    "90d", reason="FAILED_PAYMENTS", monotone="increasing", description="Collections that failed for lack of funds"
)
failed_share = feature(
    failed_payments["365d"] / InstalmentDue.by("consumer").count("365d"),
    reason="FAILED_PAYMENTS",
    description="Failed collections for each instalment due in a year",
)
days_since_failure = _failures.time_since_last(
    unit="days", reason="FAILED_PAYMENTS", monotone="decreasing", description="Days since a collection last failed"
)
charged_off = ChargedOff.by("consumer").count(
    reason="CHARGE_OFF", monotone="increasing", description="Loans ever written off"
)
arrears = outstanding(
    opened=InstalmentDue.by("consumer").per("loan").amount("amount"),
    reduced=[Repayment.by("consumer").per("loan").amount("amount")],
    closed=[LoanCancelled.by("consumer").per("loan")],
    reason="ARREARS",
    monotone="increasing",
    description="Fallen due and not paid, over all loans",
)

# ---- credit in use --------------------------------------------------------------------------------------------------

_owed = outstanding(
    opened=LoanOpened.by("consumer").per("loan").amount("amount"),
    reduced=[Repayment.by("consumer").per("loan").amount("amount")],
    closed=[LoanCancelled.by("consumer").per("loan")],
)
_offered = reserved(
    offered=LoanApplication.Decided.by("consumer")
    .where(LoanApplication.Decided.outcome.isin(["approve", "counter_offer"]))
    .per("application_id")
    .amount("offer_amount", expires="offer_expires_at"),
    ended=[LoanOpened.by("consumer").per("application_id")],
)
owed = feature(_owed, reason="DEBT", description="Owed on open loans")
exposure = feature(_owed + _offered, scored=False, description="Owed, and offered but not yet taken up or expired")
loans = LoanOpened.by("consumer").count("90d", "365d", reason="DEBT", description="Loans taken")
days_since_loan = LoanOpened.by("consumer").time_since_last(
    unit="days", reason="DEBT", description="Days since the last loan was taken"
)
applications = LoanApplication.by("consumer").count(
    "1d", "7d", "30d", reason="APPLICATIONS", monotone="increasing", description="Earlier applications"
)
amount_to_usual = feature(
    request("amount") / LoanOpened.by("consumer").mean("amount", "365d"),
    reason="AMOUNT",
    description="Amount asked for against the usual loan of the last year",
)

# ---- the bank account -----------------------------------------------------------------------------------------------

_bank = BankTransaction.by("consumer")
_wages = _bank.where(BankTransaction.kind_of == "wage")
wages = _wages.sum("amount", "30d", "90d", reason="INCOME", monotone="decreasing", description="Wages received")
days_since_wage = _wages.time_since_last(unit="days", reason="INCOME", description="Days since wages last came in")
wage_spread = feature(
    _wages.std("amount", "90d") / _wages.mean("amount", "90d"),
    reason="INCOME_STABILITY",
    description="How much wages vary, as a share of the mean",
)
amount_to_wages = feature(
    request("amount") / wages["30d"], reason="AFFORDABILITY", description="Amount asked for against wages of 30 days"
)
borrowed_elsewhere = _bank.where(BankTransaction.kind_of == "lender_in").sum(
    "amount", "30d", "90d", reason="OTHER_LENDERS", description="Received from other lenders"
)
repaid_elsewhere = _bank.where(BankTransaction.kind_of == "lender_out").sum(
    "amount", "30d", "90d", reason="OTHER_LENDERS", description="Paid to other lenders"
)
gambling = _bank.where(BankTransaction.kind_of == "gambling").sum(
    "amount", "30d", "90d", reason="SPENDING", description="Paid to betting firms"
)
cash = _bank.where(BankTransaction.kind_of == "cash").sum(
    "amount", "30d", reason="SPENDING", description="Cash withdrawn"
)

# ---- shopping and the app -------------------------------------------------------------------------------------------

spent = Purchase.by("consumer").sum("amount", "30d", reason="SPENDING", description="Spent on purchases paid at once")
purchases = Purchase.by("consumer").count("7d", "30d", reason="SPENDING", description="Purchases paid at once")
merchants = Purchase.by("consumer").distinct("merchant", "90d", reason="SPENDING", description="Different merchants")
visits = AppVisit.by("consumer").count("1d", "30d", reason="APP_USE", description="Screens looked at in the app")
limit_visits = (
    AppVisit.by("consumer")
    .where(AppVisit.screen == "limit")
    .count("7d", "30d", reason="APP_USE", description="Times the credit limit was looked at")
)

# ---- the merchant ---------------------------------------------------------------------------------------------------

merchant_loans = LoanOpened.by("merchant").count("90d", reason="MERCHANT", description="Loans at this merchant")
merchant_charge_offs = feature(
    ChargedOff.by("merchant").count("365d") / LoanOpened.by("merchant").count("365d"),
    reason="MERCHANT",
    monotone="increasing",
    description="Loans written off for each loan made at this merchant in a year",
)
merchant_failures = feature(
    PaymentFailed.by("merchant").count("90d") / InstalmentDue.by("merchant").count("90d"),
    reason="MERCHANT",
    monotone="increasing",
    description="Failed collections for each instalment due at this merchant",
)
merchant_disputes = feature(
    Dispute.by("merchant").count("180d") / LoanOpened.by("merchant").count("180d"),
    reason="MERCHANT",
    monotone="increasing",
    description="Disputes for each loan made at this merchant",
)
merchant_basket = LoanOpened.by("merchant").mean("amount", "90d", reason="MERCHANT", description="Usual loan there")
