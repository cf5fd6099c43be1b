"""What a cycle found, for Prometheus: a file for node_exporter's textfile collector, or /metrics.

Labels are names of watches, collections, models and checks, never a record's values. What was not
looked at has no sample, so a store that does not answer never looks like one of 0 records.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reembed.commands.watch.findings import CHECKS
from reembed.commands.watch.result import WatchResult
from reembed.errors import PreflightError
from reembed.manifest.adapters import missing_extra
from reembed.run.disk import write_output

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

EXTRA = "metrics"
EVERYBODY = 0o644
"""node_exporter is another user; there are names and numbers in the file, and nothing else."""

HELP = {
    "watch_last_run_timestamp_seconds": "When the last cycle began.",
    "watch_duration_seconds": "How long the last cycle took.",
    "store_up": "Whether the store answered.",
    "collection_records": "Records of a live collection.",
    "collection_records_week_max": "The most records of the last week, in good cycles.",
    "collection_dimensions": "Dimensions of its vectors.",
    "collection_values": "Values of the key that records are counted by.",
    "canaries_asked": "Known records that were looked for.",
    "canaries_lost": "Known records that are there and did not find themselves.",
    "canaries_gone": "Known records that are no more there.",
    "canary_latency_seconds": "Median time of a search with a known record's vector.",
    "model_up": "Whether a model answered.",
    "model_drifted": "Whether a model is another one than it was.",
    "model_probe_cosine_min": "The least cosine of a probe text's vector with what it was.",
    "backup_last_good_timestamp_seconds": "When the last good backup of a collection was begun.",
    "backup_last_drill_timestamp_seconds": "When a backup of it was last drilled with success.",
    "run_failed": "Whether the newest run needs somebody.",
    "run_last_event_timestamp_seconds": "When something was last done on the newest run.",
    "alert": "Whether a check alerts.",
    "undelivered_messages": "Messages that somebody has not got yet.",
}
"""Every metric by its name without `reembed_`."""


def samples(result: WatchResult) -> Iterator[tuple[str, dict[str, str], float]]:
    """Every metric of a cycle: its name without `reembed_`, labels but for `watch`, value."""
    yield "watch_last_run_timestamp_seconds", {}, result.t
    yield "watch_duration_seconds", {}, result.seconds
    yield "store_up", {}, float(result.reached)
    for seen in result.collections:
        where = {"collection": seen.name}
        yield "collection_records", where, seen.count
        if seen.info.dimensions is not None:
            yield "collection_dimensions", where, seen.info.dimensions
        if seen.by:
            yield "collection_values", where, len(seen.by)
        canaries = seen.canaries
        yield "canaries_asked", where, canaries.asked
        yield "canaries_lost", where, len(canaries.lost)
        yield "canaries_gone", where, canaries.gone
        if canaries.latency is not None:
            yield "canary_latency_seconds", where, canaries.latency
    for name in result.gone:  # known to be gone, which is not the same as not looked at
        yield "collection_records", {"collection": name}, 0
    for name, most in result.good.items():
        yield "collection_records_week_max", {"collection": name}, most
    for answer in result.models:
        if answer.doubted:  # it is not the model of anything here
            continue
        model = {"model": answer.model, "role": answer.role}
        yield "model_up", model, float(answer.answers)
        if answer.answers:
            yield "model_drifted", model, float(answer.drifted)
        if answer.cosine is not None:
            yield "model_probe_cosine_min", model, answer.cosine
    for one in result.backups:
        where = {"collection": one.collection}
        if one.good is not None:
            yield "backup_last_good_timestamp_seconds", where, one.good
        if one.drilled is not None:
            yield "backup_last_drill_timestamp_seconds", where, one.drilled
    if result.run is not None:
        yield "run_failed", {}, float(result.run.failed)
        yield "run_last_event_timestamp_seconds", {}, result.run.t
    alerts = {finding.check for finding in result.alerts}
    if result.undelivered:  # before they are sent, too: a file is written before and after it
        alerts.add("notify")
    for check in CHECKS:
        yield "alert", {"check": check}, float(check in alerts)
    yield "undelivered_messages", {}, result.undelivered


def families(result: WatchResult) -> list[GaugeMetricFamily]:
    """The metrics as prometheus_client has them."""
    from prometheus_client.core import GaugeMetricFamily

    found: dict[str, GaugeMetricFamily] = {}
    for name, labels, value in samples(result):
        names = ["watch", *labels]
        family = found.get(name)
        if family is None:
            family = found[name] = GaugeMetricFamily(f"reembed_{name}", HELP[name], labels=names)
        family.add_metric([result.name, *labels.values()], value)
    return [found[name] for name in HELP if name in found]


class Collector:
    """Gives Prometheus what the last cycle found."""

    result: WatchResult | None = None

    def collect(self) -> list[GaugeMetricFamily]:
        """See prometheus_client's `Collector`."""
        return families(self.result) if self.result else []


def _registry(collector: Collector) -> Any:
    try:
        from prometheus_client import CollectorRegistry
    except ModuleNotFoundError as error:
        raise missing_extra("metrics need", error, EXTRA) from error
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


def text(result: WatchResult) -> str:
    """The metrics in Prometheus's text format. Raises MissingExtraError."""
    collector = Collector()
    collector.result = result
    registry = _registry(collector)
    from prometheus_client import generate_latest

    return generate_latest(registry).decode()


def write(path: Path, result: WatchResult) -> None:
    """Write the file whole or not at all. Raises PreflightError, MissingExtraError."""
    write_output(path, text(result), EVERYBODY)


def serve(listen: str, collector: Collector) -> None:
    """Serve /metrics until this process ends.

    Args:
        listen: `HOST:PORT`.

    Raises:
        PreflightError: the address cannot be listened at.
    """
    registry = _registry(collector)
    from prometheus_client import start_http_server

    host, _, port = listen.rpartition(":")
    try:
        start_http_server(int(port), host.strip("[]") or "127.0.0.1", registry)
    except (OSError, OverflowError, ValueError) as error:
        raise PreflightError(
            f"--listen {listen}: cannot be listened at: {error}",
            "Give --listen a HOST:PORT that is free.",
        ) from None
