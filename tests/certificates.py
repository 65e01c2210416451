"""Certificates made for a test: an authority, and what it signs for a host on the loopback."""

import hashlib
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """PEM files of a certificate and its key."""

    certificate: Path
    key: Path

    @property
    def sha256(self) -> str:
        """Fingerprint in hexadecimal."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()


class Authority:
    """Signs certificates; needs the `openssl` command."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.own = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
        _openssl(
            "req", "-x509", *_NEW_KEY, "-keyout", self.own.key, "-out", self.own.certificate,
            "-days", "2", "-subj", f"/CN={name}",
        )  # fmt: skip

    def sign(self, name: str, host: str = "127.0.0.1", days: int = 2) -> Certificate:
        """Make a certificate for an IP address."""
        made = Certificate(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        _openssl(
            "req", "-x509", *_NEW_KEY, "-keyout", made.key, "-out", made.certificate, "-days", str(days),
            "-subj", f"/CN={name}", "-CA", self.own.certificate, "-CAkey", self.own.key,
            "-addext", f"subjectAltName=IP:{host}", "-addext", "basicConstraints=critical,CA:FALSE",
        )  # fmt: skip
        return made


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
