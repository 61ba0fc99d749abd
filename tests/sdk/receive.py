"""An OTLP/gRPC receiver that checks what it gets against OpenTelemetry's conventions.

python3 receive.py HOST:PORT

Prints a JSON object a line for each record, with `problems` where it breaks a convention.
Needs: pip install grpcio opentelemetry-proto
"""

import json
import sys
import threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

lock = threading.Lock()

RANGES = ["", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]


def value(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(v) for v in any_value.array_value.values]
    if kind == "kvlist_value":
        return {kv.key: value(kv.value) for kv in any_value.kvlist_value.values}
    if kind == "bytes_value":
        return any_value.bytes_value.hex()
    return getattr(any_value, kind) if kind else None


def attributes(pairs, problems):
    keys = [pair.key for pair in pairs]
    if "" in keys:
        problems.append("empty key")
    if len(set(keys)) < len(keys):
        problems.append(f"keys twice: {sorted(k for k in set(keys) if keys.count(k) > 1)}")
    return {pair.key: value(pair.value) for pair in pairs}


def check_id(name, identifier, length, problems, optional=False):
    if optional and not identifier:
        return
    if len(identifier) != length or not any(identifier):
        problems.append(f"{name}: {identifier.hex()!r}")


def emit(signal, resource, scope, record, problems, **more):
    resource = attributes(resource.attributes, problems)
    if not resource.get("service.name") and "host.name" not in resource:
        problems.append(f"resource without service.name or host.name: {resource}")
    line = {
        "signal": signal,
        "resource": resource,
        "scope": [scope.name, scope.version],
        "attributes": attributes(record.attributes, problems),
        **more,
        "problems": problems,
    }
    with lock:
        print(json.dumps(line), flush=True)


class Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def Export(self, request, context):
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                for log in scope.log_records:
                    problems = []
                    check_id("trace_id", log.trace_id, 16, problems, optional=True)
                    check_id("span_id", log.span_id, 8, problems, optional=True)
                    if log.span_id and not log.trace_id:
                        problems.append("span_id without trace_id")
                    if log.observed_time_unix_nano == 0:
                        problems.append("no observed time")
                    expected = RANGES[(log.severity_number + 3) // 4]
                    if not log.severity_text.startswith(expected):
                        problems.append(f"severity {log.severity_number} {log.severity_text!r}")
                    emit(
                        "logs", resource.resource, scope.scope, log, problems,
                        event_name=log.event_name, severity=log.severity_number,
                        body=value(log.body), trace=log.trace_id.hex(), span=log.span_id.hex(),
                        time_ns=log.time_unix_nano,
                    )
        return logs_service_pb2.ExportLogsServiceResponse()


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    problems = []
                    check_id("trace_id", span.trace_id, 16, problems)
                    check_id("span_id", span.span_id, 8, problems)
                    check_id("parent", span.parent_span_id, 8, problems, optional=True)
                    if not span.name:
                        problems.append("no name")
                    if not 0 < span.start_time_unix_nano <= span.end_time_unix_nano:
                        problems.append("ends before it starts")
                    for link in span.links:
                        check_id("link.trace_id", link.trace_id, 16, problems)
                        check_id("link.span_id", link.span_id, 8, problems)
                    for event in span.events:
                        attributes(event.attributes, problems)
                        if not event.name or event.time_unix_nano == 0:
                            problems.append("event without name or time")
                    emit(
                        "traces", resource.resource, scope.scope, span, problems, name=span.name,
                        kind=span.kind, trace=span.trace_id.hex(), span=span.span_id.hex(),
                        parent=span.parent_span_id.hex(), status=span.status.code,
                        status_message=span.status.message,
                        events=[[e.name, attributes(e.attributes, [])] for e in span.events],
                        links=[[k.trace_id.hex(), k.span_id.hex(), attributes(k.attributes, [])]
                               for k in span.links],
                    )
        return trace_service_pb2.ExportTraceServiceResponse()


class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def Export(self, request, context):
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    data = getattr(metric, kind)
                    for point in data.data_points:
                        problems = []
                        if not metric.name or point.time_unix_nano == 0:
                            problems.append("no name or time")
                        if kind in ("sum", "histogram") and data.aggregation_temporality == 0:
                            problems.append("no temporality")
                        if kind == "histogram":
                            if len(point.bucket_counts) != len(point.explicit_bounds) + 1:
                                problems.append("bounds and buckets don't match")
                            if sum(point.bucket_counts) != point.count:
                                problems.append("buckets and count don't match")
                            number = point.sum
                        else:
                            number = getattr(point, point.WhichOneof("value"))
                        emit(
                            "metrics", resource.resource, scope.scope, point, problems,
                            name=metric.name, unit=metric.unit, kind=kind, value=number,
                        )
        return metrics_service_pb2.ExportMetricsServiceResponse()


server = grpc.server(futures.ThreadPoolExecutor(4))
logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Logs(), server)
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
if server.add_insecure_port(sys.argv[1]) == 0:
    sys.exit(f"can't listen on {sys.argv[1]}")
server.start()
server.wait_for_termination()
