"""Has a file written to the disk early, beside other work: a later fsync, which alone promises, waits less."""

import ctypes
import errno
import os

_WRITE = 2  # SYNC_FILE_RANGE_WRITE
_NOT_TO_BE_HAD = frozenset({errno.ENOSYS, errno.EPERM})
"""An old system, or one that confines us more than our own unit does: the fsync does everything then."""

_sync_file_range = ctypes.CDLL(None, use_errno=True).sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def begin_writing(descriptor: int, start: int, byte_count: int) -> None:
    """Begin to write part of a file to the disk (sync_file_range(2) of Linux) and do not wait for it.

    Raises
    ------
    OSError
        There is no room, or the disk has a fault; nothing says that a later fsync would tell it again.
    """
    if _sync_file_range(descriptor, start, byte_count, _WRITE) == 0:
        return
    number = ctypes.get_errno()
    if number not in _NOT_TO_BE_HAD:
        raise OSError(number, os.strerror(number))
