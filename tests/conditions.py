"""Waiting for what must happen, and ports where it can."""

import socket
import threading
import time
from collections.abc import Callable

import pytest

LIMIT_SECONDS = 30.0
"""How long any condition is waited for; generous, as the machine may be busy."""


def wait_until(
    condition: Callable[[], object], what: str = "a condition", limit: float = LIMIT_SECONDS
) -> None:
    """Return as soon as the condition is true; fail with its name after the limit."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {limit:g} s in vain for {what}")
        threading.Event().wait(0.01)


def free_port() -> int:
    """Return a TCP port on which nothing listens at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts_tcp(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
