"""``dlmctl play``."""

from __future__ import annotations

from typing import Annotated

import typer

ANYWHERE = ("0.0.0.0", "::")


def play(
    host: Annotated[str, typer.Option(help="Address to listen at; others than 127.0.0.1 let others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 7860,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """A page to try controls on: forms for each of them, texts, checks and how they came about, the recipe to copy."""
    import socket
    import webbrowser

    from dlmctl.errors import UserError

    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot listen there: {error}.", where=f"{host}:{port}", remedy="Try another --port."
        ) from None
    try:
        import uvicorn

        from dlmctl.cli.playground.server import playground
    except ImportError as error:
        remedy = 'Install it with `pip install "dlmctl[play]"`.'
        raise UserError(f"the playground needs {error.name}.", remedy=remedy) from None

    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}/"
    typer.echo(f"The playground is at {url} (Ctrl-C ends it).")
    if host in ANYWHERE:
        typer.echo("Whoever reaches this machine can use it: there is no password.", err=True)
    hosts = ["*"] if host in ANYWHERE else ["127.0.0.1", "localhost", "[::1]", shown]
    if browser:
        webbrowser.open(url)
    server = uvicorn.Server(uvicorn.Config(playground(hosts), log_level="warning", timeout_graceful_shutdown=1))
    server.run(sockets=[listening])
