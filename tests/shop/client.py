"""HTTP between services: connections are kept for some seconds, spans carry the trace along."""

import http.client
import json
import random
import ssl
import threading
import time

from opentelemetry.propagate import inject
from opentelemetry.trace import SpanKind, Status, StatusCode

from layout import PORT, SERVICES

# Seconds that a connection is used at most: names are resolved again after that.
KEPT = 4.0


class CallError(Exception):
    """A callee didn't answer, or answered with an error."""


class Client:
    """Calls other services. timeout: seconds for each step of a call."""

    def __init__(self, telemetry, authority, timeout):
        self.telemetry = telemetry
        self.timeout = timeout
        self.idle = {name: [] for name in SERVICES}
        self.lock = threading.Lock()
        self.tls = ssl.create_default_context(cafile=authority)

    def call(self, service, method, path, body=None):
        """The decoded answer; CallError where there is none or its status is 500 or more."""
        began = time.monotonic()
        host = f"{service}.shop"
        attributes = {
            "http.request.method": method,
            "server.address": host,
            "server.port": PORT,
            "url.full": f"http://{host}:{PORT}{path}",
        }
        with self.telemetry.tracer.start_as_current_span(
            method, kind=SpanKind.CLIENT, attributes=attributes
        ) as span:
            try:
                status, answer = self.exchange(service, method, path, body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                span.set_attribute("error.type", type(error).__name__)
                raise CallError(f"{method} {host}{path}: {error}") from error
            finally:
                self.telemetry.called.record(
                    time.monotonic() - began, {"server.address": host}
                )
            span.set_attribute("http.response.status_code", status)
            if status >= 400:
                span.set_attribute("error.type", str(status))
                span.set_status(Status(StatusCode.ERROR))
            if status >= 500:
                raise CallError(f"{method} {host}{path}: status {status}: {answer.get('error')}")
            return answer

    def exchange(self, service, method, path, body):
        headers = {"content-type": "application/json"}
        inject(headers)
        content = None if body is None else json.dumps(body)
        while True:
            connection, reused = self.connection(service)
            try:
                connection.request(method, path, content, headers)
                response = connection.getresponse()
                answer = json.loads(response.read())
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                connection.close()
                # A kept connection that the other end has closed meanwhile is no failure.
                if reused:
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            self.keep(service, connection)
            return response.status, answer

    def connection(self, service):
        with self.lock:
            while self.idle[service]:
                connection = self.idle[service].pop()
                if time.monotonic() < connection.until:
                    return connection, True
                connection.close()
        host = f"{service}.shop"
        if SERVICES[service].tls:
            connection = http.client.HTTPSConnection(
                host, PORT, timeout=self.timeout, context=self.tls
            )
        else:
            connection = http.client.HTTPConnection(host, PORT, timeout=self.timeout)
        connection.connect()
        connection.until = time.monotonic() + KEPT * random.uniform(0.5, 1.0)
        return connection, False

    def keep(self, service, connection):
        with self.lock:
            self.idle[service].append(connection)
