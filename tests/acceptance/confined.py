"""`oarlock` under the system call filter of its unit, put in place by the kernel as systemd does.

    python -m tests.acceptance.confined UNIT PORT listen --config FILE

Before the role starts it says on standard error how the kernel answers a connection to PORT and a port of its own.
"""

import ctypes
import errno
import re
import socket
import subprocess
import sys
from pathlib import Path

from daemon.cli import main

SECCOMP = "libseccomp.so.2"
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM  # SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(EPERM)


def allowed_calls(unit: str) -> set[str]:
    """Names of the system calls that SystemCallFilter= of a unit leaves, line after line (systemd.exec(5))."""
    left = _group("@default")
    for line in re.findall(r"^SystemCallFilter=(.*)$", unit, re.MULTILINE):
        named = set().union(*(_group(name) for name in line.removeprefix("~").split()))
        left = left - named if line.startswith("~") else left | named
    return left


def _group(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", name], check=True, capture_output=True, text=True
    )
    members = [line.strip() for line in listed.stdout.splitlines() if line.startswith("    ")]
    return set().union(*(_group(member) for member in members if not member.startswith("#")))


def confine(calls: set[str]) -> None:
    """Have the kernel answer EPERM to every other call of this thread and of those it begins."""
    library = ctypes.CDLL(SECCOMP)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_REFUSE)))
    for call in calls:
        number = library.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            assert library.seccomp_rule_add(context, ctypes.c_uint32(_ALLOW), number, 0) == 0, call
    assert library.seccomp_load(context) == 0, "the kernel takes no filter"


def probe(port: int) -> str:
    """What comes of calling somebody, and of waiting for a call."""
    answers = {}
    for verb, attempt in {
        "connect": lambda wire: wire.connect(("127.0.0.1", port)),
        "listen": lambda wire: wire.listen(),
    }.items():
        with socket.socket() as wire:
            try:
                attempt(wire)
                answers[verb] = "done"
            except OSError as error:
                answers[verb] = errno.errorcode[error.errno or 0]
    return " ".join(f"{verb}={answer}" for verb, answer in answers.items())


if __name__ == "__main__":
    unit_file, peer_port = Path(sys.argv.pop(1)), int(sys.argv.pop(1))
    confine(allowed_calls(unit_file.read_text()))
    sys.stderr.write(f"probe: {probe(peer_port)}\n")
    sys.exit(main())
