"""How we score: everything here was chosen on loans before July 2017, by the latest months' own labels."""

from __future__ import annotations

from obligor.models import Model

model = Model(
    cutoff="2017-07-01",  # midnight in Lagos; outcomes known by then train, July is the test
    seed=7,
    weights="365d",  # the lender changed fast: half the weight for a loan a year older
    search=1,  # a search gained nothing on any later month: the candidates do not differ by more than luck
    bags=10,  # one booster's luck with its draw is worth as much AUC as most features are
    segments=("source", "term_days"),
)
