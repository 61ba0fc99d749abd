"""Sends log records, spans and data points by OpenTelemetry's Python SDK.

python3 send.py grpc|http ENDPOINT COUNT PREFIX

Each of the COUNT records of a signal has the attribute `test.n`, PREFIX and a number. Ends with an
error if the SDK gives one up.
"""

import sys
import time

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.metrics import Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

protocol, endpoint, count, prefix = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]

if protocol == "grpc":
    from grpc import Compression
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    options = {"endpoint": endpoint, "insecure": True, "compression": Compression.Gzip, "timeout": 60}
    urls = [options] * 3
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    urls = [
        {"endpoint": f"{endpoint}/v1/{signal}", "compression": Compression.Gzip, "timeout": 60}
        for signal in ("logs", "traces", "metrics")
    ]

failures = []


def counting(exporter):
    """An exporter that notes what the SDK gives up."""
    export = exporter.export

    def counted(*arguments, **options):
        result = export(*arguments, **options)
        if result.name != "SUCCESS":
            failures.append(result)
        return result

    exporter.export = counted
    return exporter


resource = Resource.create({"service.name": "sdk-test", "service.instance.id": prefix})

logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(SimpleLogRecordProcessor(counting(OTLPLogExporter(**urls[0]))))
logger = logs.get_logger("tests.sdk", "1.0")

traces = TracerProvider(resource=resource)
traces.add_span_processor(SimpleSpanProcessor(counting(OTLPSpanExporter(**urls[1]))))
tracer = traces.get_tracer("tests.sdk", "1.0")

reader = PeriodicExportingMetricReader(
    counting(OTLPMetricExporter(**urls[2])), export_interval_millis=3_600_000
)
meter = MeterProvider(resource=resource, metric_readers=[reader]).get_meter("tests.sdk", "1.0")
meter.create_observable_gauge(
    "test.gauge",
    callbacks=[lambda _: [Observation(n / 2, {"test.n": f"{prefix}-{n}"}) for n in range(count)]],
)
histogram = meter.create_histogram("test.histogram", unit="s")

for n in range(count):
    number = {"test.n": f"{prefix}-{n}"}
    now_ns = time.time_ns()
    logger.emit(
        LogRecord(
            timestamp=now_ns,
            observed_timestamp=now_ns,
            severity_number=SeverityNumber.WARN if n % 2 else SeverityNumber.INFO,
            severity_text="WARN" if n % 2 else "INFO",
            body={"text": f"record {n}", "n": n} if n % 3 == 0 else f"record {n}",
            attributes={**number, "http.response.status_code": 200 + n, "list": ["a", "b"]},
        )
    )
    with tracer.start_as_current_span("parent", attributes=number, kind=trace.SpanKind.SERVER) as parent:
        link = trace.Link(parent.get_span_context(), {"why": "test"})
        with tracer.start_as_current_span("child", links=[link], attributes=number) as child:
            child.add_event("step", {"number": n})
            if n % 2:
                child.record_exception(ValueError(f"bad {n}"))
                child.set_status(trace.StatusCode.ERROR, "bad")
    histogram.record(n / 10, {"route": "/"})
# Exports the data points, too.
reader.shutdown()
logs.shutdown()
traces.shutdown()
if failures:
    sys.exit(f"the SDK gave up: {failures[:3]}")
