"""Further heads: learnt from what was known at the cut-off, calibrated out of fold, beside a score that stays."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models import sequence_lender as lender
from tests.models.sequence_lender import DAY, FURTHER, FURTHER_MODEL, MODEL, OUTCOME, OUTCOMES, World, trained

from obligor.errors import BadInput, DefinitionError, IntegrityError, NotFound
from obligor.models.bundle import PARTS, SEQUENCE_PARTS, Bundle
from obligor.models.further import HEADS, FurtherHeads
from obligor.models.report import render_report
from obligor.models.splits import applicants, folds
from obligor.models.targets import Target, check_further, targets_of
from obligor.models.training import cutoff_us, evaluate_bundle, foretell, split_of
from obligor.parts import read_parts, write_parts
from obligor.sequences import Hazard, Loss, SequenceHead
from obligor.sequences.lived import DEFAULTED, OPEN, PREPAID, Lived
from obligor.sequences.scoring import readouts


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose bundle has further heads, each with a bottom of its own."""
    made = lender.fused_world(tmp_path_factory.mktemp("further"), FURTHER_MODEL)
    yield made
    made.log.close()


@pytest.fixture(scope="module")
def targets(world: World) -> tuple[Target, ...]:
    return lender.further_targets(world.log, world.data)


def _parts(bundle: Bundle, *more: str) -> dict[str, bytes]:
    return read_parts(bundle.path, (*PARTS, *SEQUENCE_PARTS, *more), 1 << 24)


@dataclasses.dataclass
class _Loan:
    """What the records say of an application's loan."""

    at: int
    amount: int
    paid: list[tuple[int, int]]
    ended: tuple[int, str]

    def life(self, whole: int) -> tuple[int, int]:
        """Months lived and how the last one ended, of which `whole` are over."""
        back = 0
        repaid = None
        for moment, amount in sorted(self.paid):
            back += amount
            repaid = moment if back >= self.amount and repaid is None else repaid
        moments = [
            (moment, end) for moment, end in ((self._default, DEFAULTED), (repaid, PREPAID)) if moment is not None
        ]
        end = min(moments, default=(2**62, OPEN))
        month = (end[0] - self.at) // (30 * DAY) + 1
        return (int(month), end[1]) if month <= whole else (whole, OPEN)

    @property
    def _default(self) -> int | None:
        return self.ended[0] if self.ended[1] == "bad" else None

    def lost(self) -> float:
        """Share that is lost within 30 days."""
        if self._default is None or self._default >= self.at + 30 * DAY:
            return 0.0
        return 1 - sum(amount for moment, amount in self.paid if moment < self.at + 30 * DAY) / self.amount

    def late(self) -> float:
        """Whether no payment came within 12 days, 7 of which are after it fell due; all first payments come on time."""
        return float(not [moment for moment, _ in self.paid if moment < self.at + 12 * DAY])


def _loans() -> dict[str, _Loan]:
    found: dict[str, _Loan] = {}
    for one in lender.history():
        moment = int(np.datetime64(one["event_time"].removesuffix("Z"), "us").astype(np.int64))
        if one["type"] == "asking":
            found[one["event_id"]] = _Loan(moment, one["amount"], [], (0, ""))
        elif one["type"] == "paid":
            found[one["loan"].replace("l-", "a-")].paid.append((moment, one["amount"]))
        elif one["type"] == "ended":
            found[one["loan"].replace("l-", "a-")].ended = (moment, one["how"])
    return found


def test_targets_are_what_the_records_say_as_known_then_and_now(world: World, targets: tuple[Target, ...]) -> None:
    cutoff, end, loans = cutoff_us(world.data.plan, MODEL), world.log.last_known_time, _loans()
    first, loss, hazard = targets
    assert [(one.name, one.kind, one.months) for one in targets] == [
        ("first_payment", "binary", 0), ("loss", "share", 0), ("hazard", "hazard", 3)
    ]  # fmt: skip
    for moment, lives, shares, firsts in (
        (cutoff, hazard.known, loss.known, first.known), (end, hazard.later, loss.later, first.later)
    ):  # fmt: skip
        assert isinstance(lives, Lived)
        assert not isinstance(shares, Lived)
        assert not isinstance(firsts, Lived)
        for row, name in enumerate(world.data.application_id):
            loan = loans[name]
            whole = min(3, max(0, (moment - loan.at) // (30 * DAY)))
            assert (lives.months[row], lives.ended[row]) == (loan.life(whole) if whole else (0, OPEN)), name
            expected = loan.lost() if loan.at + 30 * DAY <= moment else np.nan
            assert shares[row] == pytest.approx(expected, abs=1e-12, nan_ok=True)
            expected = loan.late() if loan.at + 12 * DAY <= moment else np.nan
            assert np.array_equal(firsts[row], expected, equal_nan=True)
    assert isinstance(hazard.known, Lived)
    # A loan may have taught a month or two and not the third: that is what immature loans are worth.
    young = hazard.learnable & (world.data.as_of + 90 * DAY > cutoff)
    assert young.sum() > 100
    assert (first.learnable & ~split_of(world.data, MODEL).train).sum() > 100


def test_what_comes_after_the_cutoff_teaches_nothing(world: World, targets: tuple[Target, ...]) -> None:
    """As known then: the same whatever is known now."""
    cutoff = cutoff_us(world.data.plan, MODEL)
    for one in targets:
        assert not one.learnable[world.data.as_of >= cutoff].any()
    given: dict[str, Any] = {"cut": world.log.cut(), "cutoff_us": cutoff}
    earlier = targets_of(FURTHER, OUTCOME, OUTCOMES, world.log, world.data, seen_at=cutoff, **given)
    assert [one.sha256 for one in earlier] == [one.sha256 for one in targets]
    later = targets_of(
        FURTHER, OUTCOME, OUTCOMES, world.log, world.data, seen_at=world.log.last_known_time,
        **given | {"cutoff_us": cutoff + 10 * DAY},
    )  # fmt: skip
    assert all(one.sha256 != other.sha256 for one, other in zip(later, targets, strict=True)), "the control"


def test_heads_with_bottoms_of_their_own_leave_the_score_as_it_is(world: World, tmp_path: Path) -> None:
    plain = trained(world, tmp_path)
    with_heads, without = _parts(world.bundle, HEADS), _parts(plain)
    same = {name for name, part in without.items() if with_heads[name] == part}
    assert set(without) - same == {"encoder.safetensors", "training.json", "evaluation.json"}
    assert world.bundle.sequence is not None
    assert plain.sequence is not None
    mine, others = plain.sequence.weights.tensors, world.bundle.sequence.weights.tensors
    assert all(np.array_equal(others[name], tensor) for name, tensor in mine.items())
    assert {name.split(".")[1] for name in set(others) - set(mine)} == {
        f"{head}_fold_{fold}" for head in ("first_payment", "loss", "hazard") for fold in range(3)
    }
    assert plain.heads is None
    record = json.loads(without["training.json"])
    assert "heads" not in record["model"]["sequence"]
    assert "further" not in record["sequence"]
    assert "heads" not in plain.evaluation


@pytest.mark.parametrize("bottom", ["shared", "experts"])
def test_heads_may_share_a_bottom_with_the_outcomes(world: World, bottom: Any, tmp_path: Path) -> None:
    sharing = dataclasses.replace(FURTHER, bottom=bottom, experts=2, steps=60)
    bundle = trained(world, tmp_path, dataclasses.replace(FURTHER_MODEL, sequence=sharing))
    assert bundle.sequence is not None
    tensors = bundle.sequence.weights.tensors
    assert np.array_equal(tensors["head.fold_1.hidden"], tensors["head.hazard_fold_1.hidden"])
    assert not np.array_equal(tensors["head.fold_1.hidden"], tensors["head.fold_2.hidden"])
    assert ("head.fold_0.gate" in tensors) == (bottom == "experts")
    found = bundle.evaluation
    assert found["fusion"]["models"]["sequence"]["metrics"]["auc"]["value"] > 0.7
    assert found["heads"]["first_payment"]["metrics"]["auc"]["value"] > 0.6
    targets = lender.further_targets(world.log, world.data)
    again = evaluate_bundle(bundle, world.data, reading=lender.reading(world.log), targets=targets)
    assert again == found
    assert dict(bundle.training["model"]["sequence"])["bottom"] == bottom


def test_each_is_calibrated_and_judged_out_of_time(world: World, targets: tuple[Target, ...]) -> None:
    found, cutoff = world.bundle.evaluation["heads"], cutoff_us(world.data.plan, MODEL)
    later = world.data.as_of >= cutoff
    first, loss, hazard = (found[name] for name in ("first_payment", "loss", "hazard"))
    assert first["rows"] == int((later & ~np.isnan(targets[0].later)).sum())  # type: ignore[arg-type]
    for point in (first["metrics"]["observed_to_expected"], loss["metrics"]["observed_to_expected"]):
        assert point["low"] <= point["value"] <= point["high"]
        assert 0.75 < point["value"] < 1.25
    assert first["metrics"]["auc"]["low"] > 0.55
    assert loss["metrics"]["explained"]["low"] > 0.05
    lived = targets[2].later
    assert isinstance(lived, Lived)
    for month in hazard["months"]:
        number = month["month"]
        assert month["at_risk"] == int((later & (lived.months >= number)).sum())
        for end, kind in (("default", DEFAULTED), ("repaid", PREPAID)):
            ended = later & (lived.months == number) & (lived.ended == kind)
            assert month[end]["observed"] == int(ended.sum())
            spread = 3 * np.sqrt(month[end]["expected"]) + 3
            assert abs(month[end]["expected"] - month[end]["observed"]) < spread
        old = later & (world.data.as_of + 30 * DAY * number <= world.log.last_known_time)
        assert month["by_then"]["rows"] == int(old.sum())
        bad = old & (lived.months <= number) & (lived.ended == DEFAULTED)
        assert month["by_then"]["observed"] == int(bad.sum())
    assert hazard["months"][0]["by_then"]["auc"]["low"] > 0.6
    assert hazard["immature"] == int((later & (world.data.as_of + 90 * DAY > world.log.last_known_time)).sum())
    again = evaluate_bundle(world.bundle, world.data, reading=lender.reading(world.log), targets=targets)
    assert again == world.bundle.evaluation


def test_what_a_bundle_foretells_is_what_its_heads_say(world: World) -> None:
    bundle, data = world.bundle, world.data
    table = foretell(bundle, data, lender.reading(world.log), [45, 30])
    assert table.columns == [
        "application_id", "as_of", "status", "pd", "first_payment", "loss", "pd_30d", "pd_45d", "pd_60d", "pd_90d"
    ]  # fmt: skip
    score, heads = bundle.sequence, bundle.heads
    assert score is not None
    assert heads is not None
    with readouts(score, data.plan, world.log, data.requests(world.log.cut())) as found:
        read = found.copy()
    split = split_of(data, MODEL)
    fold = folds(data, split.train, FURTHER.folds, MODEL.seed)
    for row in (0, 11, len(data) - 1):
        for name in ("first_payment", "loss"):
            each = [score.encoder.heads(read[row])[f"{name}_fold_{number}"][0] for number in range(3)]
            z = np.mean(each) if fold[row] < 0 else each[fold[row]]
            line = heads[name].calibration[0]
            assert table[name][row] == pytest.approx(1 / (1 + np.exp(-(line.intercept + line.slope * z))), abs=1e-12)
        told = [score.encoder.heads(read[row])[f"hazard_fold_{number}"] for number in range(3)]
        z = (np.mean(told, axis=0) if fold[row] < 0 else told[fold[row]]).reshape(3, 2)
        owed, bad = 1.0, 0.0
        for month in range(3):
            odds = [
                np.exp(one.intercept + one.slope * z[month, k]) for k, one in enumerate(heads["hazard"].calibration)
            ]
            bad += owed * odds[0] / (1 + sum(odds))
            owed /= 1 + sum(odds)
            assert table[f"pd_{30 * (month + 1)}d"][row] == pytest.approx(bad, abs=1e-12)
    assert (table["pd_30d"] < table["pd_45d"]).all()
    assert (table["pd_45d"] < table["pd_60d"]).all()
    with pytest.raises(BadInput, match="expected 0 to 90 days, got 91"):
        foretell(bundle, data, lender.reading(world.log), [91])
    with pytest.raises(NotFound, match="no head 'hazzard'"):
        heads["hazzard"]
    of_old = copy.copy(bundle)
    of_old.heads = FurtherHeads(tuple(dataclasses.replace(one, name=f"pd_{one.months}d") for one in heads.heads))
    with pytest.raises(BadInput, match=r"heads have the names of other columns, \['pd_0d', 'pd_0d', 'pd_3d'\]"):
        foretell(of_old, data, lender.reading(world.log))


def test_the_report_shows_each_head(world: World) -> None:
    bundle = world.bundle
    page = render_report(bundle.evaluation, training=bundle.training, outcome=bundle.outcome, bundle_hash=bundle.hash)
    assert "What else does the sequence foretell?" in page
    assert "first_payment: " in page
    assert "loss, as a share of what was lent" in page
    assert "Default by month, observed and expected" in page
    assert "Head hazard by fold: rows / steps" in page
    few = json.loads(json.dumps(bundle.evaluation))
    few["heads"]["first_payment"]["metrics"] = few["heads"]["loss"]["metrics"] = None
    for month in few["heads"]["hazard"]["months"]:
        month["by_then"] |= {"auc": None, "observed_to_expected": None}
        month["at_risk"], month["default"]["observed_to_expected"] = 0, None
    page = render_report(few, training=bundle.training, outcome=bundle.outcome, bundle_hash=bundle.hash)
    assert "Too few of a kind are known" in page


def test_heads_that_do_not_fit_the_weights_are_refused(world: World, tmp_path: Path) -> None:
    parts = _parts(world.bundle, HEADS)
    described = json.loads(parts[HEADS])
    for name, (key, value) in {
        "folds": ("folds", ["fold_9"] * 3),
        "few": ("folds", ["first_payment_fold_0"]),
        "calibrations": ("calibration", []),
        "kind": ("kind", "shape"),
        "outputs": ("folds", [f"hazard_fold_{fold}" for fold in range(3)]),
    }.items():
        wrong = json.loads(parts[HEADS])
        wrong["heads"][0][key] = value
        bundle = write_parts(tmp_path / name, parts | {HEADS: json.dumps(wrong).encode()})
        with pytest.raises(IntegrityError, match=r"heads\.json"):
            Bundle.load(bundle)
    lost = {name: part for name, part in parts.items() if name != "sequence.json"}
    with pytest.raises(IntegrityError, match=r"sequence\.json"):
        Bundle.load(write_parts(tmp_path / "lost", lost))
    assert described["heads"][0]["outcome"] == json.loads(json.dumps(OUTCOMES["first_payment"].describe()))


def test_an_applicant_has_one_fold_with_an_outcome_and_without(world: World, targets: tuple[Target, ...]) -> None:
    from obligor.models.fusing import _further_folds

    split = split_of(world.data, MODEL)
    fold = folds(world.data, split.train, FURTHER.folds, MODEL.seed)
    fold[np.array(applicants(world.data)) == "c-7"] = -1  # one who has no outcome, and is known of all the same
    more = _further_folds(world.data, fold, targets, FURTHER.folds, MODEL.seed)
    assert (more[fold >= 0] == fold[fold >= 0]).all()
    taught = np.logical_or.reduce([fold >= 0, *(one.learnable for one in targets)])
    assert ((more >= 0) == taught).all()
    by_person: dict[str, set[int]] = {}
    for who, one in zip(applicants(world.data), more.tolist(), strict=True):
        if one >= 0:
            by_person.setdefault(str(who), set()).add(one)
    assert all(len(one) == 1 for one in by_person.values())
    assert "c-7" in by_person


def test_declarations_that_outcomes_do_not_bear_out_are_refused_all_at_once() -> None:
    bare = dataclasses.replace(OUTCOME, repaid=None)
    head = SequenceHead(sequence="history", reason="R", heads=("first_paymnt", Loss(), Hazard(months=3)))
    with pytest.raises(DefinitionError) as found:
        check_further(head, bare, OUTCOMES)
    assert [str(one) for one in found.value.problems] == [
        "SequenceHead.heads[0]: outcomes.py has no further outcome 'first_paymnt'; did you mean 'first_payment'?",
        "SequenceHead.heads[1]: a loss needs Outcome(repaid=paid_in_full(lent=..., paid=...))",
        "SequenceHead.heads[2]: a hazard needs Outcome(repaid=...), such as paid_in_full(lent=..., paid=...)",
    ]
    check_further(FURTHER, OUTCOME, OUTCOMES)
    named = dict.fromkeys(("pd", "pd_30d", "status"), OUTCOMES["first_payment"])
    with pytest.raises(DefinitionError) as found:
        check_further(SequenceHead(sequence="history", reason="R", heads=tuple(named)), OUTCOME, named)
    assert [str(one) for one in found.value.problems] == [
        f"SequenceHead.heads[{place}]: {name!r} is another column of what a bundle foretells; "
        "give the outcome another name"
        for place, name in enumerate(named)
    ]


def test_too_little_to_learn_from_is_said(targets: tuple[Target, ...]) -> None:
    first, _, hazard = targets
    none = dataclasses.replace(first, known=np.zeros(50))
    with pytest.raises(
        BadInput, match=r"heads\.first_payment: expected at least 10 of each kind .* got 0 where it happened, 50"
    ):
        none.check()
    never = dataclasses.replace(hazard, known=Lived(np.full(50, 2), np.full(50, DEFAULTED)))
    with pytest.raises(BadInput, match="got 50 default, 0 repaid"):
        never.check()
    over = dataclasses.replace(hazard, months=1, known=Lived(np.ones(50, np.int64), 1 + np.arange(50) % 2))
    with pytest.raises(BadInput, match="got 25 default, 25 repaid, 0 months still owed"):
        over.check()
    beyond = dataclasses.replace(hazard, months=6)
    with pytest.raises(BadInput, match=r"10 loans at risk in month 6 .* got 0: .* or give Hazard\(months=3\)"):
        beyond.check()  # every month of which nothing is known would have a default in three
    first.check()
    hazard.check()
