"""An SSH server (Debian's openssh-server) on loopback for the current user, with separate keys."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")  # often not on a user's PATH
PATIENCE = 20  # seconds
CONFIGURATION = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/key.pub
PidFile none
UsePAM no
PasswordAuthentication no
StrictModes no
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class SSHServer:
    """The port of the server and the private key that it accepts."""

    port: int
    key: Path


@contextmanager
def serving_ssh(folder: Path) -> Iterator[SSHServer]:
    """Run the server inside the context; `folder`, initially empty, holds keys, configuration and log."""
    assert SSHD
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # required by the daemon when run as root
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration, log = folder / "sshd_config", folder / "log"
    configuration.write_text(CONFIGURATION.format(port=port, folder=folder))
    daemon = subprocess.Popen([SSHD, "-D", "-f", configuration, "-E", log])
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert daemon.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.05)
        yield SSHServer(port, folder / "key")
    finally:
        daemon.terminate()
        daemon.wait()
