"""Numbers of the server for Prometheus."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tooncrafter_jax.serving.engine import Engine

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """Counts what an engine does."""

    def __init__(self, engine: Engine) -> None:
        registry = self._registry = CollectorRegistry()
        database = engine.storage.database
        jobs = Gauge("tooncrafter_jobs", "Jobs that wait or run.", ["state"], registry=registry)
        jobs.labels("waiting").set_function(lambda: database.count("waiting"))
        jobs.labels("running").set_function(lambda: database.count("running"))
        free = Gauge("tooncrafter_free_bytes", "Room on the disk beyond what is left alone.", registry=registry)
        free.set_function(lambda: engine.storage.free)
        ended = Histogram(
            "tooncrafter_job_seconds", "From begin to end of a job.", ["state"], buckets=SECONDS, registry=registry
        )
        batches = Histogram(
            "tooncrafter_batch_seconds", "Of drawing a batch.", ["clips"], buckets=SECONDS, registry=registry
        )
        clips = Counter("tooncrafter_clips", "Clips that were drawn.", registry=registry)

        def on_batch(size: int, seconds: float) -> None:
            batches.labels(str(size)).observe(seconds)
            clips.inc(size)

        engine.on_end = lambda state, seconds: ended.labels(state).observe(seconds)
        engine.devices.on_batch = on_batch
        self._requests = Counter("tooncrafter_requests", "Answers by their status.", ["status"], registry=registry)

    def answered(self, status: int) -> None:
        """Counts an answer."""
        self._requests.labels(str(status)).inc()

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)
