"""A lender's sequence with a small encoder and heads, and its score by the offline path, question by question."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tests.features.lake_world import REGISTRY, Purchase, Repayment, Sale, Transfer
from tests.sequences.examples import tensors

from obligor.events.log import EventLog
from obligor.features import Plan, compile_plan
from obligor.features import Sequence as Definition
from obligor.features.narrowing import sequence_alone
from obligor.features.requests import Requests
from obligor.features.sequence import Entering
from obligor.features.timelines import FactsSource
from obligor.sequences.asked import Everyone, parts
from obligor.sequences.fitting import TokenSettings, fit_tokenizer
from obligor.sequences.numbers import NumberKind
from obligor.sequences.score import SequenceScore
from obligor.sequences.slices import find_slices
from obligor.sequences.tokens import Tokenizer
from obligor.sequences.weights import Config, Kind, dump, parse, waves_of

__all__ = ["HISTORY", "Scored", "lender_plan", "naive_scores", "score_of", "tokenizer_of"]

HISTORY = "history"
NUMBERS: dict[str, NumberKind] = {"gap": "periodic", "repayment.amount": "periodic", "sale.price": "bins"}


def lender_plan(limit: int | None = None) -> Plan:
    """Return a plan with windows over other rows of the same timeline, and a sequence that leaves some rows out."""
    naira = Sale.by("consumer").where(Sale.price.currency_is("NGN"))
    events: list[Entering] = [Repayment, naira, Transfer.by("sender"), Purchase]
    features = {
        "received": Transfer.by("receiver").count("9d"),
        "asked": Purchase.by("consumer").count("9d"),
        "sold": Sale.by("merchant").count("9d"),
    }
    return compile_plan(
        features, REGISTRY, Purchase, sequences={HISTORY: Definition.by("consumer", events, limit=limit)}
    )


def tokenizer_of(plan: Plan, log: EventLog) -> Tokenizer:
    """Fit a tokenizer on a log, of whose numbers some are periodic: what comes later it may not know."""
    known = log.facts("repayment", columns=[]).rows["known"].to_numpy()
    at = Everyone(int(known.max()), log.cut())
    return fit_tokenizer(plan, HISTORY, log, at, TokenSettings(intervals=4, count_min=2, numbers=NUMBERS))


def score_of(tokenizer: Tokenizer, kind: Kind, seed: int = 0, *, tail: int = 12, heads: int = 2) -> SequenceScore:
    """Return a score with random weights; `seed` is the encoder's."""
    more = {"gru": {}, "linear_attention": {"heads": 2}, "transformer": {"heads": 2, "layers": 1, "tail": tail}}[kind]
    waves = waves_of(tokenizer.periodic, 3)
    config = Config(kind=kind, width=6, hidden=8, sizes=tokenizer.sizes, waves=waves, **more)  # type: ignore[arg-type]
    names = [f"fold_{i}" for i in range(heads)]
    content = dump(config, tensors(config, seed, dict.fromkeys(names, 1)))
    weights = parse(content, hashlib.sha256(content).hexdigest())
    return SequenceScore("history_score", HISTORY, tokenizer, weights, tuple(names), "HISTORY")


class Scored(NamedTuple):
    """A request's tokens, the application's last, and its score."""

    codes: NDArray[np.int32]  # (n + 1, F)
    parts: NDArray[np.float32]
    time: NDArray[np.int64]
    score: float


def naive_scores(score: SequenceScore, plan: Plan, source: FactsSource, requests: Requests) -> list[Scored]:
    """Return what each request sees in the timelines at its cut, encoded as a whole."""
    alone = sequence_alone(plan, HISTORY)
    encoder = score.tokenizer.encoder(alone, HISTORY)
    (part,) = parts(plan, HISTORY, source, requests)
    asked = part()
    rows, limit = asked.timeline.rows, alone.sequences[0].limit
    slices = find_slices(rows, asked.entity, asked.as_of, asked.self_root, asked.cuts, asked.last, limit)
    assert asked.fields is not None
    own = encoder.application(asked.fields, asked.as_of, slices.last)
    found = []
    for i, as_of in enumerate(asked.as_of.tolist()):
        pieces = range(slices.first[i], slices.first[i + 1])
        places = [place for p in pieces for place in range(slices.start[p], slices.end[p])]
        before = [slices.previous[pieces[0]], *(rows.event_time[place] for place in places[:-1])] if places else []
        at = np.array(places, np.int64)
        tokens = encoder.rows(rows.event_time, rows.mask, rows.values, np.array(before, np.int64), at)
        codes = np.concatenate([tokens.codes, own.codes[i : i + 1]])
        shares = np.concatenate([tokens.parts, own.parts[i : i + 1]])
        time = np.append(rows.event_time[at], as_of)
        begin, end = np.array([0]), np.array([len(time)])
        readout = score.encoder.encode_slices(codes, shares, time, begin, end, time[-1:])[0]
        found.append(Scored(codes, shares, time, score.of(readout)))
    return found
