"""Metrics of two services do not mix, and gauges are read when they are scraped."""

from __future__ import annotations

from obligor.decisions.metrics import Metrics


def test_counts_and_gauges() -> None:
    metrics, other = Metrics(), Metrics()
    lag = [3.0]
    metrics.watch("obligor_state_lag_events", lambda: lag[0])
    metrics.events("accepted", 5)
    metrics.events("conflict", 0)
    metrics.decision("approve", "full")
    metrics.request("/v1/events", 200, 0.003)
    metrics.step("commit", 0.002)
    metrics.batch(4)
    metrics.failure("ValueError")
    metrics.freshness(0.02)
    metrics.parity("state", 40, 2)
    metrics.parity_run(1_700_000_000_500_000)
    lag[0] = 7.0
    text = metrics.render().decode()
    for line in (
        'obligor_events_total{status="accepted"} 5.0',
        'obligor_decisions_total{outcome="approve",rung="full"} 1.0',
        'obligor_requests_total{route="/v1/events",status="200"} 1.0',
        'obligor_step_seconds_bucket{le="0.0025",step="commit"} 1.0',
        'obligor_failures_total{error="ValueError"} 1.0',
        'obligor_batch_items_bucket{le="4.0"} 1.0',
        "obligor_state_lag_events 7.0",
        'obligor_freshness_seconds_bucket{le="0.025"} 1.0',
        'obligor_parity_checked_total{of="state"} 40.0',
        'obligor_parity_differences_total{of="state"} 2.0',
        'obligor_parity_differences_total{of="decisions"} 0.0',
        "obligor_parity_last_run_timestamp_seconds 1.7000000005e+09",
    ):
        assert line in text
    assert 'status="conflict"' not in text
    assert 'status="accepted"' not in other.render().decode()
