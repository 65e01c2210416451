"""The configuration with its environment, a site's structure template, and one that Eclipse has exported."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from structlog.testing import capture_logs

from daemon.config import load_config
from daemon.config_file import ConfigFile
from daemon.eclipse_template import as_toml, read_eclipse_template
from daemon.errors import ConfigError
from daemon.template_file import load_template, template_for
from tests.fuzz.damage import TEXTS
from tests.fuzz.oracle import Broken, require_typed
from tests.fuzz.target import Change, FuzzOne, Target
from tests.paths import REPOSITORY

_CONFIG, _ENVIRONMENT, _TEMPLATE, _ECLIPSE = b"C", b"V", b"T", b"E"

_WORDS: tuple[bytes, ...] = (
    *(b"0", b"-1", b"65536", b"1e999", b"nan", b"inf", b"0x7fffffffffffffffffff", b"9" * 5000, b"1_0.5e-400"),
    *(
        b"true",
        b'""',
        b"''",
        b'"*"',
        b"[]",
        b"{}",
        b"[[]]",
        b"2024-02-30",
        b"1979-05-27T07:32:00Z",
        b"00:60:00",
    ),
    *(
        b'"' + b"A" * 17 + b'"',
        b'"A\\u0000B"',
        b'"\\ud800"',
        b'"\\U00110000"',
        b'"~nobody/x"',
        b'"/proc/self/mem"',
    ),
    *(
        b'"sqlite:///"',
        b'"sqlite:////tmp/\\u0000"',
        b'"postgresql://u:p@h:port/d"',
        b'"http://[::1"',
        b'"10.0.0.0/99"',
    ),
    *(b'"fe80::1%eth0"', b'"Parotid_L"', b'"#12345\\u00e9"', b"[1, 2]", b"[256, -1, 0]", b'"""\n', b"'''"),
    b"[" * 5000,
    b"{a=" * 3000,
    b"a." * 5000 + b"a",
)
_SAMPLE = b"""\
[node]
ae_title = "OARLOCK"
host = "0.0.0.0"
port = 11112
max_associations = 20
[storage]
root = "spool"
min_free_bytes = 0
[database]
url = "sqlite:////tmp/oarlock.db"
[series]
quiet_seconds = 60
[model]
device = "cpu"
bundle = "bundle"
[tls]
certificate = "node.crt"
key = "node.key"
authorities = "all.crt"
[[peers]]
ae_title = "CT1"
hosts = ["10.1.2.3", "10.20.0.0/16", "ct.example.org"]
[[destinations]]
name = "tps"
ae_title = "ECLIPSE"
host = "10.1.2.4"
port = 104
tls = true
certificate_sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
profile = "eclipse"
objects = ["rtstruct", "seg"]
[[routes]]
calling_ae_title = "*"
destinations = ["tps"]
structures = ["Brain", "Parotid_L"]
doubtful = "hold"
"""
_VARIABLES = b"""\
OARLOCK_NODE__PORT=104
OARLOCK_NODE__AE_TITLE=NODE
OARLOCK_STORAGE__ROOT=spool
OARLOCK_PEERS__AE_TITLE=X
OARLOCK_TLS__ONLY=true
HOME=/nowhere
"""
_SITE = b"""\
name = "Head and neck"
[[structures]]
organ = "Brain"
name = "Hirn"
synonyms = ["Gehirn"]
colour = "#ffec00"
[[structures]]
organ = "SpinalCord"
code = { value = "CORD", scheme = "99VMS_STRUCTCODE", meaning = "Spinal cord" }
[[structures]]
name = "Cord_PRV"
margin = { of = "SpinalCord", mm = 5 }
type = "AVOIDANCE"
[[structures]]
name = "Rest"
subtract = { from = "Hirn", what = ["Cord_PRV"] }
[[structures]]
name = "Both"
union = ["Hirn", "SpinalCord"]
colour = [1, 2, 3]
[[structures]]
name = "Cut"
crop = { of = "Hirn", away_from = ["SpinalCord"], mm = 2.5 }
"""
_EXPORTED = b"""\
<?xml version="1.0" encoding="UTF-8"?>
<StructureTemplate Version="1.2"><Preview ID="HN" Type="Structure"/><Structures>
<Structure ID="Parotis li" Name="Parotis li"><Identification><VolumeID/><VolumeType>Organ</VolumeType>
<StructureCode Code="59798" CodeScheme="FMA" CodeSchemeVersion="3.2"/></Identification>
<TypeIndex>2</TypeIndex><ColorAndStyle>RGB255  7  0</ColorAndStyle></Structure>
<Structure ID="BRAIN" Name="BRAIN"><Identification><VolumeType>Avoidance</VolumeType></Identification>
<ColorAndStyle>Yellow</ColorAndStyle></Structure>
<Structure ID="SpinalCord"><Identification><VolumeType>Organ</VolumeType>
<StructureCode Code="CORD" CodeScheme="99VMS_STRUCTCODE"/></Identification></Structure>
<Structure ID="PTV"><Identification><VolumeType>PTV</VolumeType></Identification></Structure>
</Structures></StructureTemplate>
"""
_MARKUP: tuple[bytes, ...] = (
    *(
        b"&#10;",
        b"&#127;",
        b"&#x1b;",
        b"&quot;",
        b"&#xD800;",
        b"&a;",
        b"<!DOCTYPE a [",
        b"<!ENTITY b 'c'>",
        b"<![CDATA[",
        b"]]>",
    ),
    *(
        b'encoding="UTF-16"',
        b'encoding="UTF-7"',
        b'encoding="no such"',
        b"RGB 999 1 1",
        b"RGB  1",
        b"\x7f",
        b"\n",
        b'"""',
        b"\xff",
    ),
    b"<a>" * 5000,
    b"<Structures><Structure/></Structures>",
)


def seeds() -> list[bytes]:
    """The annotated configuration, one that uses nearly every key, a template, and one of Eclipse."""
    shipped = (REPOSITORY / "systemd" / "oarlock.toml").read_bytes()
    uncommented = re.sub(rb"(?m)^# (?=[a-z_]+ = |\[)", b"", shipped)
    return [
        _CONFIG + _SAMPLE,
        _CONFIG + shipped,
        _CONFIG + uncommented,
        _ENVIRONMENT + _VARIABLES,
        _TEMPLATE + _SITE,
        _ECLIPSE + _EXPORTED,
    ]


def mutate(data: bytes, rng: Random, change: Change) -> bytes:
    """Damage lines, values or bytes; what is read from it stays the same kind of file."""
    kind, text = data[:1], data[1:]
    words = _MARKUP if kind == _ECLIPSE else _WORDS
    lines = text.splitlines(keepends=True)
    way = rng.randrange(8)
    if not lines or way == 0:
        return kind + change(text)
    at = rng.randrange(len(lines))
    if way == 1:
        lines[at] = b""
    elif way == 2:
        lines.insert(rng.randrange(len(lines) + 1), lines[at])
    elif way == 3:
        lines[at] = change(lines[at])
    elif way == 4:
        key, _, _ = lines[at].partition(b"=")
        lines[at] = key + b"= " + rng.choice(words) + b"\n"
    else:
        pieces = re.split(rb'("[^"\n]*"|\b\w+\b|>[^<]*<)', lines[at])
        new = rng.choice(words if way < 7 else TEXTS)
        place = rng.randrange(len(pieces))
        old = pieces[place]
        middle = rng.randrange(len(old) + 1)
        pieces[place] = rng.choice(
            (new, old[:1] + new + old[-1:], old[:middle] + new + old[middle:], old * 30)
        )
        lines[at] = b"".join(pieces)
    return kind + b"".join(lines)


@contextmanager
def opened(folder: Path) -> Iterator[FuzzOne]:
    """Read each input as what its first letter says."""
    path, site = folder / "fuzzed", folder / "site.toml"
    valid = folder / "valid.toml"
    valid.write_text('[storage]\nroot = "spool"\n')
    good = load_config(valid, {})

    def fuzz_one(data: bytes) -> None:
        kind, text = data[:1], data[1:]
        path.write_bytes(text)
        try:
            if kind == _ENVIRONMENT:
                load_config(valid, _environment(text))
            elif kind == _TEMPLATE:
                load_template(path)
            elif kind == _ECLIPSE:
                _read_eclipse(path, site)
            else:
                config = load_config(path, {})
                [template_for(route) for route in config.routes if not route.template]
        except ConfigError as error:
            require_typed(error)
            if not error.problems or not all(error.problems):
                raise Broken("refused without a reason") from error
            "\n".join(error.problems).encode()
        if kind == _CONFIG:
            with capture_logs():
                ConfigFile(path, {}, good)._reload()

    yield fuzz_one


def _environment(text: bytes) -> dict[str, str]:
    """What a process can find in its environment: text without NUL."""
    lines = (os.fsdecode(line).partition("=") for line in text.replace(b"\0", b"").splitlines())
    return {name: value for name, _, value in lines if name}


def _read_eclipse(path: Path, site: Path) -> None:
    structures = read_eclipse_template(path)
    site.write_text(as_toml(structures, "site"), encoding="utf-8")
    try:
        load_template(site)
    except ConfigError as error:
        if "not TOML" in str(error):
            raise Broken("what was made of Eclipse's template is no TOML") from error
        raise


TARGET = Target(
    (
        "daemon.config",
        "daemon.config_source",
        "daemon.config_checks",
        "daemon.config_values",
        "daemon.template_file",
        "daemon.template_checks",
        "daemon.eclipse_template",
    ),
    seeds,
    mutate,
    opened,
    nameless_files_anywhere=True,
)
