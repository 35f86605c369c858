"""What a stream's inlet tells Prometheus, in the registry of the service that it feeds."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

__all__ = ["InletMetrics"]


class InletMetrics:
    """Lag by partition, messages by what became of them, batches, dead letters, rebalances, and whether it stands."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lag = Gauge(
            "obligor_stream_lag_messages",
            "Messages at the broker that the log has not taken",
            ["topic", "partition"],
            registry=registry,
        )
        self._messages = Counter(
            "obligor_stream_messages_total", "Messages read, by what became of them", ["status"], registry=registry
        )
        self._batches = Counter(
            "obligor_stream_batches_total", "Batches committed with their offsets", registry=registry
        )
        self._letters = Counter("obligor_stream_dead_letters_total", "Messages put aside", ["topic"], registry=registry)
        self._rebalances = Counter(
            "obligor_stream_rebalances_total", "Partitions given and taken by the group", ["kind"], registry=registry
        )
        self._restarts = Counter(
            "obligor_stream_restarts_total", "Times that reading began again from the log's offsets", registry=registry
        )
        self._published = Counter("obligor_stream_published_total", "Decisions published", ["topic"], registry=registry)
        self._halted = Gauge(
            "obligor_stream_halted",
            "1 once reading or publishing has stopped and needs a person",
            ["part"],
            registry=registry,
        )
        self._paused = Gauge(
            "obligor_stream_paused", "1 while the broker is not read, because the writer is busy", registry=registry
        )
        self._shown: set[tuple[str, str]] = set()
        for part in ("inlet", "outbox"):  # a series that is not there raises no alarm
            self._halted.labels(part).set(0)

    def lag(self, topic: str, partition: int, messages: int) -> None:
        """Note how many messages of a partition the log has not taken."""
        self._shown.add((topic, str(partition)))
        self._lag.labels(topic, str(partition)).set(messages)

    def forget(self, topic: str, partition: int) -> None:
        """Show no lag of a partition that somebody else reads now."""
        if (topic, str(partition)) in self._shown:
            self._shown.discard((topic, str(partition)))
            self._lag.remove(topic, str(partition))

    def messages(self, status: str, count: int) -> None:
        """Count messages: `passed` once their offset is durable, `dead` when put aside; events count like HTTP's."""
        if count:
            self._messages.labels(status).inc(count)

    def batch(self) -> None:
        """Count a batch that was committed with its offsets."""
        self._batches.inc()

    def letters(self, topic: str, count: int) -> None:
        """Count messages of a topic that were put aside."""
        self._letters.labels(topic).inc(count)

    def rebalance(self, kind: str, partitions: int) -> None:
        """Count partitions that the group gave (`assigned`) or took (`revoked`)."""
        self._rebalances.labels(kind).inc(partitions)

    def restart(self) -> None:
        """Count that reading began again from the log's offsets."""
        self._restarts.inc()

    def published(self, topic: str, count: int) -> None:
        """Count decisions that the broker has acknowledged."""
        self._published.labels(topic).inc(count)

    def halted(self, part: str) -> None:
        """Note that the `inlet` or the `outbox` has stopped for good."""
        self._halted.labels(part).set(1)

    def paused(self, paused: bool) -> None:
        """Note whether the broker is read."""
        self._paused.set(paused)
