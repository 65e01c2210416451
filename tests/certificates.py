"""Certificates made for a test: an authority, and what it signs for a host on the loopback."""

import hashlib
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
RSA_KEY = ("-newkey", "rsa:2048")


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

    def __init__(self, folder: Path, name: str = "authority", days: int = 2) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.own = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
        _openssl(
            "req", "-x509", *EC_KEY, "-nodes", "-keyout", self.own.key, "-out", self.own.certificate,
            "-days", str(days), "-subj", f"/CN={name}",
        )  # fmt: skip

    def sign(
        self,
        name: str,
        host: str = "127.0.0.1",
        days: int = 2,
        key: Sequence[str] = EC_KEY,
        digest: str = "sha256",
        usage: str = "",
    ) -> Certificate:
        """Make a certificate for an IP address, expired for `days` below zero; `usage`: extended key usage."""
        made = Certificate(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        lines = [f"subjectAltName=IP:{host}", "basicConstraints=critical,CA:FALSE"]
        lines += [f"extendedKeyUsage={usage}"] if usage else []
        extensions.write_text("\n".join(lines))
        _openssl("req", "-new", *key, "-nodes", "-keyout", made.key, "-out", request, "-subj", f"/CN={name}")
        _openssl(
            "x509", "-req", "-in", request, "-out", made.certificate, "-days", str(days), f"-{digest}",
            "-CA", self.own.certificate, "-CAkey", self.own.key, "-CAcreateserial", "-extfile", extensions,
        )  # fmt: skip
        return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
