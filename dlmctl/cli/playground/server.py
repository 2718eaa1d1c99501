"""The playground's server: the page, what it offers, recipes as text, and runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from dlmctl.cli.playground.forms import Form, offered, written
from dlmctl.cli.playground.runs import Runs
from dlmctl.errors import UserError, first_fault
from dlmctl.generation import page

HERE = Path(__file__).parent
# How marked texts look, in a report as here.
TEXTS = Path(page.__file__).parent / "templates" / "texts.css"
# Of what a form sends.
MOST_BYTES = 1_000_000
# Nothing of the page comes from elsewhere, and nothing on it goes elsewhere.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'"
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
# The header of an answer that says by what name its run is stopped.
RUN = "Run"


class Started(BaseModel):
    """A run by its name, as the page sends it to stop it."""

    run: str


def playground(hosts: list[str]) -> Starlette:
    """The application. Requests under other names than ``hosts`` are refused, so that no page elsewhere reaches it."""
    runs = Runs()

    async def offer(_: Request) -> Response:
        return JSONResponse(await run_in_threadpool(offered))

    async def write(request: Request) -> Response:
        return await _answered(request, lambda form: JSONResponse(written(form)))

    async def run(request: Request) -> Response:
        def started(form: Form) -> Response:
            name, lines = runs.start(form)
            return StreamingResponse(lines, media_type="application/x-ndjson", headers={RUN: name})

        return await _answered(request, started)

    async def stop(request: Request) -> Response:
        def stopped(form: Started) -> Response:
            runs.stop(form.run)
            return JSONResponse({})

        return await _answered(request, stopped, Started)

    files = {"/": "page.html", "/page.js": "page.js", "/page.css": "page.css"}
    routes = [
        *(Route(path, _file(HERE / name)) for path, name in files.items()),
        Route("/texts.css", _file(TEXTS)),
        Route("/api/offer", offer),
        Route("/api/recipe", write, methods=["POST"]),
        Route("/api/run", run, methods=["POST"]),
        Route("/api/stop", stop, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)])


def _file(path: Path) -> Callable[[Request], Any]:
    async def send(_: Request) -> Response:
        return FileResponse(path, headers=HEADERS)

    return send


async def _answered(request: Request, answer: Callable[[Any], Response], kind: type[BaseModel] = Form) -> Response:
    """What ``answer`` makes of the form in a request; what a user can mend comes back as ``error``."""
    # A form of another site cannot send this type without asking first, and is not answered when it asks.
    if request.headers.get("content-type", "").split(";")[0] != "application/json":
        return JSONResponse({"error": "the form must be JSON."}, 415)
    if int(request.headers.get("content-length") or 0) > MOST_BYTES:
        return JSONResponse({"error": "the form is too long."}, 413)
    try:
        form = kind.model_validate_json(await request.body())
        return await run_in_threadpool(answer, form)
    except ValidationError as error:
        return JSONResponse({"error": first_fault(error)}, 400)
    except UserError as error:
        return JSONResponse({"error": str(error)}, 400)
