"""``dlmctl play``."""

from __future__ import annotations

from typing import Annotated

import typer

ANY_ADDRESS = ("0.0.0.0", "::")


def play(
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than 127.0.0.1 may admit other machines.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 7860,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Open a page to try controls: their forms, texts with checks and sampling steps, and the recipe to copy."""
    import socket
    import webbrowser

    from dlmctl.errors import UserError

    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server_socket = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot listen on this address: {error}.", where=f"{host}:{port}", remedy="Try another --port."
        ) from None
    try:
        import uvicorn

        from dlmctl.cli.playground.server import playground
    except ImportError as error:
        remedy = 'Install it with `pip install "dlmctl[play]"`.'
        raise UserError(f"the playground needs {error.name}.", remedy=remedy) from None

    url_host = f"[{host}]" if ":" in host else host
    url = f"http://{url_host}:{server_socket.getsockname()[1]}/"
    typer.echo(f"The playground is at {url} (Ctrl-C ends it).")
    if host in ANY_ADDRESS:
        typer.echo("Anyone who can reach this machine can use it: there is no password.", err=True)
    hosts = ["*"] if host in ANY_ADDRESS else ["127.0.0.1", "localhost", "[::1]", url_host]
    if browser:
        webbrowser.open(url)
    server = uvicorn.Server(uvicorn.Config(playground(hosts), log_level="warning", timeout_graceful_shutdown=1))
    server.run(sockets=[server_socket])
