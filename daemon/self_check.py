"""`oarlock check`: everything a running node needs, tried out and told as one list of findings."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from daemon.check_finding import Finding, Verdict, good, note, wrong
from daemon.config import Config, Destination, Route, load_config
from daemon.config_values import ANY, is_known
from daemon.database_url import sqlite_file
from daemon.delivery import echo
from daemon.errors import ConfigError, StorageFull
from daemon.job_queue_looking import head_revision, schema_revision, what_to_do
from daemon.port_check import port_findings
from daemon.roles import lost_table
from daemon.tables import safe
from daemon.template_file import template_for
from daemon.tls_check import tls_findings
from model.errors import BundleError

_MARKS = {Verdict.GOOD: ("✓", "green"), Verdict.NOTE: ("–", "yellow"), Verdict.WRONG: ("✗", "bold red")}


def check_all(path: Path, environ: Mapping[str, str]) -> tuple[Table, bool]:
    """Return a table of all findings and whether nothing is wrong."""
    table = Table("", "What", "Found", box=None, pad_edge=False, header_style="bold")
    verdicts = set()
    for finding in findings(path, environ):
        mark, colour = _MARKS[finding.verdict]
        table.add_row(Text(mark, style=colour), safe(finding.subject), safe(finding.detail))
        verdicts.add(finding.verdict)
    return table, Verdict.WRONG not in verdicts


def findings(path: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Load the configuration and try everything it says; without a valid one there is nothing to try."""
    try:
        config = load_config(path, environ)
    except ConfigError as error:
        yield from (wrong("configuration", f"{path}: {problem}") for problem in error.problems)
        return
    yield good("configuration", str(path))
    yield from node_findings(config)


def node_findings(config: Config) -> Iterator[Finding]:
    """Try everything; each finding comes as soon as it is known."""
    yield from _who_may_send(config)
    yield from _where_it_goes(config)
    yield _account(config)
    yield _storage(config)
    yield _free_space(config)
    yield _job_table(config)
    yield from port_findings(config)
    yield from tls_findings(config, datetime.now(UTC))
    yield from _network_and_device(config)
    yield from _destinations(config)


def _who_may_send(config: Config) -> Iterator[Finding]:
    if not config.peers:
        yield wrong("peers", "nobody may send: name the scanners in [[peers]]")
    for peer in config.peers:
        subject = f"peer {peer.ae_title}"
        unknown = [host for host in peer.hosts if not is_known(host)]
        if unknown:
            yield wrong(subject, f"{', '.join(unknown)} does not resolve, so it lets nobody in")
        elif config.routes and not any(_is_for(route, peer.ae_title) for route in config.routes):
            yield wrong(subject, "no route is for it: what it sends is stored and then rejected as no-route")
        else:
            yield good(subject, f"from {', '.join(peer.hosts) or 'any address'}")


def _where_it_goes(config: Config) -> Iterator[Finding]:
    if not config.routes:
        yield wrong("routes", "structure sets go nowhere: add [[routes]] and [[destinations]]")
    for number, route in enumerate(config.routes, start=1):
        subject = f"route {number}"
        pair = f"{route.calling_ae_title} → {route.called_ae_title}"
        hidden_by = next(
            (n for n, one in enumerate(config.routes[: number - 1], 1) if _hides(one, route)), None
        )
        if not route.destinations:
            yield wrong(subject, f"{pair} names no destination")
        elif hidden_by:
            yield wrong(subject, f"{pair} is never taken: route {hidden_by} before it matches all of it")
        elif config.peers and not any(_is_for(route, peer.ae_title) for peer in config.peers):
            yield wrong(subject, f"{pair} is never taken: no peer has this AE title")
        else:
            yield _what_is_sent(subject, pair, route)
    used = {name for route in config.routes for name in route.destinations}
    for destination in config.destinations:
        if destination.name not in used:
            yield note(f"destination {destination.name}", "no route names it")


def _is_for(route: Route, ae_title: str) -> bool:
    return ANY in {route.calling_ae_title, ae_title} or route.calling_ae_title == ae_title


def _what_is_sent(subject: str, pair: str, route: Route) -> Finding:
    try:
        template = template_for(route)
    except ConfigError as error:
        return wrong(subject, f"{pair}: {'; '.join(error.problems)}")
    sent = f"{len(template.structures)} structures to {', '.join(route.destinations)}"
    return good(subject, f"{pair}: {sent}")


def _hides(earlier: Route, later: Route) -> bool:
    return earlier.calling_ae_title in {ANY, later.calling_ae_title} and earlier.called_ae_title in {
        ANY,
        later.called_ae_title,
    }


def _account(config: Config) -> Finding:
    """Tell an administrator who runs this as root that the service's own rights were not tried."""
    root = config.storage.root
    owner = root.stat().st_uid if root.is_dir() else os.geteuid()
    if owner == os.geteuid():
        return good("account", f"user {owner} owns the storage")
    return note("account", "the storage belongs to another user; try as it: sudo -u oarlock oarlock check")


def _storage(config: Config) -> Finding:
    root = config.storage.root
    if not root.is_dir():
        return note("storage", f"{root} does not exist yet; the first start creates it")
    try:
        with tempfile.NamedTemporaryFile(dir=root) as probe:
            probe.write(b"oarlock")
            os.fsync(probe.fileno())
    except OSError as error:
        return wrong("storage", f"{root} cannot be written: {error.strerror}")
    if root.stat().st_mode & 0o077:
        return note("storage", f"{root} can be written, but others may look into it: chmod 700")
    return good("storage", f"{root} can be written")


def _free_space(config: Config) -> Finding:
    folder = config.storage.root
    while not folder.exists():
        folder = folder.parent
    file_system = os.statvfs(folder)
    free, least = file_system.f_bavail * file_system.f_frsize, config.storage.min_free_bytes
    words = f"{free / 1e9:.1f} GB free, {least / 1e9:.1f} GB are kept free"
    return good("space", words) if free >= least else wrong("space", f"{words}: new images are refused")


def _job_table(config: Config) -> Finding:
    file = sqlite_file(config.database.url)
    if lost := lost_table(config):
        return wrong("job table", lost)
    if not file.exists():
        return note("job table", f"{file} does not exist yet; the first start creates it")
    try:
        revision = schema_revision(config.database.url)
    except (StorageFull, sqlite3.Error) as error:
        return wrong("job table", f"{file} cannot be read: {error}")
    if revision == head_revision():
        return good("job table", f"{file}, schema {revision}")
    return wrong(
        "job table", f"{file} has schema {revision}, this version {head_revision()}; {what_to_do(revision)}"
    )


def _network_and_device(config: Config) -> Iterator[Finding]:
    import torch

    from model.bundle import DEFAULT_BUNDLE, Bundle
    from model.segmenter import Segmenter

    try:
        bundle = Bundle.load(config.model.bundle or DEFAULT_BUNDLE)
    except BundleError as error:
        yield wrong("model", str(error))
        return
    organs = len(bundle.structure_names)
    yield good("model", f"{bundle.name} {bundle.version}, {organs} structures, digest {bundle.digest[:12]}")
    wanted = {name for route in config.routes for name in _organs_of(route)}
    if missing := sorted(wanted.difference(bundle.structure_names)):
        yield wrong("model", f"routes name structures that this model does not have: {', '.join(missing)}")
    try:
        segmenter = Segmenter(bundle, config.model.device, config.model.threads)
    except BundleError as error:
        yield wrong("device", str(error))
        return
    is_gpu = segmenter.device.type == "cuda"
    where = torch.cuda.get_device_name(segmenter.device) if is_gpu else f"{torch.get_num_threads()} threads"
    yield good("device", f"{segmenter.device.type}, {where}, {segmenter.precision}")
    if not is_gpu and segmenter.precision == "float32":
        yield note(
            "device", "this processor has neither AMX nor AVX-512 BF16, which make the network much faster"
        )


def _organs_of(route: Route) -> tuple[str, ...]:
    """Organs that a route asks for by name; none where its template has problems, which are told elsewhere."""
    if not route.structures and not route.template:
        return ()
    try:
        return template_for(route).organs
    except ConfigError:
        return ()


def _destinations(config: Config) -> Iterator[Finding]:
    """C-ECHO to all at once, so that several dead hosts cost no more than one."""
    if not config.destinations:
        return
    calling = config.node.ae_title
    with ThreadPoolExecutor(max_workers=len(config.destinations)) as pool:
        for destination, outcome in zip(
            config.destinations,
            pool.map(lambda each: echo(each, calling, tls=config.tls), config.destinations),
            strict=True,
        ):
            subject, where = f"destination {destination.name}", address(destination)
            if outcome.sent:
                yield good(subject, f"{where} answers")
            else:
                yield wrong(subject, f"{where}: {outcome.kind}: {outcome.detail}")


def address(destination: Destination) -> str:
    """Return AE title, host and port as people write them."""
    return f"{destination.ae_title}@{destination.host}:{destination.port}"
