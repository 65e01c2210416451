"""Files that came over the network, put into a spool without one."""

from collections.abc import Iterable
from pathlib import Path

from daemon.spool import Spool
from daemon.spool_files import Arrival


def store_image(spool: Spool, job_id: int, sop_uid: str, content: bytes | Iterable[bytes]) -> Path:
    """Store an image as reception does; raises as `Spool.store_arrival`."""
    arrival = _arrived(spool, content)
    try:
        return spool.store_arrival(job_id, sop_uid, arrival)
    finally:
        arrival.discard()


def set_aside(spool: Spool, job_id: int, content: bytes) -> str:
    """Set an image aside as reception does; returns and raises as `Spool.set_aside_arrival`."""
    arrival = _arrived(spool, content)
    try:
        return spool.set_aside_arrival(job_id, arrival)
    finally:
        arrival.discard()


def _arrived(spool: Spool, content: bytes | Iterable[bytes]) -> Arrival:
    arrival = spool.arrive()
    try:
        for chunk in (content,) if isinstance(content, bytes) else content:
            arrival.write(chunk)
    except BaseException:
        arrival.discard()
        raise
    return arrival
