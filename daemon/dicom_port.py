"""The TCP side of the SCP: what pynetdicom's server needs to survive in a hospital's network."""

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ssl import SSLCertVerificationError, SSLContext, SSLError
from threading import Lock, Thread
from typing import Any, cast

import structlog
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.transport import AssociationServer, AssociationSocket

log = structlog.get_logger()

_ABORT = bytes((7, 0, 0, 0, 0, 4, 0, 0, 2, 0))
"""A-ABORT by the service provider, who gives no reason (PS3.8 section 9.3.8)."""


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


class DicomPort(AssociationServer):
    """A listening socket whose connections each become an `Association`, a thread with a thread below it.

    It knows every connection from its first byte to the end of its threads, as some end without any event.

    Parameters
    ----------
    connection_gone
        Called once the thread of a connection has ended, however it ended.
    """

    request_queue_size = 512  # 5 by default: a burst of senders would wait a second for a SYN retry

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        limits: NetworkLimits,
        handlers: Sequence[evt.EventHandlerType],
        connection_gone: Callable[[Association], None],
        tls: SSLContext | None = None,
    ) -> None:
        self._limits = limits
        self._connection_gone = connection_gone
        self._tls = tls
        self._shaking_hands: set[socket.socket] = set()
        # A connection that has no thread yet must not look like one whose thread has ended.
        self._beginning = Lock()
        self._connections: dict[Association, socket.socket] = {}
        self._accepting = Thread(target=self.serve_forever, args=(0.2,), name="dicom-port", daemon=True)
        own: list[evt.EventHandlerType] = [
            (evt.EVT_CONN_OPEN, self._on_connected),
            (evt.EVT_CONN_CLOSE, self._on_disconnected),
        ]
        super().__init__(ae, address, ae.ae_title, ae.supported_contexts, evt_handlers=[*own, *handlers])

    @property
    def port(self) -> int:
        """The port it is bound to."""
        return int(self.server_address[1])

    @property
    def is_accepting(self) -> bool:
        """Whether new connections are taken."""
        return self._accepting.is_alive()

    @property
    def connections(self) -> frozenset[Association]:
        """Connections whose threads have not all ended."""
        return frozenset(self._connections)

    def open(self) -> None:
        """Begin to take connections."""
        self._accepting.start()

    def close(self) -> None:
        """Take no more connections; those that exist go on."""
        super(AssociationServer, self).shutdown()
        self.server_close()
        self._accepting.join()

    def reap(self) -> None:
        """Forget connections whose threads have ended.

        pynetdicom leaves a socket open that the peer has already reset, and the lower thread running where the
        upper one failed.
        """
        with self._beginning:
            for association, connection in list(self._connections.items()):
                if not association.is_alive():
                    self._connection_gone(association)
                    if association.dul.is_alive():
                        self.hang_up(association)
                    else:
                        connection.close()
                        del self._connections[association]

    def hang_up(self, association: Association) -> None:
        """Close a TCP connection under an association that does not end otherwise."""
        with suppress(OSError):  # closed already
            self._connections[association].shutdown(socket.SHUT_RDWR)

    # What socketserver calls, all in the accepting thread

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection; its socket inherits no timeout, and a half-sent PDU must not block for ever."""
        connection, address = super().get_request()
        connection.settimeout(self._limits.idle_seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection, address

    def verify_request(self, request: object, client_address: object) -> bool:  # noqa: ARG002 -- likewise
        """Whether there is a thread left for a connection; without one it is closed unheard."""
        self.reap()
        taken = len(self._connections) + len(self._shaking_hands)
        if taken < self.ae.maximum_associations:
            return True
        log.warning("connection_refused", address=str(client_address), open_connections=taken)
        return False

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 -- socketserver's
        """Make an association of a connection; with TLS once hands are shaken, which may take the peer's time."""
        if self._tls is None:
            super().process_request(request, client_address)
            return
        self._shaking_hands.add(request)
        Thread(
            target=self._shake_hands, args=(self._tls, request, client_address), name="tls", daemon=True
        ).start()

    def _shake_hands(self, tls: SSLContext, plain: socket.socket, client_address: tuple[str, int]) -> None:
        plain.settimeout(self._limits.request_seconds)
        try:
            secured = tls.wrap_socket(plain, server_side=True)
        except OSError as error:  # SSLError is one
            log.warning("tls_handshake_failed", address=str(client_address), reason=_tls_words(error))
            self.shutdown_request(plain)
            return
        finally:
            self._shaking_hands.discard(plain)
        secured.settimeout(self._limits.idle_seconds)
        try:
            with self._beginning:
                super().process_request(secured, client_address)
        except Exception:  # noqa: BLE001 -- as socketserver does for a connection without TLS
            self.handle_error(secured, client_address)
            self.shutdown_request(secured)

    def service_actions(self) -> None:
        """Clean up between two connections; unlike pynetdicom, without a full garbage collection each time."""
        self.reap()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 -- socketserver's
        """Log what kept a connection from becoming an association."""
        log.error("connection_failed", address=str(client_address), exc_info=True)  # noqa: LOG014 -- called in an except

    # What pynetdicom tells

    def _on_connected(self, event: evt.Event) -> None:
        wrapper = cast("AssociationSocket", event.assoc.dul.socket)
        self._connections[event.assoc] = cast("socket.socket", wrapper.socket)
        for owner, name in (
            (event.assoc.dul.state_machine, "do_action"),
            (event.assoc.acse, "negotiate_association"),
            (event.assoc, "_serve_request"),
        ):
            setattr(owner, name, partial(self._attempt, event.assoc, getattr(owner, name)))

    def _attempt(self, association: Association, act: Callable[..., None], *arguments: object) -> None:
        """Let pynetdicom act on a message; one over which it stumbles ends its association at once.

        Otherwise one of its two threads would end, and the connection stay: until it is silent for too long,
        or for ever.
        """
        try:
            act(*arguments)
        except Exception as error:  # noqa: BLE001 -- whatever a message lacks
            log.warning(
                "association_failed", address=association.requestor.address, kind=type(error).__name__
            )
            with suppress(OSError):
                self._connections[association].sendall(_ABORT)
            association.is_aborted, association.is_established = True, False
            association._kill = association.dul._kill_thread = True  # noqa: SLF001 -- as pynetdicom does for itself
            self._wake(association)

    def _on_disconnected(self, event: evt.Event) -> None:
        """Wake an association that still waits for its A-ASSOCIATE-RQ, as it would until the ARTIM timer ends.

        Otherwise every health check of a load balancer holds a thread for that long.
        Before Sta3 nothing is queued for the association; in Sta13 everything is.
        """
        if event.assoc.dul.state_machine.current_state in {"Sta2", "Sta13"}:
            self._wake(event.assoc)

    def _wake(self, association: Association) -> None:
        waiting: Any = (
            association.dul.to_user_queue
        )  # its type leaves out None, which reads as "nothing came"
        waiting.put(None)


def _tls_words(error: OSError) -> str:
    """Return what is wrong with the peer's certificate, or OpenSSL's reason, which can be looked up."""
    if isinstance(error, SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return error.strerror or type(error).__name__
