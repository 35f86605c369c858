"""What the service tells Prometheus: rates, latencies by step, queues, and how far state and log are behind.

One object owns its registry, so that two services in one process (and tests) do not mix. Gauges that describe the
present are read when they are scraped, through the callables given to `watch`.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

__all__ = ["CONTENT_TYPE", "MOVE_RESULTS", "PARITY_OF", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PARITY_OF = ("state", "decisions")
MOVE_RESULTS = ("moved", "failed")
_BUCKETS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

_WATCHED = {
    "obligor_queue_items": "Requests that wait for the writer",
    "obligor_queue_events": "Events that wait for the writer",
    "obligor_log_sequence": "Sequence of the last event in the log",
    "obligor_state_lag_events": "Events in the log that online state has not applied",
    "obligor_newest_event_age_seconds": "Age of the newest event's known_time",
    "obligor_ready": "1 when decisions are served",
    "obligor_state_gone": "1 while decisions are taken without online state, because its store is slow, gone or behind",
    "obligor_cached_applicants": "Applicants who could be decided on without online state, on the rung `cached`",
    "obligor_state_suspect": "1 while decisions do not rest on online state, because it differs from the log",
}


class Metrics:
    """All counters of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._events = self._counter("obligor_events_total", "Events received, by what became of them", "status")
        self._decisions = self._counter("obligor_decisions_total", "Decisions taken", "outcome", "rung")
        self._requests = self._counter("obligor_requests_total", "HTTP requests answered", "route", "status")
        self._failures = self._counter("obligor_failures_total", "Items undone and batches lost, by error", "error")
        self._steps = Histogram(
            "obligor_step_seconds", "Time by step", ["step"], buckets=_BUCKETS, registry=self.registry
        )
        self._latency = Histogram(
            "obligor_request_seconds", "Time to answer", ["route"], buckets=_BUCKETS, registry=self.registry
        )
        self._batch = Histogram(
            "obligor_batch_items",
            "Requests in one durable commit",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self.registry,
        )
        self._freshness = Histogram(
            "obligor_freshness_seconds",
            "Time from a request's acceptance until decisions see its events",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._checked = self._counter("obligor_parity_checked_total", "Answers computed again offline", "of")
        self._differences = self._counter("obligor_parity_differences_total", "Numbers that were not the same", "of")
        for one in PARITY_OF:  # a series that is not there raises no alarm
            self._checked.labels(one)
            self._differences.labels(one)
        self._parity_run = Gauge(
            "obligor_parity_last_run_timestamp_seconds", "When parity was last checked", registry=self.registry
        )

        self._deciding = Info("obligor_bundle", "The bundle that decides and its plan", registry=self.registry)
        self._moves = self._counter("obligor_moves_total", "Moves to another bundle, by what became of them", "result")
        for result in MOVE_RESULTS:
            self._moves.labels(result)
        self._move_seconds = Gauge(
            "obligor_move_seconds", "Time that the last move to another bundle took", registry=self.registry
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """Read the gauge `name` by calling `read` at each scrape."""
        Gauge(name, _WATCHED[name], registry=self.registry).set_function(read)

    def events(self, status: str, count: int) -> None:
        """Count events by status: accepted, duplicate, conflict, rejected, invalid."""
        if count:
            self._events.labels(status).inc(count)

    def decision(self, outcome: str, rung: str) -> None:
        """Count a decision that was taken and is durable."""
        self._decisions.labels(outcome, rung).inc()

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request; `route` is the pattern, never the path, so that labels stay few."""
        self._requests.labels(route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def step(self, step: str, seconds: float) -> None:
        """Add the time that one step of the writer took."""
        self._steps.labels(step).observe(seconds)

    def batch(self, items: int) -> None:
        """Add a durable commit of `items` requests."""
        self._batch.observe(items)

    def failure(self, error: str) -> None:
        """Count something undone, by the error's class."""
        self._failures.labels(error).inc()

    def freshness(self, seconds: float) -> None:
        """Add the time from a request's acceptance until decisions saw its events."""
        self._freshness.observe(seconds)

    def parity(self, of: str, checked: int, differences: int) -> None:
        """Count what was compared, `of` one of PARITY_OF, and the numbers that differ."""
        self._checked.labels(of).inc(checked)
        self._differences.labels(of).inc(differences)

    def parity_run(self, at_us: int) -> None:
        """Note that a round of comparisons ended."""
        self._parity_run.set(at_us / 1e6)

    def deciding(self, bundle: str, plan: str) -> None:
        """Say by hash which bundle decides, and its plan."""
        self._deciding.info({"bundle": bundle, "plan": plan})

    def move(self, result: str, seconds: float | None = None) -> None:
        """Count a move, `result` one of MOVE_RESULTS, and how long one that succeeded took."""
        self._moves.labels(result).inc()
        if seconds is not None:
            self._move_seconds.set(seconds)

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)
