"""The desk's bundle with a sequence's score: encoders and heads with random weights, trees fitted on made scores."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from tests.decisions.desk import (
    POLICY,
    LoanApplication,
    LoanOpened,
    Repayment,
    Sale,
    batch_of,
    desk_plan,
    open_log,
    repayment,
    sale,
    training_rows,
)
from tests.sequences.examples import tensors

from obligor.features import Sequence
from obligor.features.plan import Plan
from obligor.models import training
from obligor.models.bundle import Bundle
from obligor.models.fusing import Fused, Unaided
from obligor.models.model import Model
from obligor.sequences.asked import Everyone
from obligor.sequences.fitting import TokenSettings, fit_tokenizer
from obligor.sequences.head import SequenceHead, event_groups
from obligor.sequences.numbers import DEFAULT, Numbers
from obligor.sequences.score import SequenceScore
from obligor.sequences.tokens import Tokenizer
from obligor.sequences.weights import Config, Kind, dump, parse, waves_of

__all__ = ["HISTORY", "Scored", "sequenced_plan"]

HISTORY = "history"
HEAD = SequenceHead(
    HISTORY, "HISTORY", groups={"REPAID": ("Repayment",), "ASKED": ("LoanApplication",), "BOUGHT": ("Sale",)}
)
TEXTS = """
HISTORY = "The course of the account"
REPAID = "What was repaid and when"
ASKED = "Earlier applications"
BOUGHT = "What was bought and when"
"""


def sequenced_plan() -> Plan:
    """Return the desk's plan with all that a consumer does as a sequence."""
    return desk_plan({HISTORY: Sequence.by("consumer", [Repayment, LoanApplication, LoanOpened, Sale])})


class Scored:
    """Makes bundles of one tokenizer; `encoder` and `heads` are seeds."""

    def __init__(self, root: Path, numbers: Numbers = DEFAULT) -> None:
        self.root, self.plan = root, sequenced_plan()
        self.tokenizer = _tokenizer(self.plan, numbers)

    def bundle(
        self,
        kind: Kind = "gru",
        encoder: int = 0,
        heads: int = 0,
        policy: str = "",
        approve_below: float = 0.99,
        loud: float = 1.0,
    ) -> Bundle:
        """Train a bundle on made features and made scores; `policy` follows the desk's, of another cut-off.

        The heads say `loud` times as much of what they see.
        """
        more = {"gru": {}, "linear_attention": {"heads": 2}, "transformer": {"heads": 2, "layers": 1, "tail": 9}}[kind]
        waves = waves_of(self.tokenizer.periodic, 3)
        config = Config(kind=kind, width=6, hidden=8, sizes=self.tokenizer.sizes, waves=waves, **more)  # type: ignore[arg-type]
        names = ("fold_0", "fold_1")
        own, other = (tensors(config, seed, dict.fromkeys(names, 1)) for seed in (encoder, 100 + heads))
        for name in names:
            other[f"head.{name}.out"] *= np.float32(loud)
        content = dump(config, own | {name: one for name, one in other.items() if name.startswith("head.")})
        weights = parse(content, hashlib.sha256(content).hexdigest())
        groups = event_groups(HEAD, self.plan)
        score = SequenceScore("history_score", HISTORY, self.tokenizer, weights, names, "HISTORY", groups)
        data = training_rows(self.plan)
        values = np.random.default_rng(9).normal(size=len(data)) + data.bad
        made = data.with_score(score.spec, values)
        model = Model(cutoff="2027-01-01", search=1, rounds_max=20, bootstrap=2, threads=1)
        with pytest.MonkeyPatch.context() as patch:
            fused = Fused(score, made, content, {}, Unaided(names, values), (values,) * model.rolls)
            patch.setattr(training, "_fused", lambda *_: fused)
            text = POLICY.replace("[reasons.texts]\n", f"[reasons.texts]{TEXTS}") + policy
            text = text.replace("approve_below = 0.99", f"approve_below = {approve_below}")
            return training.train(data, model, policy=text.encode(), outcome={"format": 1}, root=self.root)


def _tokenizer(plan: Plan, numbers: Numbers) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        log = open_log(Path(folder) / "log")
        records = [repayment(i, f"c-{i % 4}", 500 + 97 * i) for i in range(30)] + [sale(i) for i in range(9)]
        with log.begin(1_767_225_600_000_000) as tx:
            tx.append(batch_of(log, *records))
            tx.commit()
        at = Everyone(log.last_known_time + 1, log.cut())
        found = fit_tokenizer(plan, HISTORY, log, at, TokenSettings(intervals=4, count_min=2, numbers=numbers))
        log.close()
    return found
