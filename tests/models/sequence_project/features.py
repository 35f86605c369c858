"""What is looked at: windows see how many transfers there were, and how much, not in which order."""

from __future__ import annotations

from obligor.features import Sequence, feature, request

from .events import Transfer

_transfers = Transfer.by("consumer")
borrowed = _transfers.where(Transfer.way == "borrowed").sum("amount", "20d", reason="TRANSFERS")
moved = _transfers.count("20d", reason="TRANSFERS")
amount = feature(request("amount"), reason="AMOUNT")
history = Sequence.by("consumer", [Transfer])
