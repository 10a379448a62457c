"""A private PostgreSQL server, made from Debian's binaries and gone afterwards.

`with server() as running:` gives one to a test. `python -m tests.postgres -- COMMAND` runs a command beside one, with
EDI_TEST_DATABASE_URL set; without a command it prints the URL and waits. `--s3` starts the S3 server of `tests.s3` too,
and sets EDI_TEST_S3. The server listens on 127.0.0.1 only, asks for a password that is made up each time, and is
started again when it dies, as a service manager would do: so a test may kill it.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests import s3

#: Where the server is that tests are to use.
URL = "EDI_TEST_DATABASE_URL"
#: Set beside it when that server was started here: its data folder. It may then be killed, and comes back.
DATA = "EDI_TEST_POSTGRES"

#: A server that starts takes a second; after a crash some more.
_PATIENCE = 60.0
#: Many processes with a few connections each; the rest keeps it small and quiet.
_OPTIONS = {
    "max_connections": "200",
    "shared_buffers": "32MB",
    "logging_collector": "off",
    "autovacuum_naptime": "10min",
    "restart_after_crash": "on",
}
#: Sorts as people do ("a" < "B" < "c"), like most servers and unlike SQLite; C.UTF-8 would hide the difference.
_LOCALE = ["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]
#: Nobody cuts the power of an ordinary test, and making a database syncs hundreds of files.
_NO_SYNC = {"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off"}


class NoServer(Exception):
    """A server cannot be started here; the message says why."""


class Server:
    """A running server. `url` is that of its `postgres` database; `data` its folder."""

    def __init__(self, folder: Path, *, sync: bool) -> None:
        self._binaries, self._as_user = binaries(), _as_user()
        self.data, self._log = folder / "data", folder / "log"
        self.password = secrets.token_urlsafe(12)
        self.port = _free_port()
        self.url = f"postgresql+psycopg://edi:{self.password}@127.0.0.1:{self.port}/postgres"
        self._options = _OPTIONS | ({} if sync else _NO_SYNC)
        self._ending = threading.Event()
        self._make(folder)
        self._process = self._start()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _make(self, folder: Path) -> None:
        given = folder / "password"
        given.write_text(self.password)
        if self._as_user:
            for path in (folder, given):
                shutil.chown(path, _user())
        # --no-sync: the folder is thrown away with the server.
        how = ["-U", "edi", "-A", "scram-sha-256", f"--pwfile={given}", "-E", "UTF8", *_LOCALE, "--no-sync"]
        command = [*self._as_user, str(self._binaries / "initdb"), "-D", str(self.data), *how]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        if done.returncode:
            raise NoServer(f"initdb said: {done.stderr.strip()}")
        given.unlink()

    def _start(self) -> subprocess.Popen[bytes]:
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", **self._options}
        settings = [text for name, value in options.items() for text in ("-c", f"{name}={value}")]
        command = [*self._as_user, str(self._binaries / "postgres"), "-D", str(self.data), *settings]
        with self._log.open("ab") as log:
            # A group of its own: Ctrl-C is for the tests, which then stop it.
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", process_group=0)
        try:
            self._wait(process)
        except BaseException:
            _stop(process, signal.SIGQUIT)
            raise
        return process

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            if process.poll() is not None:
                break
            ready = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise NoServer(f"the server did not start: {self._log.read_text()[-2000:]}")

    def _keep(self) -> None:
        """Start the server again whenever it has died."""
        while not self._ending.is_set():
            self._process.wait()
            if self._ending.is_set():
                return
            # Its last children may still be on their way out.
            with suppress(NoServer):
                self._process = self._start()
            time.sleep(0.1)

    def stop(self) -> None:
        self._ending.set()
        _stop(self._process, signal.SIGINT)
        self._keeper.join(_PATIENCE)


def _stop(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(how)
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def binaries() -> Path:
    """Debian's package does not put the server on the PATH."""
    try:
        asked = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise NoServer("pg_config is not installed") from None
    folder = Path(asked.stdout.strip())
    if not (folder / "initdb").exists():
        raise NoServer(f"there is no PostgreSQL server in {folder}")
    return folder


def _as_user() -> list[str]:
    """What to put before a command: the server refuses to run as root. It ends when the one that started it does."""
    if not shutil.which("setpriv"):
        if os.geteuid() == 0:
            raise NoServer("the server does not run as root, and there is no setpriv here")
        return []
    if os.geteuid() != 0:
        return ["setpriv", "--pdeathsig", "INT", "--"]
    user = _user()
    return ["setpriv", f"--reuid={user}", f"--regid={_group(user)}", "--clear-groups", "--pdeathsig", "INT", "--"]


def _user() -> str:
    import pwd

    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise NoServer("there is no user for the server to run as")


def _group(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port


@contextmanager
def server(*, sync: bool = False) -> Iterator[Server]:
    """A server that ends with the block. `sync`: as durable as a real one. Raises NoServer where there can be none."""
    folder = Path(tempfile.mkdtemp(prefix="edi-postgres-"))
    try:
        running = Server(folder, sync=sync)
        try:
            yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _servers(*, sync: bool, with_s3: bool) -> Iterator[Mapping[str, str]]:
    """The servers that were asked for, as the environment tells tests of them."""
    with server(sync=sync) as running:
        told = {URL: running.url}
        if not with_s3:
            yield {**told, DATA: str(running.data)}
            return
        # Made for the whole suite, whose tests use the server side by side: so nobody is told how to kill it.
        with s3.server() as files:
            yield {**told, s3.URL: files.url, **files.environment}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.postgres", description=__doc__)
    parser.add_argument("--sync", action="store_true", help="with fsync, as durable as a real server")
    parser.add_argument("--s3", action="store_true", help="with an S3 server, too")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run beside it")
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    try:
        with _servers(sync=options.sync, with_s3=options.s3) as told:
            if command:
                return subprocess.run(command, env={**os.environ, **told}, check=False).returncode
            print(*(f"{name}={value}" for name, value in told.items()), "Ctrl-C stops it.", sep="\n", flush=True)
            with suppress(KeyboardInterrupt):
                signal.pause()
            return 0
    except NoServer as reason:
        print(f"No PostgreSQL server here: {reason}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
