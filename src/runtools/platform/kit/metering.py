"""Numbers for Prometheus: families of samples as values, so that they can cross from part to part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample as WireSample

from runtools.platform.core.ports.metrics import Family, Sample

# From a command of a few milliseconds to a cold boot under emulation.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


def families(registry: CollectorRegistry) -> list[Family]:
    """What a registry has counted so far."""
    return [
        Family(
            name=metric.name,
            kind=metric.type,
            help=metric.documentation,
            samples=[
                Sample(name=one.name, labels=dict(one.labels), value=one.value)
                for one in metric.samples
                if not one.name.endswith("_created")
            ],
        )
        for metric in registry.collect()
    ]


def labelled(found: Iterable[Family], **labels: str) -> list[Family]:
    """The same with labels more."""
    return [
        one.model_copy(
            update={
                "samples": [
                    sample.model_copy(update={"labels": {**labels, **sample.labels}})
                    for sample in one.samples
                ]
            }
        )
        for one in found
    ]


def gauge(name: str, text: str, *values: tuple[Mapping[str, str], float]) -> Family:
    """A family of numbers that are as they are now, with their labels."""
    samples = [Sample(name=name, labels=dict(labels), value=value) for labels, value in values]
    return Family(name=name, kind="gauge", help=text, samples=samples)


def exposition(found: Iterable[Family], accept: str) -> tuple[bytes, str]:
    """Families as text, with its media type; those of one name are one family."""
    encode, media_type = choose_encoder(accept)
    return encode(_Told(_merged(found))), media_type


class _Told:
    """A registry to the encoder: it asks for nothing but this."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def _merged(found: Iterable[Family]) -> list[Metric]:
    metrics: dict[str, Metric] = {}
    for family in found:
        metric = metrics.setdefault(family.name, Metric(family.name, family.help, family.kind))
        metric.samples += [WireSample(one.name, one.labels, one.value) for one in family.samples]
    return list(metrics.values())
