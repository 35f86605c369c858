"""What we look at. Most of it is ready-made (`obligor.credit`): reasons, directions of risk and words come with it."""

from __future__ import annotations

from obligor.credit import (
    Applications,
    Borrowing,
    FailedPayments,
    Income,
    Loans,
    Merchant,
    OtherLenders,
    Payments,
    Relationship,
)
from obligor.features import as_of, feature, request

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
instalments = request("instalments", unit="instalments", reason="TERMS", description="Number of instalments asked for")
bureau_score = request(
    "bureau_score", unit="points", reason="BUREAU", monotone="decreasing", description="Score of the credit bureau"
)
hour = as_of.hour(unit="hour of the day", reason="TIMING", description="Hour of the application")

# ---- who asks -------------------------------------------------------------------------------------------------------

_stated = Signup.by("consumer").last("declared_income")
declared_income = feature(_stated, reason="INCOME", monotone="decreasing", description="Income stated at sign-up")
amount_to_stated = feature(
    request("amount") / _stated,
    reason="AFFORDABILITY",
    monotone="increasing",
    description="Amount asked for against the income stated at sign-up",
)
account_age = Signup.by("consumer").time_since_last(
    unit="days", reason="TENURE", monotone="decreasing", description="Days since the account was opened"
)

# ---- the bank account: income, spending, other lenders --------------------------------------------------------------

_account, _kind_of = BankTransaction.by("consumer"), BankTransaction.kind_of
_income = Income(_account.where(_kind_of == "wage"), "amount")
income = _income.received("30d", "90d")
income_variation = _income.variation("90d")
amount_to_income = _income.amount_to_income(request("amount"))
days_since_payday = _income.days_since_payday()
pay_irregularity = _income.pay_irregularity("120d")
pay_cycle_elapsed = _income.cycle_elapsed()
spent_since_payday = _income.spent_since_payday(Purchase.by("consumer"), "amount")
gambling_of_income = _income.share_spent(
    _account.where(_kind_of == "gambling"), "amount", "90d", description="Paid to betting firms for each unit of income"
)
cash_of_income = _income.share_spent(
    _account.where(_kind_of == "cash"), "amount", "90d", description="Cash withdrawn for each unit of income"
)
_elsewhere = OtherLenders(_account.where(_kind_of == "lender_in"), _account.where(_kind_of == "lender_out"), "amount")
borrowed_elsewhere = _elsewhere.amount_borrowed("30d", "90d")
repaid_elsewhere = _elsewhere.amount_repaid("30d", "90d")
borrowed_since_repaying = _elsewhere.borrowed_since_repaying()

# ---- loans with us: what is owed, past due, paid late, failed -------------------------------------------------------

_loans = Loans(
    LoanOpened.by("consumer"),
    Repayment.by("consumer"),
    InstalmentDue.by("consumer"),
    closed=[LoanCancelled.by("consumer")],
)
owed = _loans.owed()
unpaid_share = _loans.unpaid_share()
repaid_loans = _loans.repaid_loans()
arrears = _loans.arrears()
days_past_due = _loans.days_past_due()
exposure = _loans.exposure(LoanApplication.Decided.by("consumer"))
charged_off = ChargedOff.by("consumer").count(
    unit="loans", reason="CHARGE_OFF", monotone="increasing", description="Loans ever written off"
)
_payments = Payments(Repayment.by("consumer"), due_at=Repayment.due_at)
on_time_streak = _payments.on_time_streak()
late_payments = _payments.late_payments("90d", "365d")
days_since_late = _payments.days_since_late()
mean_days_late = _payments.mean_days_late("90d")
worst_days_late = _payments.worst_days_late("365d")
_failures = FailedPayments(PaymentFailed.by("consumer"))
failed_payments = _failures.failures("30d", "90d", "365d")
failed_of_due = _failures.failures_to_tries(InstalmentDue.by("consumer"), "365d")
days_since_failure = _failures.days_since_failure()
no_funds = FailedPayments(PaymentFailed.by("consumer").where(PaymentFailed.cause == "insufficient_funds")).failures(
    "90d", description="Payments that failed for lack of funds"
)

# ---- how fast credit is asked for and taken -------------------------------------------------------------------------

_applications = Applications(LoanApplication.by("consumer"), merchant="merchant")
applications = _applications.count("1d", "7d", "30d")
fading_applications = _applications.fading("7d")
application_merchants = _applications.merchants("30d")
same_category = _applications.share_alike("category", "365d")
_borrowing = Borrowing(LoanOpened.by("consumer"), "amount")
loans = _borrowing.loans("90d", "365d")
amount_taken = _borrowing.amount_taken("30d", "90d")
days_since_loan = _borrowing.days_since_loan()
amount_to_usual = _borrowing.amount_to_usual(request("amount"))
amount_to_largest = _borrowing.amount_to_largest(request("amount"))

# ---- shopping and the app -------------------------------------------------------------------------------------------

_purchases, _visits = Purchase.by("consumer"), AppVisit.by("consumer")
spent = _purchases.sum("amount", "30d", reason="SPENDING", description="Spent on purchases paid at once")
purchases = _purchases.count("7d", "30d", unit="purchases", reason="SPENDING", description="Purchases paid at once")
visits = _visits.count("1d", "30d", unit="screens", reason="APP_USE", description="Screens looked at in the app")
limit_visits = _visits.where(AppVisit.screen == "limit").count(
    "7d", "30d", unit="screens", reason="APP_USE", description="Times the credit limit was looked at"
)

# ---- the merchant and the basket ------------------------------------------------------------------------------------

_merchant = Merchant(LoanOpened.by("merchant"), "amount")
merchant_loans = _merchant.loans("90d")
merchant_growth = _merchant.growth()
merchant_charge_offs = _merchant.charge_off_rate(ChargedOff.by("merchant"))
merchant_disputes = _merchant.dispute_rate(Dispute.by("merchant"))
merchant_failures = _merchant.failure_rate(PaymentFailed.by("merchant"), InstalmentDue.by("merchant"))
merchant_basket = _merchant.basket()
amount_to_basket = _merchant.amount_to_basket(request("amount"))
first_time_here = Relationship(LoanOpened.by(["consumer", "merchant"]), "amount").first_time(
    description="Whether it would be the consumer's first loan at this merchant"
)
