"""A C-STORE sender that is no bottleneck: every PDU is encoded before the clock starts, by a process of its own.

    python -m benchmarks.bulk_sender PORT CALLED_AE_TITLE --associations 4

sends images of 0.5 MB of random pixels and prints one line of JSON: seconds, and SHA-256 of every data set.
"""

import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import typer
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from tests.instances import ct_instance

SIDE = 512
"""Rows and columns: 0.5 MB of pixels."""
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
CONTEXT_ID = 1
LONGEST_PDU = 131072
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Image:
    """One image as it goes over the wire."""

    sop_instance_uid: str
    dataset_bytes: bytes

    @property
    def sha256(self) -> str:
        """Of the data set, as a receiver stores it behind its own meta information."""
        return hashlib.sha256(self.dataset_bytes).hexdigest()


def images(series_uid: str, count: int, side: int = SIDE) -> list[Image]:
    """Return images of one series, with the header of a CT and pixels that nothing can compress."""
    random = np.random.default_rng(abs(hash(series_uid)))
    made = []
    for number in range(1, count + 1):
        pixels = random.integers(0, 256, 2 * side * side, np.uint8).tobytes()
        instance = ct_instance(series_uid, number, Rows=side, Columns=side, PixelData=pixels, **_HEADER)
        made.append(Image(instance.sop_instance_uid, instance.dataset_bytes))
    return made


_HEADER = {
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "InstanceCreationDate": "20240229",
    "InstanceCreationTime": "101500",
    "StudyTime": "101000",
    "SeriesTime": "101200",
    "AcquisitionTime": "101300",
    "ContentTime": "101300",
    "Manufacturer": "oarlock",
    "ManufacturerModelName": "benchmark",
    "StationName": "CT1",
    "ProtocolName": "Neck",
    "KVP": "120",
    "SliceThickness": "2.5",
    "ExposureTime": "500",
    "XRayTubeCurrent": "300",
    "Exposure": "150",
    "FilterType": "BODY",
    "ConvolutionKernel": "B30f",
    "PatientPosition": "HFS",
    "DataCollectionDiameter": "500",
    "ReconstructionDiameter": "500",
    "GantryDetectorTilt": "0",
    "TableHeight": "150",
    "RotationDirection": "CW",
    "PatientBirthDate": "19700101",
    "PatientSex": "O",
    "StudyID": "1",
    "SeriesNumber": 2,
    "AcquisitionNumber": 1,
    "WindowCenter": "40",
    "WindowWidth": "400",
    "SliceLocation": "0",
}
"""What a scanner sends besides, so that a header takes as long to read as a real one."""


class Association:
    """A TCP connection with an association on it."""

    def __init__(self, port: int, calling: str, called: str, host: str = "127.0.0.1") -> None:
        self._socket = socket.create_connection((host, port), TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(associate_request(calling, called))
        kind, body = self._pdu()
        if kind != 0x02:
            raise ConnectionError(f"the association was not accepted: PDU {kind}, {body.hex()}")
        self.longest_pdu = min(_longest_pdu(body) or LONGEST_PDU, LONGEST_PDU)

    def store(self, encoded: bytes) -> int:
        """Send one encoded C-STORE request; returns the status of its response."""
        self._socket.sendall(encoded)
        kind, body = self._pdu()
        if kind != 0x04:
            raise ConnectionError(f"no response but PDU {kind}")
        return _status(body[6:])

    def release(self) -> None:
        """Release the association and close the connection."""
        self._socket.sendall(struct.pack(">BxL4x", 0x05, 4))
        self._pdu()
        self._socket.close()

    def _pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxL", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            part = self._socket.recv(count - len(received))
            if not part:
                raise ConnectionError("closed by the peer")
            received += part
        return received


def associate_request(calling: str, called: str) -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 section 9.3.2) for CT images, Explicit VR Little Endian."""
    context = (
        struct.pack(">B3x", CONTEXT_ID) + _item(0x30, CTImageStorage) + _item(0x40, ExplicitVRLittleEndian)
    )
    user = struct.pack(">BxHL", 0x51, 4, LONGEST_PDU) + _item(0x52, "1.2.826.0.1.3680043.10.1.99")
    items = _item(0x10, APPLICATION_CONTEXT) + _item(0x20, context) + _item(0x50, user)
    titles = called.ljust(16).encode() + calling.ljust(16).encode()
    body = struct.pack(">Hxx", 1) + titles + bytes(32) + items
    return struct.pack(">BxL", 0x01, len(body)) + body


def store_request(image: Image, message_id: int, longest_pdu: int) -> bytes:
    """One C-STORE-RQ as PDUs (PS3.7 section 9.3.1, PS3.8 annex E): command and data set."""
    elements = b"".join(
        struct.pack("<HHL", 0x0000, element, len(value)) + value
        for element, value in (
            (0x0002, _padded(CTImageStorage)),
            (0x0100, struct.pack("<H", 0x0001)),
            (0x0110, struct.pack("<H", message_id)),
            (0x0700, struct.pack("<H", 0)),
            (0x0800, struct.pack("<H", 0x0001)),
            (0x1000, _padded(image.sop_instance_uid)),
        )
    )
    command = struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements
    return _data_pdu(command, 0x03) + b"".join(_fragments(image.dataset_bytes, longest_pdu - 6))


def _fragments(dataset: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(dataset), size):
        part = dataset[start : start + size]
        yield _data_pdu(part, 0x02 if start + size >= len(dataset) else 0x00)


def _data_pdu(value: bytes, control: int) -> bytes:
    return struct.pack(">BxLLBB", 0x04, len(value) + 6, len(value) + 2, CONTEXT_ID, control) + value


def _item(kind: int, value: str | bytes) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return struct.pack(">BxH", kind, len(content)) + content


def _padded(uid: str) -> bytes:
    return uid.encode() + bytes(len(uid) % 2)


def _longest_pdu(accept: bytes) -> int:
    """Maximum Length Received (PS3.8 section D.1) in an A-ASSOCIATE-AC."""
    place = accept.index(b"\x51\x00\x00\x04")
    return int.from_bytes(accept[place + 4 : place + 8], "big")


def _status(command: bytes) -> int:
    """Status (0000,0900) of an encoded command set."""
    place = 0
    while place < len(command):
        _, element, length = struct.unpack_from("<HHL", command, place)
        if element == 0x0900:
            return int(struct.unpack_from("<H", command, place + 8)[0])
        place += 8 + length
    raise ConnectionError("a response without Status")


def send(port: int, called: str, series: list[list[Image]]) -> float:
    """Send every series over an association of its own, all at once; returns the seconds it took.

    Establishing and releasing the associations is not counted.
    """
    associations = [Association(port, f"BENCH{number}", called) for number in range(len(series))]
    encoded = [
        [
            store_request(image, 1 + number % 60000, association.longest_pdu)
            for number, image in enumerate(own)
        ]
        for association, own in zip(associations, series, strict=True)
    ]
    ready = threading.Barrier(len(series) + 1)
    statuses: set[int] = set()

    def store_all(association: Association, requests: list[bytes]) -> None:
        ready.wait()
        for request in requests:
            statuses.add(association.store(request))

    threads = [
        threading.Thread(target=store_all, args=each, daemon=True)
        for each in zip(associations, encoded, strict=True)
    ]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if statuses != {0x0000}:
        raise ConnectionError(f"not everything was stored: {statuses}")
    for association in associations:
        association.release()
    return seconds


def main(
    port: int,
    called: str,
    root: str = "1.2.826.0.1.3680043.10.1.7",
    associations: int = 1,
    count: int = 200,
    side: int = SIDE,
) -> None:
    """Send `count` images over so many associations, each a series of its own under the UID `root`."""
    series = [images(f"{root}.{number}", count // associations, side) for number in range(associations)]
    seconds = send(port, called, series)
    digests = sorted(image.sha256 for own in series for image in own)
    print(json.dumps({"seconds": seconds, "sha256": digests}))  # noqa: T201 -- what the other process reads


if __name__ == "__main__":
    typer.run(main)
