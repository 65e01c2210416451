"""The roles built from their parts: what `oarlock listen`, `work` and `serve` run."""

import gc
import os
import random
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from daemon.config import Config
from daemon.config_values import is_known
from daemon.database_url import sqlite_file
from daemon.errors import CannotStart
from daemon.listener_lock import alone
from daemon.service import run

if TYPE_CHECKING:
    from daemon.recovery import Recovery
    from daemon.spool import Spool

log = structlog.get_logger()

LISTENER_TICK_SECONDS = 0.25
WORKER_TICK_SECONDS = 1.0
SUPERVISOR_TICK_SECONDS = 0.2


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def listen(config: Config) -> None:
    """Receive until asked to stop."""
    with _uncollected():
        from daemon.clock_watch import ClockWatch
        from daemon.commitment_reports import CommitmentReports
        from daemon.commitments import Commitments
        from daemon.completeness import Completeness
        from daemon.delivery_setback import Setbacks
        from daemon.evidence import EvidenceGatherer
        from daemon.job_queue import open_queue
        from daemon.listener import Listener
        from daemon.reception import Reception
        from daemon.series_query import SeriesQuery

    callers = {host for peer in config.peers for host in peer.hosts}
    callers |= {each.host for each in config.destinations if each.commitment}  # they come with their reports
    for host in sorted(host for host in callers if not is_known(host)):
        log.warning("peer_host_unknown", host=host, consequence="nobody is let in by this name")
    spool = _prepared_spool(config)
    with alone(config.storage.root), closing(open_queue(config.database.url, utc_now)) as queue:
        queue.cut_times()
        if tidied := spool.reconcile(queue.instance_uids):
            log.warning("spool_tidied", files=len(tidied), kept_in="unclaimed, but for what was half-written")
        query = SeriesQuery(config)
        evidence = EvidenceGatherer(queue, spool, config.series, query.ask, query.is_asked, utc_now)
        watch = ClockWatch(utc_now)
        completeness = Completeness(queue, config.series, utc_now, watch, evidence.about, evidence.forget)
        reception = Reception(queue, spool, completeness, config.storage.max_image_bytes)
        commitments = Commitments(queue, spool, utc_now)
        setbacks = Setbacks(queue, lambda: config, utc_now, random.random)
        reports = CommitmentReports(queue, setbacks)
        run(Listener(config, reception, completeness, commitments, reports), LISTENER_TICK_SECONDS)


def work(config: Config, path: Path) -> None:
    """Contour and deliver until asked to stop; raises BundleError where the model cannot be used."""
    with _uncollected():
        from daemon.config_file import ConfigFile
        from daemon.job_queue import open_queue
        from daemon.worker import Worker
        from model.bundle import DEFAULT_BUNDLE, Bundle
        from model.segmenter import Segmenter

    bundle = Bundle.load(config.model.bundle or DEFAULT_BUNDLE)
    segmenter = Segmenter(bundle, config.model.device, config.model.threads, config.model.max_memory_bytes)
    log.info(
        "model_loaded",
        model=bundle.name,
        model_version=bundle.version,
        digest=bundle.digest,
        device=str(segmenter.device),
        precision=segmenter.precision,
    )
    spool = _prepared_spool(config)
    settings = ConfigFile(path, os.environ, config)
    with closing(open_queue(config.database.url, utc_now)) as queue:
        run(Worker(queue, spool, segmenter, settings.current, utc_now), WORKER_TICK_SECONDS)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Load modules without looking for garbage among what they make, which takes a tenth of a start; nor later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def serve(path: Path) -> None:
    """Run listener and worker as children until asked to stop; raises CannotStart where one cannot."""
    from daemon.supervisor import Child, Supervisor

    children = [
        Child(role, [sys.executable, "-m", "daemon", role, "--config", str(path.absolute())])
        for role in ("listen", "work")
    ]
    run(Supervisor(children), SUPERVISOR_TICK_SECONDS)


def recover(config: Config, progress: Callable[[int, int], None]) -> "Recovery":
    """Rebuild a job table that is not there from the spool; raises CannotStart where there is one.

    It has its name once it is whole: one that was cut off is begun anew, and no role works with half of it.
    """
    from daemon.job_queue import open_queue
    from daemon.recovery import recover as rebuild
    from daemon.spool import Spool
    from daemon.spool_files import sync_folder

    file = sqlite_file(config.database.url)
    if file.exists():
        raise CannotStart(
            f"{file} exists, and only a missing job table is rebuilt: move it aside with its -wal and -shm, "
            "then repeat this"
        )
    _refuse_other_users(config.storage.root)
    spool = Spool(config.storage.root, config.storage.min_free_bytes)
    unfinished = file.with_name(f"{file.name}.unfinished")
    with alone(config.storage.root):
        _remove_all(unfinished)
        with closing(open_queue(f"sqlite:///{unfinished}", utc_now)) as queue:
            found = rebuild(queue, spool, config, progress)
        unfinished.rename(file)
        sync_folder(file.parent)
        _remove_all(unfinished)
    return found


def _remove_all(table: Path) -> None:
    """Remove a table, and its journal and lock, wherever they are there."""
    for path in table.parent.glob(f"{table.name}*"):
        path.unlink()


def _prepared_spool(config: Config) -> "Spool":
    """The spool, ready for use.

    Beside jobs on disk no new table is begun: it would know none of them, and give their numbers away again.
    """
    from daemon.spool import Spool

    spool = Spool(config.storage.root, config.storage.min_free_bytes)
    spool.prepare()
    if lost := lost_table(config):
        raise CannotStart(lost)
    return spool


def lost_table(config: Config) -> str:
    """What to do where jobs lie in the spool and no table knows them; empty where that is not so."""
    from daemon.spool import Spool

    file = sqlite_file(config.database.url)
    jobs = Spool(config.storage.root, config.storage.min_free_bytes).job_numbers()
    if not jobs or _is_begun(config.database.url):
        return ""
    how = "is empty" if file.exists() else "is gone"
    aside = "move it aside, then " if file.exists() else ""
    return (
        f"{file} {how}, but {len(jobs)} jobs lie in {config.storage.root / 'jobs'}: "
        f"{aside}run `oarlock recover`, or put back a copy"
    )


def _is_begun(url: str) -> bool:
    """Whether there is a job table, were it a damaged one, which is told as such when it is opened."""
    from daemon.job_queue_looking import schema_revision

    try:
        return schema_revision(url) is not None
    except sqlite3.Error:
        return True


def _refuse_other_users(root: Path) -> None:
    """Make no file that the services, which are another user, could not open."""
    if (owner := root.stat().st_uid) != os.geteuid():
        raise CannotStart(f"{root} belongs to another user; do this as it: sudo -u '#{owner}' oarlock …")
