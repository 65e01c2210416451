"""The TCP side of the SCP: listening sockets, and what a connection needs to survive in a hospital's network."""

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from ssl import SSLContext, SSLSocket
from threading import Lock, Thread
from time import monotonic, sleep

import structlog

from daemon.tls import handshake_words

log = structlog.get_logger()

_WAITING_CONNECTIONS = 512
"""A burst of senders would otherwise wait a second each for a SYN that is sent again."""

_BREATH_SECONDS = 0.2
"""Until the next try to accept a connection where one failed: what is lacking is not back at once."""


@dataclass(frozen=True)
class NetworkLimits:
    """How long a peer may be silent, and how much of us it may hold meanwhile."""

    request_seconds: float = 15
    """From the TCP connection to the A-ASSOCIATE-RQ: the ARTIM timer (PS3.8 section 9.1.5)."""
    idle_seconds: float = 120
    """Silence on an open association, or within a PDU, after which it is aborted."""
    drain_seconds: float = 30
    """What open associations get to finish when the service stops."""
    spare_connections: int = 200
    """TCP connections beyond the association limit: health checks, and those to be refused with a reason."""


class Connection:
    """A TCP connection that was accepted, with TLS once hands are shaken."""

    def __init__(self, accepted: socket.socket, address: str) -> None:
        self.socket: socket.socket | SSLSocket = accepted
        self.address = address

    def end(self, seconds: float) -> None:
        """Say that nothing more comes, and wait for the peer to close first: else it may lose our last words."""
        deadline = monotonic() + seconds
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            while (left := deadline - monotonic()) > 0:
                self.socket.settimeout(left)
                if not self.socket.recv(65536):
                    return

    def hang_up(self) -> None:
        """End it at once; whoever waits for its next byte is woken."""
        with suppress(OSError):  # closed already
            self.socket.shutdown(socket.SHUT_RDWR)


class DicomPort:
    """A listening socket; every connection gets a thread that serves it to its end.

    Parameters
    ----------
    most_connections
        Further ones are closed unheard.
    serve
        Called in the connection's thread; what it raises is logged, and the connection is closed.
    """

    def __init__(
        self,
        address: tuple[str, int],
        limits: NetworkLimits,
        most_connections: int,
        serve: Callable[[Connection], None],
        tls: SSLContext | None = None,
    ) -> None:
        self._limits = limits
        self._most_connections = most_connections
        self._serve = serve
        self._tls = tls
        self._lock = Lock()
        self._connections: set[Connection] = set()
        self._listening = _server(address)
        self.port = int(self._listening.getsockname()[1])
        self._accepting = Thread(target=self._accept, name="dicom-port", daemon=True)

    @property
    def is_accepting(self) -> bool:
        """Whether new connections are taken."""
        return self._accepting.is_alive()

    @property
    def connections(self) -> frozenset[Connection]:
        """Connections that have not ended."""
        with self._lock:
            return frozenset(self._connections)

    def open(self) -> None:
        """Begin to take connections."""
        self._accepting.start()

    def close(self) -> None:
        """Take no more connections; those that exist go on."""
        with suppress(OSError):  # wakes the accepting thread
            self._listening.shutdown(socket.SHUT_RDWR)
        if self._accepting.is_alive():
            self._accepting.join()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                accepted, address = self._listening.accept()
            except ConnectionError:
                continue  # gone before it was accepted
            except OSError as error:
                if self._listening.fileno() < 0 or not _is_listening(self._listening):
                    return
                log.warning("connection_not_accepted", reason=error.strerror)  # no descriptor left, for one
                sleep(_BREATH_SECONDS)
                continue
            connection = Connection(accepted, _plain(str(address[0])))
            if not self._has_place(connection):
                accepted.close()
                continue
            try:
                Thread(target=self._run, args=(connection,), name="association", daemon=True).start()
            except RuntimeError as error:
                log.error("connection_failed", address=connection.address, reason=str(error))  # noqa: TRY400
                self._forget(connection)

    def _has_place(self, connection: Connection) -> bool:
        with self._lock:
            taken = len(self._connections)
            if taken < self._most_connections:
                self._connections.add(connection)
                return True
        log.warning("connection_refused", address=connection.address, open_connections=taken)
        return False

    def _run(self, connection: Connection) -> None:
        try:
            if self._is_ready(connection):
                self._serve(connection)
        except Exception:
            log.exception("connection_failed", address=connection.address)
        finally:
            self._forget(connection)

    def _is_ready(self, connection: Connection) -> bool:
        """Set the socket up, which inherits nothing; with TLS, shake hands, which may take the peer's time."""
        plain = connection.socket
        try:
            plain.settimeout(self._limits.request_seconds)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._tls is not None:
                connection.socket = self._tls.wrap_socket(plain, server_side=True)
        except OSError as error:  # SSLError is one
            if self._tls is not None:
                log.warning("tls_handshake_failed", address=connection.address, reason=handshake_words(error))
            return False
        return True

    def _forget(self, connection: Connection) -> None:
        with suppress(OSError):
            connection.socket.close()
        with self._lock:
            self._connections.discard(connection)


def _server(address: tuple[str, int]) -> socket.socket:
    """A listening socket of either version of IP; `::` takes both."""
    host = address[0]
    return socket.create_server(
        address,
        family=socket.AF_INET6 if ":" in host else socket.AF_INET,
        backlog=_WAITING_CONNECTIONS,
        dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
    )


def _plain(address: str) -> str:
    """An IPv4 address as it is written, also where it came to a socket of both versions."""
    mapped = ip_address(address.partition("%")[0])
    return str(mapped.ipv4_mapped or mapped) if isinstance(mapped, IPv6Address) else address


def _is_listening(listening: socket.socket) -> bool:
    return bool(listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
