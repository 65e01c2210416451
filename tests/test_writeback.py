"""Early writing: only a hint, but what it says against the disk counts."""

import ctypes
import errno

import pytest

from daemon import writeback
from daemon.writeback import begin_writing


def test_a_file_is_the_same_after_its_writing_has_begun(tmp_path):
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        file.write(b"content")
        begin_writing(file.fileno(), 0, 7)
        file.seek(0)
        assert file.read() == b"content"


def test_what_the_disk_says_against_it_is_told():
    with pytest.raises(OSError, match="Bad file descriptor"):
        begin_writing(-1, 0, 1)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_system_that_does_not_have_it_or_forbids_it_is_no_fault(monkeypatch, number):
    def refuse(*_arguments):
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(writeback, "_sync_file_range", refuse)

    begin_writing(0, 0, 1)
