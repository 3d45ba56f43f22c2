"""The HTTP of a Kubernetes API server over a `Cluster`: TLS, tokens, RBAC, watches, faults."""

import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.deploy.jobset.local_cluster import JOBSETS, PODS, Cluster, Json

NAMESPACE = "pachyderm"
PATH = re.compile(
    "/(?:api|apis/(?P<group>[a-z0-9.-]+))/(?P<version>v[a-z0-9]+)/namespaces/(?P<namespace>[^/]+)"
    "/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+)(?:/(?P<subresource>[a-z]+))?)?"
)
REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "AlreadyExists",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
}


class ApiServer(ThreadingHTTPServer):
    """Serves a cluster; `asked` is what for: verb, API group, resource."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, cluster: Cluster, context: ssl.SSLContext, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )
        self.cluster = cluster
        self.tokens = {"token"}
        self.rules: Sequence[Mapping[str, Sequence[str]]] = ()  # RBAC's
        self.has_jobsets = True
        self.faults: list[int] = []  # statuses of the next answers
        self.asked: list[tuple[str, str, str]] = []
        self.streams: set[socket.socket] = set()
        self.watches_end = 0  # how many times all had to end
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def may(self, verb: str, group: str, resource: str) -> bool:
        """Whether the rules grant it."""
        return any(
            group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
            for rule in self.rules
        )

    def break_streams(self) -> None:
        """Cut all connections on which something is being streamed."""
        for each in list(self.streams):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def end_watches(self) -> None:
        """End all watches in peace, as after their time."""
        with self.cluster.changed:
            self.watches_end += 1
            self.cluster.changed.notify_all()

    def stop(self) -> None:
        """Be gone, with all connections."""
        self.shutdown()
        self.server_close()
        self.end_watches()
        self.break_streams()

    def handle_error(self, *_: object) -> None:
        """Clients may go when they like."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: ApiServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer({"": "list", "name": "get", "watch": "watch"})

    def do_POST(self) -> None:
        self._answer({"": "create"})

    def do_PATCH(self) -> None:
        self._answer({"name": "patch"})

    def do_DELETE(self) -> None:
        self._answer({"name": "delete"})

    def _answer(self, verbs: Mapping[str, str]) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        match = PATH.fullmatch(url.path)
        assert match is not None, url.path
        of = {name: value or "" for name, value in match.groupdict().items()}
        verb = verbs["watch" if "watch" in query else "name" if of["name"] else ""]
        resource = f"{of['resource']}/{of['subresource']}".rstrip("/")
        if not self._refuse(verb, of, resource):
            getattr(self, f"_{verb}_{resource.replace('/', '_')}")(of["name"], query, body)

    def _refuse(self, verb: str, of: Mapping[str, str], resource: str) -> bool:
        """Whether the answer is an error whoever asks."""
        server, what = self.server, (verb, of["group"], resource)
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        with server.cluster.changed:
            server.asked.append(what)
            server.cluster.changed.notify_all()
        if server.faults:
            self._error(server.faults.pop(0), "the server is unwell")
        elif bearer not in server.tokens:
            self._error(401, "Unauthorized")
        elif not server.may(*what) or of["namespace"] != NAMESPACE:
            self._error(403, f'{resource} is forbidden: User "launcher" cannot {verb} {resource}')
        elif of["resource"] == JOBSETS and not server.has_jobsets:
            self._text(404, "404 page not found\n")
        else:
            return False
        return True

    # Answers

    def _text(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)

    def _json(self, status: int, value: Json) -> None:
        self._text(status, json.dumps(value), "application/json")

    def _error(self, code: int, message: str) -> None:
        self._json(code, status_of(code, message))

    def _stream(self, kind: str, chunks: Iterable[str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.server.streams.add(self.connection)
        try:
            for chunk in chunks:
                data = chunk.encode()
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True
        finally:
            self.server.streams.discard(self.connection)

    # JobSets

    def _create_jobsets(self, _: str, query: Mapping[str, str], body: Json) -> None:
        cluster, name = self.server.cluster, body["metadata"]["name"]
        with cluster.changed:
            if cluster.get(JOBSETS, name) is not None:
                self._error(409, f'jobsets.jobset.x-k8s.io "{name}" already exists')
            else:
                self._json(201, cluster.create_jobset(body))

    def _patch_jobsets(self, name: str, query: Mapping[str, str], body: Json) -> None:
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        self._json(200, self.server.cluster.patch_jobset(name, body))

    def _delete_jobsets(self, name: str, query: Mapping[str, str], body: object) -> None:
        cluster = self.server.cluster
        with cluster.changed:
            if cluster.get(JOBSETS, name) is None:
                self._error(404, f'jobsets.jobset.x-k8s.io "{name}" not found')
                return
            cluster.delete_jobset(name)
        self._json(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _get_jobsets(self, name: str, query: Mapping[str, str], body: object) -> None:
        self._one(JOBSETS, name)

    def _watch_jobsets(self, _: str, query: Mapping[str, str], body: object) -> None:
        self._watch(JOBSETS, query)

    # Pods

    def _get_pods(self, name: str, query: Mapping[str, str], body: object) -> None:
        self._one(PODS, name)

    def _list_pods(self, _: str, query: Mapping[str, str], body: object) -> None:
        selected = selector(query)
        with self.server.cluster.changed:
            items = [pod for pod in self.server.cluster.all(PODS) if selected(pod)]
            metadata = {"resourceVersion": str(self.server.cluster.version)}
        self._json(
            200, {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}
        )

    def _watch_pods(self, _: str, query: Mapping[str, str], body: object) -> None:
        self._watch(PODS, query)

    def _get_pods_log(self, name: str, query: Mapping[str, str], body: object) -> None:
        if self.server.cluster.get(PODS, name) is None:
            self._error(404, f'pods "{name}" not found')
            return
        container = self.server.cluster.container(name)
        assert container.name == query["container"]
        assert (query["follow"], query["timestamps"]) == ("true", "true")
        self._stream("text/plain", (f"{when} {line}\n" for when, line in container.follow()))

    def _one(self, kind: str, name: str) -> None:
        found = self.server.cluster.get(kind, name)
        if found is None:
            self._error(404, f'{kind} "{name}" not found')
        else:
            self._json(200, found)

    def _watch(self, kind: str, query: Mapping[str, str]) -> None:
        cluster = self.server.cluster
        since = int(query.get("resourceVersion", 0))
        if since and since < cluster.compacted:
            self._error(410, f"too old resource version: {since} ({cluster.compacted})")
        else:
            self._stream("application/json", self._events(kind, selector(query), since))

    def _events(self, kind: str, selected: Callable[[Json], bool], since: int) -> Iterable[str]:
        """What is there, unless it is known since when, and then each change."""
        cluster, ends = self.server.cluster, self.server.watches_end
        with cluster.changed:
            there = [] if since else cluster.all(kind)
            since = since or cluster.version
        yield from (event_of("ADDED", item) for item in there if selected(item))
        while True:
            with cluster.changed:
                while cluster.version == since and self.server.watches_end == ends:
                    cluster.changed.wait()
                if self.server.watches_end > ends:
                    return
                if since < cluster.compacted:
                    yield event_of("ERROR", status_of(410, "The resourceVersion is too old."))
                    return
                news = [each for each in cluster.history if each[0] > since]
                since = cluster.version
            yield from (
                event_of(event, item)
                for _, of, event, item in news
                if of == kind and selected(item)
            )


def status_of(code: int, message: str) -> Json:
    """Kubernetes' own kind of an error."""
    what = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**what, "message": message, "reason": REASONS.get(code, "InternalError"), "code": code}


def event_of(kind: str, item: Any) -> str:
    """A line of a watch."""
    return json.dumps({"type": kind, "object": item}) + "\n"


def selector(query: Mapping[str, str]) -> Callable[[Json], bool]:
    """Field and label selectors of the form name=value."""
    field = query.get("fieldSelector", "").removeprefix("metadata.name=")
    label, _, value = query.get("labelSelector", "").partition("=")

    def selected(item: Json) -> bool:
        metadata = item["metadata"]
        labelled = not label or metadata.get("labels", {}).get(label) == value
        return labelled and field in ("", metadata["name"])

    return selected
