"""The web server of the commands review and serve."""

import sys
from typing import TYPE_CHECKING

from plda.errors import InputError

if TYPE_CHECKING:
    from fastapi import FastAPI

LOOPBACK = "127.0.0.1"


def require_web(command: str) -> None:
    """Check that the optional packages are installed.

    Raises:
        InputError: one is missing.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{command} needs the package {error.name}: run `make web`, or outside a clone "
            "`pip install fastapi prometheus-client uvicorn`"
        ) from error


def run_server(app: "FastAPI", host: str, port: int, command: str) -> None:
    """Serve `app` until Ctrl-C or SIGTERM; print its address on stderr when it accepts requests.

    Args:
        app: the application.
        host: address to listen on; LOOPBACK: only programs of this machine can connect.
        port: TCP port; 0: any free one.
        command: name of the command, for messages.

    Raises:
        InputError: the port cannot be opened.
    """
    import socket

    import uvicorn

    try:
        opened = socket.create_server((host, port), backlog=2048)
    except (OSError, OverflowError) as error:
        raise InputError(f"--port: {host}:{port} cannot be opened: {error}") from error
    with opened:
        address = f"http://{host}:{opened.getsockname()[1]}/"
        print(f"plda {command}: {address} (Ctrl-C stops it)", file=sys.stderr, flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[opened])
