"""One service of the shop as a process: HTTP server, telemetry, its own faults.

python3 service.py NAME FOLDER
"""

import json
import re
import signal
import socket
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, Status, StatusCode

import behaviour
from client import Client
from inner_faults import InnerFaults
from layout import PORT, SERVICES
from telemetry import Telemetry

TIMEOUTS = {"frontend": 4.0, "checkout": 3.0}


class Refused(Exception):
    """An answer with a status of its own, which isn't the service's failure."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class App:
    """Everything that a handler may use."""

    def __init__(self, name, folder):
        self.name = name
        self.folder = folder
        self.telemetry = Telemetry(name)
        self.log = self.telemetry.log
        authority = str(folder / "tls" / "ca.pem")
        self.client = Client(self.telemetry, authority, TIMEOUTS.get(name, 2.0))
        self.call = self.client.call
        self.faults = InnerFaults(folder / "faults" / f"{name}.json")
        self.refuse = Refused
        self.store = behaviour.STORES[name](self) if name in behaviour.STORES else None
        self.routes = [
            (method, re.compile(re.sub(r"\{\w+\}", "([^/]+)", path) + "$"), path, handler)
            for (method, path), handler in behaviour.ROUTES[name].items()
        ]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    disable_nagle_algorithm = True
    app = None

    def setup(self):
        # The handshake runs on the connection's thread: one that stalls doesn't hold back others.
        if self.server.tls:
            self.request.settimeout(self.timeout)
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def do_GET(self):
        self.serve()

    def do_POST(self):
        self.serve()

    def serve(self):
        size = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(size)) if size else {}
        for method, pattern, path, handler in self.app.routes:
            match = pattern.match(self.path)
            if match and method == self.command:
                status, answer = self.traced(path, handler, match.groups(), body)
                break
        else:
            status, answer = 404, {"error": "no such path"}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def traced(self, path, handler, arguments, body):
        began = time.monotonic()
        attributes = {"http.request.method": self.command, "http.route": path}
        with self.app.telemetry.tracer.start_as_current_span(
            f"{self.command} {path}",
            context=extract(self.headers),
            kind=SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,
        ) as span:
            status, answer = self.handle_route(span, path, handler, arguments, body)
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_status(Status(StatusCode.ERROR, answer["error"]))
        self.app.telemetry.served.record(
            time.monotonic() - began, {**attributes, "http.response.status_code": status}
        )
        return status, answer

    def handle_route(self, span, path, handler, arguments, body):
        try:
            wrong = self.app.faults.apply()
            if wrong is not None:
                return 200, wrong
            return 200, handler(self.app, *arguments, body)
        except Refused as error:
            return error.status, {"error": str(error)}
        except Exception as error:
            span.record_exception(error)
            span.set_attribute("error.type", type(error).__name__)
            self.app.log.exception("%s %s failed", self.command, path)
            return 500, {"error": str(error)}

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    tls = None
    app = None

    def get_request(self):
        try:
            return super().get_request()
        except OSError as error:
            self.app.log.error("accept: %s; next attempt in 100 ms", error)
            time.sleep(0.1)
            raise

    def handle_error(self, request, client_address):
        error = sys.exc_info()[1]
        if isinstance(error, ssl.SSLError):
            self.app.log.warning("TLS handshake with %s: %s", client_address[0], error)
        elif not isinstance(error, (ConnectionError, socket.timeout)):
            self.app.log.error("connection of %s: %s", client_address[0], error)


def load_certificate(context, folder, name):
    context.load_cert_chain(folder / "tls" / f"{name}.pem", folder / "tls" / f"{name}.key")


def main(name, folder):
    app = App(name, folder)
    Handler.app = app
    server = Server(("0.0.0.0", PORT), Handler)
    server.app = app
    if SERVICES[name].tls:
        server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_certificate(server.tls, folder, name)
        signal.signal(signal.SIGHUP, lambda *_: load_certificate(server.tls, folder, name))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app.log.info("%s listens on port %d", name, PORT)
    server.serve_forever(poll_interval=5)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
