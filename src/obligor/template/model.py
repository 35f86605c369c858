"""How we score, and how the score is judged."""

from __future__ import annotations

from obligor.models import Model

model = Model(
    cutoff="2025-06-01",  # trains on outcomes known by then, judged on applications after it
    seed=7,
    segments=("channel", "category"),
)
