"""What an AE title, a host and a port may be, and which hosts a caller belongs to."""

import ipaddress
import re
import socket
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from daemon.database_url import sqlite_file
from model.structures import offered_structure

ANY = "*"


def _ae_title(title: str) -> str:
    """Return the title without its insignificant spaces (PS3.5 table 6.2-1, VR AE)."""
    title = title.strip(" ")
    if not title:
        msg = "is empty; an AE title has 1 to 16 characters"
        raise ValueError(msg)
    if len(title) > 16:
        msg = f'"{title}" has {len(title)} characters; an AE title has at most 16'
        raise ValueError(msg)
    if bad := sorted({repr(c) for c in title if c == "\\" or not " " <= c <= "~"}):
        msg = f"contains {', '.join(bad)}; an AE title is ASCII without backslash and control characters"
        raise ValueError(msg)
    return title


def _ae_title_or_any(title: str) -> str:
    return ANY if title.strip(" ") == ANY else _ae_title(title)


def _host(host: str) -> str:
    """Return an IPv4 or IPv6 address or a host name (RFC 1123; underscores as seen in hospitals)."""
    host = host.strip()
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        label = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
        numeric = re.fullmatch(r"[0-9.]+", host)
        if numeric or len(host) > 253 or not re.fullmatch(rf"{label}(\.{label})*\.?", host):
            msg = f'"{host}" is neither an IP address nor a host name'
            raise ValueError(msg) from None
        return host


def _host_or_network(host: str) -> str:
    if "/" not in host:
        return _host(host)
    try:
        return str(ipaddress.ip_network(host.strip()))
    except ValueError as error:
        msg = f'"{host}" is not a network such as "10.20.0.0/16": {error}'
        raise ValueError(msg) from None


def _database_url(url: str) -> str:
    sqlite_file(url)
    return url


def _structure_name(name: str) -> str:
    return offered_structure(name).name


AETitle = Annotated[str, AfterValidator(_ae_title)]
AETitleOrAny = Annotated[str, AfterValidator(_ae_title_or_any)]
Host = Annotated[str, AfterValidator(_host)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
HostOrNetwork = Annotated[str, AfterValidator(_host_or_network)]
Sha256 = Annotated[
    str,
    BeforeValidator(lambda text: text.replace(":", "").lower() if isinstance(text, str) else text),
    Field(pattern=r"^[0-9a-f]{64}$"),
]
"""A certificate's SHA-256 fingerprint as `openssl x509 -fingerprint -sha256` prints it, colons or not."""

StructureName = Annotated[str, AfterValidator(_structure_name)]
BindPort = Annotated[int, Field(ge=0, le=65535)]  # 0 lets the system choose a free one
Port = Annotated[int, Field(ge=1, le=65535)]


def covers(host: str, address: str) -> bool:
    """Whether an address, network or name from the configuration includes the caller's IP address."""
    caller = _plain(address)
    if caller is None:
        return False
    try:
        return caller in ipaddress.ip_network(host)
    except ValueError:
        return caller in _resolve(host)


def is_known(host: str) -> bool:
    """Whether it is an address or network, or a name that has an address now; else it lets nobody in."""
    return "/" in host or bool(_resolve(host))


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address; an IPv4 caller on a dual-stack socket arrives as ::ffff:a.b.c.d."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _resolve(name: str) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address | None]:
    """Return the addresses of a host name now; none when it does not resolve, so nobody gets in by it."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {_plain(str(sockaddr[0])) for *_, sockaddr in found}
