"""What params.yaml may say: one frozen class per section, with types and ranges.

There are no defaults: what a run used stands in its params file, complete. Unknown and missing keys, wrong
types and values out of range are refused before any work starts. What no run uses may be left out where None
is allowed: the sections of refinements that are in no chain.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from plda.errors import InputError

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
BackgroundScore = Literal["auto"] | Annotated[float, Field(gt=0, lt=1)]
Origin = Literal["creatures", "folder", "voc2012", "coco2014"]
Backbone = Literal[
    "resnet10", "resnet18", "resnet50", "resnet101",
    "mobilenet_v2", "mobilenet_v3_large", "convnext_tiny", "resnet38d",
]  # fmt: skip


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Checked = TypeVar("Checked", bound=Section)


class Compute(Section):
    """Where a job runs. No stage depends on it, so a change reruns nothing.

    A batch is shared by `devices` processes: with any number of them it has the same images.
    """

    device: Literal["auto", "cpu", "cuda", "mps"]
    devices: Count
    precision: Literal["auto", "32", "bf16", "16"]
    workers: Annotated[int, Field(ge=0)]


class DownloadData(Section):
    folder: Annotated[str, Field(min_length=1)]
    have: dict[str, Annotated[str, Field(min_length=1)]]
    test: bool


class Creatures(Section):
    train: Count
    val: Count
    size: Annotated[int, Field(ge=48, le=1024)]
    body_cue: Share
    part_size: Annotated[float, Field(ge=0.05, le=0.5)]
    seed: Annotated[int, Field(ge=0)]


class IndexData(Section):
    folder: Annotated[str, Field(min_length=1)]
    long_side: Annotated[int, Field(ge=32)] | None
    creatures: Creatures


class Weights(Section):
    name: Backbone
    weights: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]


class DownloadBackbone(Section):
    cams: Weights
    segmenter: Weights


class Schedule(Section):
    """What every trainer is told."""

    epochs: Count
    stop_after: Count | None
    batch_size: Count
    crop: Annotated[int, Field(ge=32)]
    scale: tuple[Positive, Positive]
    jitter: Share
    optimizer: Literal["sgd", "adamw"]
    lr: Positive
    head_lr_factor: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    poly_power: Annotated[float, Field(ge=0)]

    @model_validator(mode="before")
    @classmethod
    def _scale_is_a_pair(cls, values: Any) -> Any:
        """YAML has lists, not tuples."""
        if isinstance(values, dict) and isinstance(values.get("scale"), list):
            return {**values, "scale": tuple(values["scale"])}
        return values

    @model_validator(mode="after")
    def _values_fit(self) -> "Schedule":
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale: the smaller factor comes first")
        if (self.stop_after or 0) > self.epochs:
            raise ValueError("stop_after: more than the epochs")
        return self


class Training(Schedule):
    """What a trainer of a backbone is told."""

    output_stride: Literal[8, 16, 32]
    batch_norm: Literal["trained", "frozen"]


class Adaptation(Section):
    """The switches of PLDA; what they mean: plda/adaptation/learner.py."""

    enabled: bool
    threshold: Annotated[float, Field(gt=0, lt=1)]
    adversary: Annotated[float, Field(ge=0)]
    reversal: Literal["rising", "constant"]
    features: Literal["stage4", "stage3"]
    supervision: Annotated[float, Field(ge=0)]
    background: Literal["none", "image", "both"]
    pamr_scale: Annotated[int, Field(ge=1, le=16)]
    per_labelled: bool
    warmup: Annotated[float, Field(ge=0, lt=1)]


class TrainCam(Training):
    baseline: Literal["cam", "seam"]
    adaptation: Adaptation
    inspected: Annotated[int, Field(ge=0)]


class InferCams(Section):
    scales: Annotated[list[Positive], Field(min_length=1)]
    flip: bool


class Pamr(Section):
    iterations: Count


class RandomWalk(Section):
    radius: Annotated[float, Field(gt=1, le=20)]
    beta: Positive
    steps: Annotated[int, Field(ge=1, le=100_000)]


class Crf(Section):
    iterations: Count
    smoothness_sd: Positive
    smoothness_weight: Annotated[float, Field(ge=0)]
    appearance_sd: Positive
    appearance_colour_sd: Positive
    appearance_weight: Annotated[float, Field(ge=0)]


class Refinement(Section):
    """A chain of refinements, and a section for each of them; one that is not in the chain needs none."""

    refinement: Sequence[str]
    pamr: Pamr | None = None
    crf: Crf | None = None

    def of(self, step: str) -> dict[str, Any]:
        """What is said of a step of the chain."""
        return dict(getattr(self, step))

    @model_validator(mode="after")
    def _chain_is_sound(self) -> "Refinement":
        for step in self.refinement:
            if getattr(self, step) is None:
                raise ValueError(f"{step}: is missing, and stands in refinement")
        if len(set(self.refinement)) < len(self.refinement):
            raise ValueError("refinement: a step stands twice")
        if "crf" in self.refinement[:-1]:
            raise ValueError("refinement: crf comes last, its maps are as large as the image")
        return self


class BoundarySeeds(Refinement):
    refinement: list[Literal["pamr", "crf"]]
    background_score: BackgroundScore
    margin: Annotated[float, Field(ge=0, lt=1)]


class TrainBoundary(Schedule):
    enabled: bool
    seeds: BoundarySeeds
    radius: Annotated[float, Field(gt=1, le=20)]


class MakeMasks(Refinement):
    refinement: list[Literal["pamr", "random_walk", "crf"]]
    background_score: BackgroundScore
    undecided: Annotated[float, Field(ge=0, lt=1)]
    random_walk: RandomWalk | None = None


class TrainSegmenter(Training):
    supervision: Literal["tags", "masks"]
    head: Literal["deeplabv3", "lraspp", "deeplabv2"]


class PredictionCrf(Crf):
    enabled: bool


class PredictMasks(Section):
    splits: Annotated[list[Literal["train", "val", "test"]], Field(min_length=1)]
    scales: Annotated[list[Positive], Field(min_length=1)]
    flip: bool
    crf: PredictionCrf


class Report(Section):
    gallery: Annotated[int, Field(ge=0)]
    worst: Annotated[int, Field(ge=0)]


class Params(Section):
    """The whole file. A field's name is its section's, a section's name is its stage's."""

    source: Origin
    seed: Annotated[int, Field(ge=0)]
    compute: Compute
    download_data: DownloadData
    index_data: IndexData
    download_backbone: DownloadBackbone
    train_cam: TrainCam
    infer_cams: InferCams
    train_boundary: TrainBoundary
    make_masks: MakeMasks
    train_segmenter: TrainSegmenter
    predict_masks: PredictMasks
    report: Report

    @model_validator(mode="after")
    def _test_images_are_known(self) -> "Params":
        if self.download_data.test and self.source != "voc2012":
            raise ValueError("download_data.test: only source voc2012 has test images to download")
        return self

    @model_validator(mode="after")
    def _the_walk_has_boundaries(self) -> "Params":
        if "random_walk" in self.make_masks.refinement and not self.train_boundary.enabled:
            raise ValueError(
                "make_masks.refinement: random_walk needs the boundary network, train_boundary.enabled: true"
            )
        return self


def read_params(path: Path) -> Params:
    """Read and check a params file.

    Raises:
        InputError: the file is missing or no YAML, or names every field that is unknown, missing or wrong.
    """
    return check(Params, read_yaml(path), path)


def read_yaml(path: Path) -> Any:
    """What a YAML file says.

    Raises:
        InputError: it is missing or no YAML.
    """
    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not YAML: {error}") from error


def check(kind: type[Checked], values: Any, path: Path | str) -> Checked:
    """Check `values`, as parsed from `path`, which is named in what is said of them.

    Raises:
        InputError: one line per field that is unknown, missing or wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError("\n".join(_in_words(path, e) for e in error.errors())) from error


def _in_words(path: Path | str, error: Any) -> str:
    field = ".".join(str(part) for part in error["loc"] if "[" not in str(part)) or "(whole file)"
    match error["type"]:
        case "extra_forbidden":
            reason = "unknown key"
        case "missing":
            return f"{path}: {field}: is missing"
        case "value_error":  # ours, of several fields, which it names
            return f"{path}: {field}: {error['msg'].removeprefix('Value error, ')}"
        case _:
            reason = error["msg"][0].lower() + error["msg"][1:]
    return f"{path}: {field}: {reason}, got {error['input']!r}"
