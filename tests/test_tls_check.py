"""`oarlock check` finds what is wrong with certificates and keys before a peer does."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from daemon.check_finding import Verdict
from daemon.tls_check import tls_findings
from tests.certificates import Authority
from tests.nodes import a_config

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is needed")
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki"), days=400)


@pytest.fixture(scope="module")
def own(authority):
    return authority.sign("oarlock", days=100)


def found(folder, authority, own, now=NOW, **changes):
    """Verdict and detail by subject."""
    tls = {"certificate": own.certificate, "key": own.key, "authorities": authority.own.certificate}
    config = a_config(folder, tls=tls | {"only": True} | changes)
    return {each.subject: (each.verdict, each.detail) for each in tls_findings(config, now)}


def test_sound_files_are_good_with_their_last_day(tmp_path, authority, own):
    findings = found(tmp_path, authority, own)

    assert {verdict for verdict, _ in findings.values()} == {Verdict.GOOD}
    last_day = NOW + timedelta(days=100)
    assert f"valid until {last_day:%Y-%m}" in findings["TLS certificate"][1]
    assert findings["TLS authority"][1].startswith("commonName=authority, valid until")


@pytest.mark.parametrize(
    ("days", "certificate", "of_authority"),
    [
        (60, Verdict.GOOD, Verdict.GOOD),
        (80, Verdict.NOTE, Verdict.GOOD),
        (101, Verdict.WRONG, Verdict.GOOD),
        (390, Verdict.WRONG, Verdict.NOTE),
        (401, Verdict.WRONG, Verdict.WRONG),
    ],
)
def test_what_soon_expires_is_said_a_month_before(tmp_path, authority, own, days, certificate, of_authority):
    findings = found(tmp_path, authority, own, NOW + timedelta(days=days))

    assert findings["TLS certificate"][0] is certificate
    assert findings["TLS authority"][0] is of_authority


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"days": -1}, "certificate has expired"),
        ({"usage": "clientAuth"}, "unsuitable certificate purpose"),
        ({"key": ("-newkey", "rsa:1024")}, "TLS cannot be set up"),
    ],
)
def test_a_certificate_that_peers_would_refuse_is_wrong(tmp_path, authority, options, words):
    unsound = authority.sign("unsound", **options)
    details = [
        detail for verdict, detail in found(tmp_path, authority, unsound).values() if verdict == "wrong"
    ]

    assert len(details) == 1
    assert words in details[0]


@pytest.mark.parametrize(
    ("mode", "verdict"), [(0o600, Verdict.GOOD), (0o640, Verdict.GOOD), (0o644, Verdict.WRONG)]
)
def test_a_key_that_every_user_can_read_is_wrong(tmp_path, authority, own, mode, verdict):
    key = shutil.copy(own.key, tmp_path / "node.key")
    key.chmod(mode)

    assert found(tmp_path, authority, own, key=key)["TLS key"][0] is verdict


def test_a_key_with_a_password_is_wrong_and_the_password_is_not_asked_for(tmp_path, authority, own):
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", own.key, "-aes256", "-passout", "pass:hush", "-out", locked],
        check=True,
        capture_output=True,
    )

    (finding,) = found(tmp_path, authority, own, key=locked).values()
    assert finding[0] is Verdict.WRONG
    assert "unencrypted key" in finding[1]


def test_what_is_open_besides_tls_is_said(tmp_path, own):
    plain = {"name": "TPS", "ae_title": "TPS", "host": "127.0.0.1", "port": 104}
    tls = {"certificate": own.certificate, "key": own.key, "require_peer_certificate": False}
    details = [
        each.detail
        for each in tls_findings(a_config(tmp_path, tls=tls, destinations=[plain]), NOW)
        if each.verdict is Verdict.NOTE
    ]
    assert ["is open as well" in details[0], "need no certificate" in details[1]] == [True, True]
    assert details[2] == "is sent structure sets without TLS"
    (without,) = tls_findings(a_config(tmp_path), NOW)
    assert "no [tls]" in without.detail
