"""The playground's server: the page, the data for its forms, recipes as code, and runs."""

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

from dlmctl.cli.playground.forms import Form, page_data, recipe_code
from dlmctl.cli.playground.runs import Runs
from dlmctl.control.user_files import one_version
from dlmctl.errors import UserError, first_validation_error
from dlmctl.generation import page

HERE = Path(__file__).parent
# The style of marked texts, shared with reports.
TEXTS_CSS = Path(page.__file__).parent / "templates" / "texts.css"
# Maximum size of a submitted form.
MAX_BYTES = 1_000_000
# The page loads nothing from other sites and sends nothing to them.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'"
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
# The response header with the name by which a run is stopped.
RUN_HEADER = "Run"


class StopRequest(BaseModel):
    """The page's request to stop a run, by name."""

    run: str


def playground(hosts: list[str]) -> Starlette:
    """The application. Requests for hosts other than ``hosts`` are refused, which keeps out pages of other sites."""
    runs = Runs()

    async def offer(_: Request) -> Response:
        return JSONResponse(await run_in_threadpool(page_data))

    async def write(request: Request) -> Response:
        return await _respond(request, lambda form: JSONResponse(recipe_code(form)))

    async def run(request: Request) -> Response:
        def start(form: Form) -> Response:
            name, lines = runs.start(form)
            return StreamingResponse(lines, media_type="application/x-ndjson", headers={RUN_HEADER: name})

        return await _respond(request, start)

    async def stop(request: Request) -> Response:
        def stop_run(form: StopRequest) -> Response:
            runs.stop(form.run)
            return JSONResponse({})

        return await _respond(request, stop_run, StopRequest)

    files = {"/": "page.html", "/page.js": "page.js", "/page.css": "page.css"}
    routes = [
        *(Route(path, _send_file(HERE / name)) for path, name in files.items()),
        Route("/texts.css", _send_file(TEXTS_CSS)),
        Route("/api/offer", offer),
        Route("/api/recipe", write, methods=["POST"]),
        Route("/api/run", run, methods=["POST"]),
        Route("/api/stop", stop, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)])


def _send_file(path: Path) -> Callable[[Request], Any]:
    async def send(_: Request) -> Response:
        return FileResponse(path, headers=HEADERS)

    return send


async def _respond(request: Request, handler: Callable[[Any], Response], kind: type[BaseModel] = Form) -> Response:
    """The response of ``handler`` to the form in a request; errors that the user can fix are returned as ``error``."""
    # A page of another site could send this content type only after a CORS preflight, which is not answered.
    if request.headers.get("content-type", "").split(";")[0] != "application/json":
        return JSONResponse({"error": "the form must be JSON."}, 415)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            return JSONResponse({"error": "the form is too long."}, 413)
    try:
        form = kind.model_validate_json(body)
        with one_version({}):  # controls may have been edited since the playground was started
            return await run_in_threadpool(handler, form)
    except ValidationError as error:
        return JSONResponse({"error": first_validation_error(error)}, 400)
    except UserError as error:
        return JSONResponse({"error": str(error)}, 400)
