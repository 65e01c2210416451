"""The configuration as its file stands now: read again when the file changed, kept when the new one is wrong."""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock

import structlog

from daemon.config import Config, load_config
from daemon.errors import ConfigError

log = structlog.get_logger()


class ConfigFile:
    """A configuration that an administrator may edit while the worker runs.

    Destinations, routes and times are looked up here at each use;
    what a process builds at its start (folders, database, model) stays until its next start.

    Parameters
    ----------
    config
        What the file held when the process started.
    """

    def __init__(self, path: Path, environ: Mapping[str, str], config: Config) -> None:
        self._path = path
        self._environ = dict(environ)
        self._config = config
        self._seen = _stamp(path)
        self._lock = Lock()

    def current(self) -> Config:
        """Return the newest configuration that was valid; what is wrong with a newer one is logged once."""
        with self._lock:
            stamp = _stamp(self._path)
            if stamp != self._seen:
                self._seen = stamp
                self._reload()
            return self._config

    def _reload(self) -> None:
        try:
            self._config = load_config(self._path, self._environ)
        except ConfigError as error:
            for problem in error.problems:
                log.warning("configuration_refused", problem=problem, kept="the one before")
        else:
            log.info("configuration_read_again", path=str(self._path))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is edited in place or replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
