"""DICOM TLS by the BCP 195 RFC 8996, 9325 profile (PS3.15 section B.12): TLS 1.2 and 1.3, nothing older."""

import hashlib
import ssl
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from daemon.config import Tls
from daemon.errors import CannotStart

_SUITES = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20"
"""RFC 9325 section 4.2: forward secrecy and authenticated encryption; TLS 1.3 has no others.

Level 2 refuses keys of less than 112 bits of security, as RSA below 2048 bits, and signatures by SHA-1 or MD5
(RFC 9325 sections 4.5 and 4.6), also where the system's own default is lower.
DHE, which the older profiles B.9 to B.11 name beside ECDHE, is left out by the advice of RFC 9325 section 4.2.
"""


class CertificateNotPinned(ssl.SSLError):
    """The certificate is not the one that the configuration names."""


def server_context(tls: Tls) -> ssl.SSLContext:
    """For peers that call us; raises CannotStart where a file cannot be used."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, tls)
    # A certificate that nobody asked for cannot be pinned.
    context.verify_mode = ssl.CERT_REQUIRED if tls.require_peer_certificate else ssl.CERT_NONE
    return context


def client_context(tls: Tls, pins: Collection[str], failed: Callable[[str], None]) -> ssl.SSLContext:
    """For a node that we call; raises CannotStart where a file cannot be used.

    Its certificate must name its host and be signed by one of our authorities; or it must be one of those that
    the configuration names, whoever signed it and whatever it says.

    Parameters
    ----------
    pins
        SHA-256 of each certificate that the configuration names.
    failed
        Called with the reason when no TLS comes about; pynetdicom keeps it to itself.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, tls)
    if pins:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.sslsocket_class = _checking(pins, failed)
    return context


def fingerprint(connection: object) -> str:
    """SHA-256 of the peer's certificate in hexadecimal; empty without TLS or without a certificate."""
    if not isinstance(connection, ssl.SSLSocket):
        return ""
    certificate = connection.getpeercert(binary_form=True)
    return hashlib.sha256(certificate).hexdigest() if certificate else ""


def handshake_words(error: OSError) -> str:
    """Return what is wrong with the peer's certificate, or OpenSSL's reason, which can be looked up."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if reason := getattr(error, "reason", None):  # those that OpenSSL found have one
        return str(reason).lower().replace("_", " ")
    return error.strerror or type(error).__name__


def _checking(pins: Collection[str], failed: Callable[[str], None]) -> type[ssl.SSLSocket]:
    class CheckingSocket(ssl.SSLSocket):
        """Ends the handshake before a byte is sent where the certificate is not the pinned one."""

        def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 -- as in the base class
            try:
                super().do_handshake(block)
                if pins and (found := fingerprint(self)) not in pins:
                    raise CertificateNotPinned(
                        ssl.SSL_ERROR_SSL,
                        f"its certificate has the SHA-256 {found}, not {' or '.join(pins)}",
                    )
            except OSError as error:  # SSLError is one; a peer without TLS may just close the connection
                failed(handshake_words(error))
                raise

    return CheckingSocket


def _context(protocol: Any, tls: Tls) -> ssl.SSLContext:  # noqa: ANN401 -- an int enum of the ssl module
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    try:
        # An empty password, as OpenSSL would ask a terminal for one.
        context.load_cert_chain(tls.certificate, tls.key, password="")
        if tls.authorities:
            context.load_verify_locations(tls.authorities)
    except (OSError, ssl.SSLError) as error:
        raise CannotStart(f"TLS cannot be set up: {_unusable(tls, error)}") from error
    return context


def _unusable(tls: Tls, error: Exception) -> str:
    for path in filter(None, (tls.certificate, tls.key, tls.authorities)):
        if problem := _unreadable(path):
            return problem
    return f"{tls.certificate}, {tls.key}: {error}; needed are a PEM certificate and its own, unencrypted key"


def _unreadable(path: Path) -> str:
    try:
        path.read_bytes()
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""
