"""The configuration: one TOML file becomes one frozen, validated value, or all its problems at once."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from typing_extensions import TypeIs

from daemon.config_checks import Problem, contradictions, unwritable_folders
from daemon.config_source import Location, read_source
from daemon.config_values import (
    ANY,
    AETitle,
    AETitleOrAny,
    BindPort,
    DatabaseUrl,
    Host,
    HostOrNetwork,
    Port,
    Sha256,
    StructureName,
    covers,
)
from daemon.errors import ConfigError

# Nobody's plugin reads along; looking for some takes half as long as building the sections below.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "1"

MOST_SECONDS = 604_800
"""A week, for a series to arrive."""
MOST_DAYS = 36_500
"""A century: for ever, as far as anybody's files go."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse `true` where a number stands: `failed_days = true` would mean a day."""
        is_number = cls.model_fields[str(info.field_name)].annotation in {int, float}
        if is_number and isinstance(value, bool):
            raise ValueError(f"must be a number, found {str(value).lower()}")
        return value


def _anchored(path: Path, info: ValidationInfo) -> Path:
    """Return an absolute path; a relative one starts at the folder of the configuration file."""
    folder: Path = (info.context or {}).get("folder", Path.cwd())
    try:
        return folder / path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path} begins at the home of a user whom this machine does not know") from error


class Node(_Section):
    """The application entity that receives."""

    ae_title: AETitle = "OARLOCK"
    host: Host = "0.0.0.0"  # noqa: S104 -- a DICOM node that listens on loopback only receives nothing
    port: BindPort = 11112
    max_associations: int = Field(20, ge=1, le=1000)
    max_pdu_bytes: int = Field(131072, ge=4096, le=2**32 - 1)


class Storage(_Section):
    """The spool: everything received and produced, until retention removes it."""

    root: Path
    min_free_bytes: int = Field(5_000_000_000, ge=0)
    max_image_bytes: int = Field(134_217_728, ge=1_048_576)

    _absolute = field_validator("root")(_anchored)


class Database(_Section):
    """The job table: a SQLite file, where no URL is given `oarlock.db` in the storage folder."""

    url: DatabaseUrl


class Series(_Section):
    """When a series counts as complete, and whose word about its number of images is taken.

    `counted_quiet_seconds` is how long a series must be quiet of which somebody says that all is there; 0 lets no
    series start before `quiet_seconds`.
    """

    quiet_seconds: float = Field(60, ge=0, le=MOST_SECONDS)
    max_wait_seconds: float = Field(3600, gt=0, le=MOST_SECONDS)
    believed_counts: tuple[Literal["series", "acquisition"], ...] = ("series",)
    counted_quiet_seconds: float = Field(0, ge=0, le=MOST_SECONDS)
    when_images_missing: Literal["reject", "proceed"] = "reject"


class Model(_Section):
    """The network; no `bundle` means the one that ships with oarlock."""

    bundle: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(0, ge=0, le=1024)
    max_memory_bytes: int = Field(0, ge=0)

    @field_validator("bundle")
    @classmethod
    def _absolute(cls, bundle: Path | None, info: ValidationInfo) -> Path | None:
        return None if bundle is None else _anchored(bundle, info)


class Tls(_Section):
    """DICOM TLS, for peers that call us and for destinations with `tls`; without this section there is none."""

    certificate: Path
    key: Path
    authorities: Path | None = None
    port: BindPort = 2762
    only: bool = False
    require_peer_certificate: bool = True

    @field_validator("certificate", "key", "authorities")
    @classmethod
    def _absolute(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else _anchored(path, info)

    @model_validator(mode="after")
    def _somebody_vouches_for_peers(self) -> Self:
        if self.require_peer_certificate and not self.authorities:
            raise ValueError(
                "authorities is missing: who may sign the certificates that are required of peers"
            )
        return self


class Web(_Section):
    """The status page."""

    host: Host = "127.0.0.1"
    port: BindPort = 8042


class DeliverySettings(_Section):
    """How long a destination that does not take a structure set is tried again, or may take to commit it."""

    retry_for_hours: float = Field(48, ge=0, le=8760)
    commitment_minutes: float = Field(60, gt=0, le=43_200)


class Retention(_Section):
    """How long the files of a finished job are kept, and how long its row says whose it was; the row stays."""

    days: float = Field(30, gt=0, le=MOST_DAYS)
    failed_days: float = Field(0, ge=0, le=MOST_DAYS)
    identifiers_days: float = Field(365, gt=0, le=MOST_DAYS)


class Peer(_Section):
    """Who may send; no hosts means from any address.

    With `query` it is asked by C-FIND how many images a series has that it sends.
    """

    ae_title: AETitleOrAny
    hosts: tuple[HostOrNetwork, ...] = ()
    certificates_sha256: tuple[Sha256, ...] = ()
    max_associations: int = Field(1000, ge=1, le=1000)
    port: Port | None = None
    tls: bool = False
    query: bool = False

    @model_validator(mode="after")
    def _is_found_for_a_query(self) -> Self:
        if self.query and (
            self.ae_title == ANY or len(self.hosts) != 1 or "/" in self.hosts[0] or not self.port
        ):
            raise ValueError("query needs one AE title, one host that is no network, and its port")
        return self

    @model_validator(mode="after")
    def _pinned_is_pinned_both_ways(self) -> Self:
        if self.port and self.certificates_sha256 and not self.tls:
            raise ValueError(
                "tls = true is missing: a peer with certificates_sha256 is called back on its port by TLS alone"
            )
        return self

    def allows(self, ae_title: str, address: str, certificate_sha256: str = "") -> bool:
        """Whether an association from this title, IP address and certificate comes from this peer."""
        if self.ae_title not in {ANY, ae_title.strip(" ")}:
            return False
        if self.certificates_sha256 and certificate_sha256 not in self.certificates_sha256:
            return False
        return not self.hosts or any(covers(host, address) for host in self.hosts)


class Destination(_Section):
    """Where results are sent, how, which of them, and for which planning system they are written.

    With `commitment` nothing counts as delivered before the destination has taken responsibility for it.
    """

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]*$")
    ae_title: AETitle
    host: Host
    port: Port
    tls: bool = False
    certificate_sha256: Sha256 | None = None
    commitment: bool = False
    profile: Literal["generic", "eclipse", "raystation", "monaco", "pinnacle", "mim"] = "generic"
    objects: tuple[Literal["rtstruct", "seg", "secondary-capture", "pdf"], ...] = Field(
        ("rtstruct",), min_length=1
    )

    @model_validator(mode="after")
    def _pinned_is_by_tls(self) -> Self:
        if self.certificate_sha256 and not self.tls:
            raise ValueError("tls = true is missing: without it certificate_sha256 is never looked at")
        return self

    @property
    def pins(self) -> tuple[str, ...]:
        """SHA-256 of the certificate that is taken whoever signed it; none where an authority vouches for it."""
        return (self.certificate_sha256,) if self.certificate_sha256 else ()


class Route(_Section):
    """Which structures go where, by the two AE titles of the association; no structures means all 21.

    `template` names them in a file of their own instead, with site names, colours and derived structures.
    `doubtful` says what is done with results about which there is a doubt: "send" sends them whatever was found,
    as phantoms need it; "warn" marks those with a warning and holds those that contradict the image or anatomy;
    "hold" holds both. `qa_sheet` is drawn for every job and kept beside its results, for whoever must decide.
    """

    calling_ae_title: AETitleOrAny = ANY
    called_ae_title: AETitleOrAny = ANY
    destinations: tuple[str, ...]
    structures: tuple[StructureName, ...] = ()
    template: Path | None = None
    doubtful: Literal["send", "warn", "hold"] = "warn"
    qa_sheet: Literal["none", "png", "pdf"] = "png"

    @field_validator("template")
    @classmethod
    def _absolute(cls, template: Path | None, info: ValidationInfo) -> Path | None:
        return None if template is None else _anchored(template, info)

    @model_validator(mode="after")
    def _one_list_of_structures(self) -> Self:
        if self.structures and self.template:
            raise ValueError("structures and template both name structures; keep one of them")
        return self

    def matches(self, calling: str, called: str) -> bool:
        """Whether a series sent by `calling` to `called` takes this route."""
        return self.calling_ae_title in {ANY, calling} and self.called_ae_title in {ANY, called}


class Config(_Section):
    """The whole configuration."""

    node: Node = Node()
    storage: Storage
    database: Database = Field(
        default_factory=lambda valid: Database(url=f"sqlite:///{valid['storage'].root}/oarlock.db")
    )
    series: Series = Series()
    model: Model = Model()
    tls: Tls | None = None
    web: Web = Web()
    delivery: DeliverySettings = DeliverySettings()
    retention: Retention = Retention()
    peers: tuple[Peer, ...] = ()
    destinations: tuple[Destination, ...] = ()
    routes: tuple[Route, ...] = ()

    @property
    def ports(self) -> tuple[tuple[int, bool], ...]:
        """Ports on which DICOM is spoken, each with whether by TLS."""
        plain = () if self.tls and self.tls.only else ((self.node.port, False),)
        return (*plain, (self.tls.port, True)) if self.tls else plain

    @model_validator(mode="after")
    def _tls_has_its_section(self) -> Self:
        needing = [f'destination "{each.name}"' for each in self.destinations if each.tls]
        needing += [f'peer "{each.ae_title}"' for each in self.peers if each.certificates_sha256 or each.tls]
        if needing and self.tls is None:
            raise ValueError(f"[tls] is missing, which {', '.join(needing)} needs")
        return self

    @model_validator(mode="after")
    def _pinned_peers_are_asked_for_their_certificate(self) -> Self:
        pinned = [f'peer "{each.ae_title}"' for each in self.peers if each.certificates_sha256]
        pinned += [
            f'destination "{each.name}", which calls to report its commitment,'
            for each in self.destinations
            if each.commitment and each.certificate_sha256
        ]
        if pinned and self.tls and not self.tls.require_peer_certificate:
            raise ValueError(
                f"[tls] require_peer_certificate = false asks nobody for a certificate, so nobody could be "
                f"{', '.join(pinned)} with a certificate's SHA-256; set it to true"
            )
        return self

    @model_validator(mode="after")
    def _tls_has_a_port_of_its_own(self) -> Self:
        if self.tls and not self.tls.only and self.tls.port == self.node.port != 0:
            raise ValueError(
                f"[tls] port and [node] port are both {self.tls.port}; choose another, or set [tls] only"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _an_empty_database_section_means_the_default(cls, raw: object) -> object:
        if isinstance(raw, dict) and raw.get("database") == {}:
            return {key: value for key, value in raw.items() if key != "database"}
        return raw

    def route_for(self, calling: str, called: str) -> Route | None:
        """Return the first route that matches, in the order of the file."""
        calling, called = calling.strip(" "), called.strip(" ")
        return next((route for route in self.routes if route.matches(calling, called)), None)

    def destination(self, name: str) -> Destination | None:
        """Return the destination of that name."""
        return next((found for found in self.destinations if found.name == name), None)

    def peer_for(self, ae_title: str, address: str, certificate_sha256: str = "") -> Peer | None:
        """Return the configured peer that may send with this AE title, IP address and certificate.

        Who is configured by the title must be as it says there; `*` is for titles that nobody is configured by.
        """
        named = [peer for peer in self.peers if peer.ae_title == ae_title.strip(" ")]
        allowed = (peer for peer in named or self.peers if peer.allows(ae_title, address, certificate_sha256))
        return next(allowed, None)


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Read, override, validate and cross-check a configuration file.

    Parameters
    ----------
    path
        The TOML file; its relative paths start at its folder.
    environ
        `OARLOCK_<SECTION>__<KEY>` replaces a key of a section; other variables are not looked at.

    Raises
    ------
    ConfigError
        With every problem found, each with the line or the variable it stands in.
    """
    source = read_source(path, environ)
    folder = path.absolute().parent
    problems: list[Problem] = [
        (location, f"[{location[0]}] in the file is no section of single keys; write it there")
        for location in source.misplaced
    ]
    config = None
    try:
        config = Config.model_validate(source.values, context={"folder": folder})
    except ValidationError as error:
        problems += [_problem(details) for details in error.errors() if details["type"] not in _CONSEQUENCES]
    problems += [*contradictions(source.values), *unwritable_folders(source.values, folder)]
    if config is None or problems:
        problems.sort(key=lambda problem: source.line(problem[0]))
        raise ConfigError([f"{source.place(location)}: {text}" for location, text in problems])
    return config


_CONSEQUENCES = {"default_factory_not_called"}  # errors that another one caused


def _problem(details: ErrorDetails) -> Problem:
    """Return one of pydantic's errors in our words, without the value where it may be a secret."""
    location, text, found = details["loc"], details["msg"], details["input"]
    match details["type"]:
        case "extra_forbidden":
            return location, "unknown key" + _did_you_mean(location)
        case "missing":
            return location, "is missing"
        case "model_type":
            return location, "must be a table of keys"
        case "tuple_type":
            return location, "must be a list"
        case "value_error":
            return location, text.removeprefix("Value error, ")
    text = text.replace("Input should be", "must be").replace("String should", "must")
    shown = location[:1] != ("database",) and isinstance(found, str | int | float)
    return location, f"{text}, found {found!r}" if shown else text


def _did_you_mean(location: Location) -> str:
    """Return the nearest known key of the same table as a question, or the table's keys."""
    known: type[BaseModel] = Config
    for part in location[:-1]:
        if isinstance(part, str):
            annotation = known.model_fields[part].annotation
            known = next(model for model in (annotation, *get_args(annotation)) if _is_section(model))
    if near := get_close_matches(str(location[-1]), known.model_fields, n=1):
        return f'; did you mean "{near[0]}"?'
    return f"; known here: {', '.join(known.model_fields)}"


def _is_section(model: object) -> TypeIs[type[BaseModel]]:
    return isinstance(model, type) and issubclass(model, _Section)
