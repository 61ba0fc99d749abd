"""OpenTelemetry's SDK with the exporters and batches that it has by itself."""

import logging
import os
import warnings

from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, ProcessResourceDetector
from opentelemetry.sdk.resources import get_aggregated_resources
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def exporters():
    """Exporters of spans, logs and metrics for the protocol of OTEL_EXPORTER_OTLP_PROTOCOL."""
    if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    else:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    return OTLPSpanExporter(), OTLPLogExporter(), OTLPMetricExporter()


class Telemetry:
    """Tracer, logger and the histograms of one service."""

    def __init__(self, service):
        resource = get_aggregated_resources([OTELResourceDetector(), ProcessResourceDetector()])
        spans, logs, points = exporters()
        tracers = TracerProvider(resource=resource)
        tracers.add_span_processor(BatchSpanProcessor(spans))
        trace.set_tracer_provider(tracers)
        records = LoggerProvider(resource=resource)
        records.add_log_record_processor(BatchLogRecordProcessor(logs))
        set_logger_provider(records)
        reader = PeriodicExportingMetricReader(points)
        metrics.set_meter_provider(MeterProvider(resource=resource, metric_readers=[reader]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            handler = LoggingHandler(level=logging.INFO, logger_provider=records)
        self.log = logging.getLogger(service)
        self.log.setLevel(logging.INFO)
        self.log.addHandler(handler)
        self.log.addHandler(logging.StreamHandler())
        self.tracer = trace.get_tracer(service)
        meter = metrics.get_meter(service)
        self.served = meter.create_histogram("http.server.request.duration", unit="s")
        self.called = meter.create_histogram("http.client.request.duration", unit="s")
