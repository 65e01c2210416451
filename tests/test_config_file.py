"""An edited configuration counts without a restart; a broken one does not count and is told once."""

import pytest
from structlog.testing import capture_logs

from daemon.config import load_config
from daemon.config_file import ConfigFile

TEXT = """
[storage]
root = "{root}"

[[destinations]]
name = "TPS"
ae_title = "TPS"
host = "127.0.0.1"
port = {port}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "oarlock.toml"
    path.write_text(TEXT.format(root=tmp_path, port=104))
    return path


def edit(path, text):
    """Replace a file as editors do: another one under the same name."""
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


def port(config_file):
    return config_file.current().destination("TPS").port


def test_edited_destination_is_seen_at_the_next_look(file, tmp_path):
    config_file = ConfigFile(file, {}, load_config(file, {}))
    assert port(config_file) == 104

    edit(file, TEXT.format(root=tmp_path, port=11112))
    assert port(config_file) == 11112


def test_unchanged_file_is_not_read_again(file):
    config_file = ConfigFile(file, {}, load_config(file, {}))

    assert config_file.current() is config_file.current()


def test_broken_file_keeps_the_old_configuration_and_is_told_once(file, tmp_path):
    config_file = ConfigFile(file, {}, load_config(file, {}))
    edit(file, TEXT.format(root=tmp_path, port=99999))

    with capture_logs() as logs:
        assert [port(config_file), port(config_file)] == [104, 104]
    assert [line["event"] for line in logs] == ["configuration_refused"]
    edit(file, TEXT.format(root=tmp_path, port=4242))
    assert port(config_file) == 4242


def test_missing_file_keeps_the_old_configuration(file):
    config_file = ConfigFile(file, {}, load_config(file, {}))
    file.unlink()

    assert port(config_file) == 104


def test_environment_still_overrides_after_an_edit(file, tmp_path):
    environ = {"OARLOCK_NODE__AE_TITLE": "OTHER"}
    config_file = ConfigFile(file, environ, load_config(file, environ))
    edit(file, TEXT.format(root=tmp_path, port=11112))

    assert config_file.current().node.ae_title == "OTHER"
