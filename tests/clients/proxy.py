"""A proxy between an engine and the catalog: a test holds requests there, or loses answers."""
import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOPS = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class Proxy(ThreadingHTTPServer):
    """Passes everything on; subclasses change `answer`."""

    daemon_threads = True

    def __init__(self, server_url: str):
        super().__init__(("127.0.0.1", 0), Passing)
        self.upstream = urlsplit(server_url).netloc
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def answer(self, method: str, path: str, body, forward):
        """What the client is told: status, headers, content; none when its connection is to break. `forward` asks the server."""
        return forward()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def is_commit(method: str, path: str) -> bool:
    """Whether a request changes a table or several."""
    return method == "POST" and ("/transactions/commit" in path or ("/tables/" in path and not path.endswith(("/metrics", "/rename"))))


class Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and content are written one after the other: the second would wait until the first is confirmed.
    disable_nagle_algorithm = True

    def handle_any(self):
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if length else None
        answer = self.server.answer(self.command, self.path, body, lambda: self.forward(body))
        if answer is None:
            self.close_connection = True
            self.connection.close()
            return
        status, headers, content = answer
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOPS:
                self.send_header(name, value)
        # What is only looked at has a length all the same.
        lengths = [value for name, value in headers if name.lower() == "content-length" and self.command == "HEAD"]
        if status != 204:
            self.send_header("content-length", lengths[0] if lengths else str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def forward(self, body):
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOPS}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        status, content, headers = answer.status, answer.read(), answer.getheaders()
        upstream.close()
        return status, headers, content

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def log_message(self, *arguments):
        pass
