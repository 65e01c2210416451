"""The programs we are compared with: Debian's, and Python packages in environments of their own.

    python -m benchmarks.peers

installs whatever is missing: packages of Debian where it is root, Python packages under runs/peers.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console

FOLDER = Path("runs/peers")

PROGRAMS: Mapping[str, str] = {
    "dcmtk": "storescp",
    "orthanc": "Orthanc",
    "plastimatch": "plastimatch",
    "dicom3tools": "dciodvfy",
}
"""A program of every Debian package."""


@dataclass(frozen=True)
class Environment:
    """Packages that agree with each other on what they need.

    Parameters
    ----------
    shares_ours
        Sees our own packages too, torch among them, which would take another gigabyte.
    """

    packages: tuple[str, ...]
    shares_ours: bool = False


ENVIRONMENTS: Mapping[str, Environment] = {
    "rt-utils": Environment(("rt-utils==1.2.7",)),
    # It wants pydicom 2, which would slow down or speed up rt-utils.
    "platipy": Environment(("platipy==0.7.2",)),
    "monai": Environment(("monai==1.6.1", "surface-distance==0.1"), shares_ours=True),
    "nnunet": Environment(("nnunetv2==2.8.1",), shares_ours=True),
    "openvino": Environment(("openvino==2026.4.1",), shares_ours=True),
}


class PeerError(RuntimeError):
    """A peer's program ended with an error; the message is the end of what it said."""


def python(name: str) -> Path | None:
    """Interpreter of an environment; None where it is not installed."""
    found = _folder(name) / "bin/python"
    return found if (_folder(name) / "installed").exists() else None


def see(name: str) -> bool:
    """Let this process import what an environment that shares our packages holds; False where it is missing."""
    interpreter = python(name)
    if interpreter is None:
        return False
    (packages,) = (interpreter.parent.parent / "lib").glob("python*/site-packages")
    if str(packages) not in sys.path:
        sys.path.append(str(packages))  # behind our own
    return True


def missing_programs() -> list[str]:
    """Debian packages that are not installed."""
    return [package for package, program in PROGRAMS.items() if shutil.which(program) is None]


def run(*command: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a program of a peer and give what it said; raises PeerError."""
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        raise PeerError(f"{' '.join(map(str, command))} failed: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def versions(name: str, *packages: str) -> tuple[str, ...]:
    """`package version` of what an environment holds."""
    interpreter = python(name)
    if interpreter is None:
        return ()
    code = "import sys; from importlib.metadata import version as v; print([v(p) for p in sys.argv[1:]])"
    said = run(interpreter, "-c", code, *packages).strip(" []\n").replace("'", "").split(", ")
    return tuple(f"{package} {version}" for package, version in zip(packages, said, strict=True))


def debian_version(package: str) -> str:
    """`package version` as Debian counts."""
    return f"{package} {run('dpkg-query', '--show', '--showformat=${Version}', package)}"


def install(console: Console) -> None:
    """Install all that is missing; what cannot be installed is said, and its comparisons are left out."""
    packages = missing_programs()
    if packages and os.geteuid() == 0 and shutil.which("apt-get"):
        console.print(f"installing {', '.join(packages)}")
        subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages], check=False)
    for package in missing_programs():
        console.print(f"[red]{package} is not installed: nothing will be compared with it")
    for name, environment in ENVIRONMENTS.items():
        if python(name) is None:
            console.print(f"installing {', '.join(environment.packages)} into {_folder(name)}")
            try:
                _install(name, environment)
            except subprocess.CalledProcessError as error:
                console.print(f"[red]{name} cannot be installed and is left out: {error}")


def _install(name: str, environment: Environment) -> None:
    folder = _folder(name)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    if environment.shares_ours:
        packages = next((folder / "lib").glob("python*")) / "site-packages"
        (packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    pip = (folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    # As tested with; a peer that needs another version of something decides in its own environment.
    kept = ("--constraint", "constraints.txt") if environment.shares_ours else ()
    subprocess.run([*pip, *kept, *environment.packages], check=True)
    (folder / "installed").touch()


def _folder(name: str) -> Path:
    return FOLDER.resolve() / name


def main() -> None:
    """Install the peers."""
    install(Console(stderr=True))


if __name__ == "__main__":
    typer.run(main)
