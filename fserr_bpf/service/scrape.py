"""The HTTP endpoint for Prometheus. Its thread sleeps until somebody connects."""

from __future__ import annotations

import socket
import threading
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prometheus_client import MetricsHandler

from fserr_bpf.closing import Closing
from fserr_bpf.errors import UsageError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_CLIENT_SECONDS = 5.0  # for a client that says nothing


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, MetricsHandler.factory(registry))

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next client, who is not waited for for ever."""
        client, address = super().get_request()
        client.settimeout(_CLIENT_SECONDS)
        return client, address

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is its own trouble."""


class Endpoint(Closing):
    """Listens at once, answers once started. Raises UsageError where the address cannot be had."""

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry) -> None:
        try:
            self._server = _Server(address, registry)
        except OSError as error:
            host, port = address
            raise UsageError(
                f"no metrics at {host} port {port}: {error.strerror}",
                "name another address",
            ) from error
        self.address = self._server.server_address
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="prometheus", daemon=True)

    def start(self) -> None:
        """Begin to answer; after rights were given up, as a thread keeps them."""
        self._thread.start()

    def _run(self) -> None:
        while not self._ending:  # serve_forever() would wake up twice a second
            self._server.handle_request()
        self._server.server_close()

    def close(self) -> None:
        """Stop listening."""
        self._ending = True
        if self._thread.ident is None:
            self._server.server_close()
        else:
            self._server.socket.shutdown(socket.SHUT_RDWR)  # the thread's wait ends
