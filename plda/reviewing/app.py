"""The web application of a review: the page, its pictures, and decisions.

It is for programs of this machine. A foreign page in the person's browser must not use it: a request must
have the address of this machine as host (DNS rebinding), and no other origin (cross-site requests). A request
names an image as the review's table does; paths come from the run's index.
"""

from collections.abc import Awaitable, Callable
from functools import lru_cache
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from jinja2 import Template
from pydantic import BaseModel

from plda.data.decisions import Decision, Kind
from plda.data.images import read_mask
from plda.data.index import Entry
from plda.errors import InputError
from plda.masks.folder import shares_of_ids
from plda.masks.review import image_name
from plda.reviewing.pictures import colours, media_type, overlay, thumbnail
from plda.reviewing.session import Session, version_of
from plda.web import LOOPBACK

THUMBNAILS = 2000  # kept in memory, about 4 KB each
HOSTS = (LOOPBACK, "localhost")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
PAGE = files("plda.reviewing")


class Decided(BaseModel):
    """A decision of the page; kind None: the image gets undecided. For `version` see `Session.decide`."""

    image: str
    kind: Kind | None
    tags: tuple[str, ...] = ()
    version: str = ""


def make_app(session: Session) -> FastAPI:
    """Return the application of a session."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    run = session.run
    classes = run.data.classes
    small = lru_cache(THUMBNAILS)(lambda entry: thumbnail(run.photo(entry)))

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if host.partition(":")[0] not in HOSTS or origin not in (None, f"http://{host}"):
            return PlainTextResponse("requests from other sites are refused", 403)
        response = await answer(request)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(InputError)
    def refuse(_request: Request, error: InputError) -> Response:
        return JSONResponse({"detail": str(error)}, 409)

    def entry_of(image: str) -> Entry:
        if image not in run.entries:
            raise HTTPException(404, f"image: must be a training image of this run, got {image!r}")
        return run.entries[image]

    @app.get("/")
    def page() -> Response:
        return Response(PAGE.joinpath("page.html").read_bytes(), media_type="text/html")

    @app.get("/page.js")
    def script() -> Response:
        return Response(PAGE.joinpath("page.js").read_bytes(), media_type="text/javascript")

    @app.get("/page.css")
    def style() -> Response:
        shared = files("plda.report").joinpath("style.css.j2").read_text(encoding="utf-8")
        own = PAGE.joinpath("page.css").read_text(encoding="utf-8")
        return Response(Template(shared).render() + own, media_type="text/css")

    @app.get("/images")
    def images() -> dict[str, Any]:
        """Return the classes by id, all images, worst first, and the decisions."""
        listed = [
            {"image": image, "tags": entry.tags, "expected": run.expected.get(entry.key)}
            for image, entry in run.entries.items()
        ]
        return {"classes": colours(classes), "images": listed, "decisions": decisions()}

    @app.get("/decisions")
    def decisions() -> dict[str, Any]:
        """Return the decisions about images of the run."""
        found = session.decisions()
        return {image: found[image]._asdict() for image in run.entries if image in found}

    @app.get("/mask")
    def mask(image: str) -> dict[str, Any]:
        """Return the version of an image's mask, and what it shows."""
        content = session.mask(entry_of(image))
        return {"version": version_of(content), "shares": shares_of_ids(read_mask(content))}

    @app.get("/overlay")
    def picture_of_mask(image: str, version: str) -> Response:
        content = session.mask(entry_of(image))
        if version_of(content) != version:
            raise InputError(f"{image}: the mask has changed")
        return Response(overlay(content), media_type="image/png")

    @app.get("/photo")
    def photo(image: str) -> Response:
        content = run.photo(entry_of(image))
        return Response(content, media_type=media_type(content))

    @app.get("/thumbnail")
    def small_photo(image: str) -> Response:
        return Response(small(entry_of(image)), media_type="image/jpeg")

    @app.post("/decisions")
    def decide(made: Decided) -> dict[str, Any]:
        unknown = [tag for tag in made.tags if tag not in classes[1:]]
        if unknown or (made.tags and made.kind != "tags"):
            raise InputError(f"tags: must be classes, with the decision tags, got {', '.join(made.tags)}")
        tags = tuple(name for name in classes if name in made.tags)
        entry = entry_of(made.image)
        session.decide(entry, Decision(made.kind, tags) if made.kind else None, made.version)
        return decisions()

    @app.post("/undo")
    def undo() -> dict[str, Any]:
        """Undo the last decision; return its image, and all decisions."""
        return {"image": image_name(session.undo()), "decisions": decisions()}

    return app
