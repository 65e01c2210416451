"""Which file a database URL names."""

from pathlib import Path

_BACKENDS = ("sqlite", "sqlite+pysqlite")


def sqlite_file(url: str) -> Path:
    """Return the absolute path in a URL such as `sqlite:////var/lib/oarlock/oarlock.db`.

    Raises
    ------
    ValueError
        It names no such file; what is wrong is said without repeating it, as it may hold a password.
    """
    backend, separator, rest = url.partition("://")
    if not separator or not backend.isprintable() or not backend:
        raise ValueError("is no database URL such as sqlite:////var/lib/oarlock/oarlock.db")
    if backend not in _BACKENDS:
        raise ValueError(f"names a database of {backend}; the job table is a SQLite file")
    if not rest.startswith("//"):
        raise ValueError("needs the absolute path of a SQLite file after sqlite:///, so four slashes in all")
    if "?" in rest:
        raise ValueError("holds a question mark, but takes neither options nor a file of such a name")
    return Path(rest[1:])
