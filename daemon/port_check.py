"""Whether the listener has its ports or could have them, for `oarlock check`."""

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

from daemon.check_finding import Finding, good, note, wrong
from daemon.config import Config
from daemon.listener_lock import is_held


def port_findings(config: Config) -> Iterator[Finding]:
    """Try to bind every port on which DICOM is spoken, without listening."""
    for port, _ in config.ports:
        yield _finding(config.node.host, port, config.storage.root)


def _finding(host: str, port: int, root: Path) -> Finding:
    subject = f"port {port}"
    try:
        _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and is_held(root):
            return good(subject, "taken, and the listener runs")
        if error.errno == errno.EADDRINUSE:
            return wrong(subject, f"another program has it; which, tells: ss -ltnp 'sport = :{port}'")
        if error.errno == errno.EACCES:
            return note(
                subject, "takes a privilege, which the service must be given: docs/install.md, Port 104"
            )
        return wrong(subject, f"cannot be bound on {host}: {error.strerror}")
    return good(subject, f"free on {host}")


def _bind(host: str, port: int) -> None:
    """Bind as the listener does, so that a port counts as free whose last connections are still ending."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
