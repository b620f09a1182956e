"""The addresses of the command serve."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from plda.data.images import PALETTE
from plda.use.network import TrainedNetwork
from plda.use.service import Limits, Refused, Service

PAGE = Path(__file__).with_name("serve.html")
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)

log = logging.getLogger("uvicorn.error")


def build_app(network: TrainedNetwork, limits: Limits) -> FastAPI:
    """Return the application; an error is JSON, {"error": MESSAGE}.

    Args:
        network: the network, which the application alone uses from now on.
        limits: limits of requests.
    """
    app = FastAPI(title="plda", docs_url=None, redoc_url=None)  # these pages load scripts from elsewhere
    service = Service(network, limits)
    metrics = service.metrics

    @app.middleware("http")
    async def count(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        began = time.monotonic()
        try:
            response = await answer(request)
        except Exception:  # a bug; the client gets no traceback
            log.exception("%s %s", request.method, request.url.path)
            response = _error(500, "server: must not fail, got an error; see the messages of plda serve")
        if request.url.path == "/predict":
            metrics.requests.labels(response.status_code).inc()
            metrics.seconds.observe(time.monotonic() - began)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @app.exception_handler(Refused)
    async def refuse(_: Request, refused: Refused) -> Response:
        return _error(refused.status, str(refused), refused.headers)

    @app.exception_handler(HTTPException)
    async def refuse_address(request: Request, error: HTTPException) -> Response:
        got = f"{request.method} {request.url.path[:100]}"
        return _error(
            error.status_code, f"address: must be POST /predict, or see /, got {got}", error.headers
        )

    @app.exception_handler(RequestValidationError)
    async def refuse_query(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        must = f"must be {first['ctx']['expected']}" if "ctx" in first else first["msg"]
        return _error(422, f"{first['loc'][-1]}: {must}, got {str(first['input'])[:100]!r}")

    @app.post("/predict")
    async def predict(
        request: Request, format: Literal["png", "coco"] = "png", tags: str | None = None
    ) -> Response:
        return await service.predict(request, format, tags)

    @app.get("/")
    def page() -> HTMLResponse:
        text = PAGE.read_text(encoding="utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})

    @app.get("/classes")
    def classes() -> list[dict[str, Any]]:
        colours = PALETTE.tolist()
        return [{"id": i, "name": name, "colour": colours[i]} for i, name in enumerate(network.classes)]

    @app.get("/healthz")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)
