"""What `oarlock check` says of TLS: certificates as a peer would judge them, and who can read the key."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from daemon.check_finding import Finding, good, note, wrong
from daemon.config import Config, Tls
from daemon.errors import CannotStart
from daemon.tls import server_context

EXPIRES_SOON = timedelta(days=30)
"""In a hospital a new certificate takes weeks."""


def tls_findings(config: Config, now: datetime) -> Iterator[Finding]:
    """Load the files and shake hands with ourselves, as server and as client."""
    tls = config.tls
    if tls is None:
        yield note("TLS", "no [tls]: whoever can listen on the network can read names and images")
        return
    try:
        server_context(tls)
    except CannotStart as error:
        yield wrong("TLS", str(error))
        return
    yield _key(tls.key)
    yield _own_certificate(tls, now)
    if tls.authorities:
        yield from _authorities(tls.authorities, now)
    if not tls.only:
        yield note("TLS", f"the port without TLS ({config.node.port}) is open as well; only = true closes it")
    if not tls.require_peer_certificate:
        yield note("TLS", "peers need no certificate: who they are rests on AE title and address alone")
    for destination in config.destinations:
        if not destination.tls:
            yield note(f"destination {destination.name}", "is sent structure sets without TLS")


def _key(path: Path) -> Finding:
    mode = path.stat().st_mode & 0o777
    if mode & 0o007:
        return wrong("TLS key", f"{path} has mode {mode:o}: every user can read it; chmod 600, and renew it")
    return good("TLS key", f"{path}, mode {mode:o}")


def _own_certificate(tls: Tls, now: datetime) -> Finding:
    try:
        shown = _as_peers_see_it(tls)
    except ssl.SSLCertVerificationError as error:
        return wrong("TLS certificate", f"{tls.certificate}: {error.verify_message}: peers will refuse it")
    except ssl.SSLError as error:
        return wrong("TLS certificate", f"{tls.certificate}: {error.reason}: peers will refuse it")
    return _validity("TLS certificate", tls.certificate, shown["notAfter"], now)


def _authorities(path: Path, now: datetime) -> Iterator[Finding]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(path)
    found: list[Any] = context.get_ca_certs()
    if not found:
        yield wrong("TLS authorities", f"{path} holds no certificate of an authority")
    for each in found:
        name = ", ".join(f"{key}={value}" for part in each["subject"] for key, value in part)
        yield _validity("TLS authority", name, str(each["notAfter"]), now)


def _validity(subject: str, what: object, not_after: str, now: datetime) -> Finding:
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(not_after), UTC)
    words = f"{what}, valid until {ends:%Y-%m-%d}"
    if ends <= now:
        return wrong(subject, f"{words}: has expired")
    if ends - now < EXPIRES_SOON:
        return note(subject, f"{words}: {(ends - now).days} days left, renew it")
    return good(subject, words)


def _as_peers_see_it(tls: Tls) -> dict[str, Any]:
    """Shake hands with ourselves in memory, both sides showing our certificate and trusting nothing else.

    Raises
    ------
    ssl.SSLError
        A peer would not take the certificate, whoever signed it: expired, a weak key, of no use for TLS.
    """
    server, client = server_context(tls), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_cert_chain(tls.certificate, tls.key, password="")
    for context in (server, client):
        context.load_verify_locations(tls.certificate)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_mode = ssl.CERT_REQUIRED
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(down, up),
        server.wrap_bio(up, down, server_side=True),
    ]
    while pending := [side for side in sides if not _is_done(side)]:
        sides = pending
    return dict(sides[-1].getpeercert() or {})


def _is_done(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
