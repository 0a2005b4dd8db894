"""A web server on this machine, which serves what a test gives it and hangs up where a test wants it to."""

import contextlib
import http.server
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `state["content"]`, with ranges, and hangs up after `cuts.pop(0)` bytes while there are cuts."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        state = self.server.state
        content = state["content"].get(self.path.lstrip("/"))
        if content is None:
            return self.send_error(404)
        wanted = self.headers.get("Range") if state["ranges"] else None
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        state["asked"].append((self.path.lstrip("/"), start))
        if wanted and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        body = content[start:]
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        body = body[:state["cuts"].pop(0)] if state["cuts"] else body
        state["sent"] += len(body)  # before the last byte: the client may look as soon as it has that
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve(content):
    """Serves {path: bytes}; gives the server, with its `url` and its `state`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.state = {"content": dict(content), "ranges": True, "cuts": [], "asked": [], "sent": 0}
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()
