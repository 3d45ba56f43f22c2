"""nginx on loopback, from a folder of its own: as root or not, beside any other nginx."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from capstan.errors import SettingError
from capstan.testing.photolike import photos
from capstan.testing.ports import free_port

PHOTOS = 64
PATIENCE = 10.0  # seconds until it answers
CONFIGURATION = """\
{user}worker_processes {workers};
worker_rlimit_nofile 16384;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
daemon off;
events {{ worker_connections 8192; }}
http {{
    types {{ image/jpeg jpg; }}
    access_log off;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=1000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_timeout {keepalive};
    keepalive_requests 1000;
    server {{
        listen 127.0.0.1:{port}{tls} backlog=4096;
        root {root};
        {certificate}
    }}
}}
"""


@dataclass(frozen=True)
class Behaviour:
    """How connections are handled."""

    keep_alive: bool = True
    tls: bool = False


class Nginx:
    """Serves the files of `root` while the `with` block runs; certificates are made on the fly."""

    def __init__(self, root: Path, folder: Path, behaviour: Behaviour) -> None:
        self._root, self._folder, self._behaviour = root.resolve(), folder.resolve(), behaviour
        self._port = free_port()
        self.authority = self._folder / "authority.pem"  # trust this to speak TLS with it

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{'https' if self._behaviour.tls else 'http'}://127.0.0.1:{self._port}"

    def __repr__(self) -> str:
        return f"<Nginx {self.address} {self._root}>"

    def __enter__(self) -> Self:
        binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if binary is None:
            raise SettingError("nginx is not installed; install Debian's nginx-light")
        self._folder.mkdir(parents=True, exist_ok=True)
        configuration = self._folder / "nginx.conf"
        configuration.write_text(self._configuration())
        words = [binary, "-p", str(self._folder), "-c", str(configuration)]
        with (self._folder / "start.log").open("wb") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log)
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def _configuration(self) -> str:
        certificate = ""
        if self._behaviour.tls:
            pem = make_certificate(self._folder, self.authority)
            certificate = (
                f"ssl_certificate {pem}; ssl_certificate_key {pem}; ssl_protocols TLSv1.2 TLSv1.3;"
            )
        return CONFIGURATION.format(
            user="user root;\n" if os.geteuid() == 0 else "",
            workers=len(os.sched_getaffinity(0)),
            folder=self._folder,
            root=self._root,
            port=self._port,
            keepalive=65 if self._behaviour.keep_alive else 0,
            tls=" ssl" if self._behaviour.tls else "",
            certificate=certificate,
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.02)
        self._process.kill()
        said = (self._folder / "start.log").read_text().strip()
        raise SettingError(f"nginx did not start: {said or 'no reason given'}")


@contextmanager
def photos_served(folder: Path, behaviour: Behaviour) -> Iterator[Nginx]:
    """An nginx that serves PHOTOS of about 90 KB, written below a folder."""
    root = folder / "root"
    root.mkdir()
    for index, photo in enumerate(photos(PHOTOS)):
        (root / f"{index}.jpg").write_bytes(photo)
    with Nginx(root, folder / "nginx", behaviour) as nginx:
        yield nginx


def photo_urls(nginx: Nginx, count: int) -> list[str]:
    """So many addresses, each its own, of the photos served."""
    return [f"{nginx.address}/{row % PHOTOS}.jpg?row={row}" for row in range(count)]


def make_certificate(folder: Path, authority: Path) -> Path:
    """Write a certificate for 127.0.0.1 with its key, and the authority that signed it."""
    import trustme

    signer = trustme.CA()
    signer.cert_pem.write_to_path(str(authority))
    pem = folder / "server.pem"
    signer.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
        str(pem)
    )
    return pem
