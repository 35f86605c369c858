"""How it is scored: windows and the sequence's score, and what else the sequence foretells."""

from __future__ import annotations

from obligor.models import Model
from obligor.sequences import Hazard, Loss, SequenceHead, SequenceModel

encoder = SequenceModel(
    sequence="history", hidden=8, width=8, epochs=1, steps_min=0, slice_min=4, slice_max=12, tokens_max=2000
)
model = Model(
    cutoff="2026-05-15",
    seed=3,
    search=1,
    rounds_max=30,
    learning_rate=0.2,
    rolls=2,
    bootstrap=20,
    sequence=SequenceHead(
        sequence="history",
        reason="HISTORY",
        groups={"BORROWED": ("Transfer.way=borrowed",)},
        folds=3,
        units=8,
        steps=100,
        rate=5e-3,
        heads=("first_payment", Loss(), Hazard(months=3)),
    ),
)
