"""What an inlet tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from obligor.decisions.inlet_metrics import InletMetrics


def test_counts_and_gauges() -> None:
    registry = CollectorRegistry()
    metrics = InletMetrics(registry)
    metrics.lag("payments", 3, 17)
    metrics.lag("payments", 4, 1)
    metrics.forget("payments", 4)
    metrics.forget("payments", 9)
    metrics.messages("passed", 5)
    metrics.messages("dead", 0)
    metrics.batch()
    metrics.letters("payments", 2)
    metrics.rebalance("assigned", 3)
    metrics.restart()
    metrics.published("decisions", 4)
    metrics.halted("inlet")
    metrics.paused(True)
    text = generate_latest(registry).decode()
    for line in (
        'obligor_stream_lag_messages{partition="3",topic="payments"} 17.0',
        'obligor_stream_messages_total{status="passed"} 5.0',
        "obligor_stream_batches_total 1.0",
        'obligor_stream_dead_letters_total{topic="payments"} 2.0',
        'obligor_stream_rebalances_total{kind="assigned"} 3.0',
        "obligor_stream_restarts_total 1.0",
        'obligor_stream_published_total{topic="decisions"} 4.0',
        'obligor_stream_halted{part="inlet"} 1.0',
        'obligor_stream_halted{part="outbox"} 0.0',
        "obligor_stream_paused 1.0",
    ):
        assert line in text
    assert 'partition="4"' not in text
    assert 'status="dead"' not in text
