"""What `plda serve` does with a request: limits, decoding, labelling in batches, encoding."""

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request, Response
from PIL import Image
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import ClientDisconnect

from plda.data.images import encode_mask, image_size
from plda.errors import InputError
from plda.sources.folder import read_known_tags
from plda.use.batches import Batches, Waiting
from plda.use.labels import MIN_AREA
from plda.use.network import Labelled, TrainedNetwork
from plda.use.predict import classes_found, read_photo
from plda.writers import coco
from plda.writers.pieces import Labelled as Objects
from plda.writers.pieces import Options, Picture, find_pieces

CODERS = 2  # threads that decode photos and encode masks
RETRY = 5  # seconds after which a refused client may try again
DRAINING = 10  # seconds for which a refused body is read and dropped: else the answer may be lost
SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)  # of the histogram
NAME = "photo"  # the photo's file name in COCO JSON


@dataclass(frozen=True)
class Limits:
    """Limits of requests.

    Attributes:
        bytes: size of a photo file.
        pixels: number of pixels of a photo.
        seconds: time from a request's headers to its answer.
        requests: number of requests that are received, wait or are processed at once.
        batch: number of photos that the network processes at once.
    """

    bytes: int
    pixels: int
    seconds: float
    requests: int
    batch: int


class Refused(Exception):
    """A request without a result: status and message of its answer, and whether trying again may help."""

    def __init__(self, status: int, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"Retry-After": str(RETRY)} if again else {}


class Metrics:
    """Counts and times of /predict, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = to = CollectorRegistry()
        self.requests = Counter("plda_requests", "Answers by status", ["status"], registry=to)
        self.seconds = Histogram("plda_request_seconds", "Time to the answer", buckets=SECONDS, registry=to)
        self.queue = Gauge("plda_queue_length", "Requests received, waiting or processed", registry=to)
        self.batch = Histogram(
            "plda_batch_size", "Photos processed at once", buckets=(1, 2, 4, 8), registry=to
        )


class Service:
    """Labels the photos of requests.

    Memory is bounded: at most `limits.requests` photo files, and decoded photos for two batches.

    Args:
        network: the network, which the service alone uses from now on.
        limits: limits of requests.
    """

    def __init__(self, network: TrainedNetwork, limits: Limits) -> None:
        self.metrics = Metrics()
        self._network, self._limits = network, limits
        self._batches = Batches(network, limits.batch, self.metrics.batch.observe)
        self._inside = 0
        self._decoded = asyncio.Semaphore(2 * limits.batch)  # a batch that is processed, and the next one
        self._coders = ThreadPoolExecutor(CODERS, "coding")

    async def predict(self, request: Request, format: str, tags: str | None) -> Response:
        """Return the mask of the photo in a request's body; `format`: "png" or "coco".

        Raises:
            Refused: the request exceeds a limit, or its photo or tags cannot be used.
        """
        try:
            allowed = self._read_tags(tags)
            with self._place():
                return await self._in_time(request, format, allowed)
        except Refused:
            if "expect" not in request.headers:  # else the client waits for permission to send the body
                with suppress(TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: all was read
                    async with asyncio.timeout(DRAINING):
                        async for _ in request.stream():
                            pass
            raise

    def _read_tags(self, text: str | None) -> Sequence[str] | None:
        try:
            return None if text is None else read_known_tags(text, self._network.classes)
        except InputError as error:
            raise Refused(422, str(error)) from error

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Hold a place in the queue within the context."""
        most = self._limits.requests
        if self._inside >= most:
            raise Refused(503, f"queue: must have fewer than {most} requests, got {most}", again=True)
        self._inside += 1
        self.metrics.queue.set(self._inside)
        try:
            yield
        finally:
            self._inside -= 1
            self.metrics.queue.set(self._inside)

    async def _in_time(self, request: Request, format: str, tags: Sequence[str] | None) -> Response:
        seconds = self._limits.seconds
        end = asyncio.get_running_loop().time() + seconds
        status, what, again = 408, "sending the photo", False
        try:
            async with asyncio.timeout_at(end):
                content = await self._body(request)
                status, what, again = 503, "waiting", True
                await self._decoded.acquire()
                status, what, again = 504, "waiting and labelling", False
                return await self._until_late(content, format, tags)
        except TimeoutError as error:
            message = f"time: {what} must take at most {seconds:g} seconds, got more"
            raise Refused(status, message, again=again) from error

    async def _body(self, request: Request) -> bytes:
        """Read the body, at most `limits.bytes` of it."""
        most = self._limits.bytes
        size = int(request.headers.get("content-length", 0))
        content = bytearray()
        if size <= most:
            try:
                async for part in request.stream():
                    content += part
                    if len(content) > most:
                        break
            except ClientDisconnect as error:
                raise Refused(400, f"photo: must be sent completely, got {len(content)} bytes") from error
            size = len(content)
        if size > most:
            raise Refused(413, f"photo: must have at most {most} bytes, got {size} or more")
        if not size:
            raise Refused(422, "photo: must be the content of an image file, got 0 bytes")
        return bytes(content)

    async def _until_late(self, content: bytes, format: str, tags: Sequence[str] | None) -> Response:
        """Label a photo; if this is cancelled, its place among decoded photos is kept until it is dropped."""
        late = threading.Event()
        job = asyncio.create_task(self._label(content, format, tags, late))
        job.add_done_callback(self._drop)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            late.set()
            raise

    def _drop(self, job: "asyncio.Task[Response]") -> None:
        self._decoded.release()
        if not job.cancelled():
            job.exception()  # asyncio prints errors that nothing has asked for

    async def _label(
        self, content: bytes, format: str, tags: Sequence[str] | None, late: threading.Event
    ) -> Response:
        loop = asyncio.get_running_loop()
        size, photo = await loop.run_in_executor(self._coders, self._decode, content)
        waiting = Waiting(photo, size, tags, late)
        self._batches.add(waiting)
        labelled = await asyncio.wrap_future(waiting.result)
        return await loop.run_in_executor(self._coders, self._encode, labelled, format)

    def _decode(self, content: bytes) -> tuple[tuple[int, int], Image.Image]:
        """Return the size (width, height) of a photo, and the photo as the network needs it."""
        try:
            width, height = image_size(content)
        except InputError as error:
            raise Refused(415, f"photo: {error}") from error
        most = self._limits.pixels
        if width * height > most:
            raise Refused(413, f"photo: must have at most {most} pixels, got {width}x{height}")
        try:
            return (width, height), read_photo(content, self._network)
        except InputError as error:
            raise Refused(422, f"photo: {error}") from error

    def _encode(self, labelled: Labelled, format: str) -> Response:
        about = {
            "X-Classes": json.dumps(classes_found(labelled)),
            "X-Expected-IoU": f"{labelled.expected_iou:.2f}",
        }
        if format == "png":
            return Response(encode_mask(labelled.ids), headers=about, media_type="image/png")
        height, width = labelled.ids.shape
        score = round(labelled.expected_iou / 100, 4)
        picture = Picture(NAME, Path(NAME), NAME, None, width, height, score)
        objects = Objects(picture, labelled.ids, *find_pieces(labelled.ids, MIN_AREA))
        content = coco.content(objects, Options(self._network.classes, rle=True))
        text = json.dumps(content, ensure_ascii=False)
        return Response(text, headers=about, media_type="application/json")
