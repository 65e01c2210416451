"""A TLS connection on which one thread receives while others send.

Python 3.11 does not keep threads apart within one TLS connection, and OpenSSL must not be entered twice: a
receiver would now and then see an end that is none. So they take turns within OpenSSL, and wait outside of it.
"""

import select
from collections.abc import Callable
from functools import partial
from ssl import SSLSocket, SSLWantReadError, SSLWantWriteError
from threading import Lock
from time import monotonic


class TlsStream:
    """What `daemon.pdata` needs of a socket.

    Parameters
    ----------
    connection
        Hands are shaken; nobody else may receive or send on it. Its timeout is kept.
    """

    def __init__(self, connection: SSLSocket) -> None:
        self._connection = connection
        self._turn = Lock()
        self._seconds = connection.gettimeout()
        connection.settimeout(0)

    def settimeout(self, seconds: float | None) -> None:
        """How long receiving and sending may each wait for the network."""
        self._seconds = seconds

    def recv_into(self, buffer: memoryview) -> int:
        """Receive what is there, at least one byte; 0 at the end. Raises OSError, TimeoutError."""
        return self._in_turn(partial(self._connection.recv_into, buffer))

    def sendall(self, data: bytes) -> None:
        """Send all; raises OSError, TimeoutError."""
        left = memoryview(data)
        while left:
            left = left[self._in_turn(partial(self._connection.send, left)) :]

    def _in_turn(self, step: Callable[[], int]) -> int:
        until = None if self._seconds is None else monotonic() + self._seconds
        while True:
            try:
                with self._turn:
                    return step()
            except SSLWantReadError:
                events = select.POLLIN
            except SSLWantWriteError:
                events = select.POLLOUT
            self._wait(events, until)

    def _wait(self, events: int, until: float | None) -> None:
        waiting = select.poll()
        waiting.register(self._connection, events)
        left = None if until is None else max(0.0, until - monotonic()) * 1000
        if not waiting.poll(left):
            raise TimeoutError("the network was silent for too long")
