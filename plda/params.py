"""The schema of params.yaml: one frozen class per section, with types and ranges.

There are no defaults: the params file holds every value of a run. Unknown and missing keys, wrong types and
values out of range are rejected before any work starts. Only a key that allows None may be left out, if the
run does not use it: the section of a refinement that is in no chain.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from plda.backbone_names import known_name
from plda.errors import InputError
from plda.yaml_file import read_yaml

LONGEST_SHOWN = 100  # characters of a value or a name in an error message

Positive = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Factor = Annotated[float, Field(ge=0.01, le=16)]  # scales an image's sides; memory grows with its square
BackgroundScore = Literal["auto"] | Annotated[float, Field(gt=0, lt=1)]
Origin = Literal["creatures", "folder", "voc2012", "coco2014"]
Backbone = Annotated[str, AfterValidator(known_name)]
OutputStride = Literal[8, 14, 16, 32]  # 14: vision transformers with such patches, a fixed stride


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Checked = TypeVar("Checked", bound=Section)


Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "32", "bf16", "16"]


class Compute(Section):
    """The hardware that a job uses. No stage depends on it, so a change reruns nothing.

    The `devices` processes share each batch: it holds the same images for any number of processes.
    """

    device: Device
    devices: Annotated[int, Field(ge=1, le=1024)]
    precision: Precision
    workers: Annotated[int, Field(ge=0, le=256)]

    @model_validator(mode="after")
    def _device_can_be_shared(self) -> "Compute":
        if self.device == "mps" and self.devices > 1:
            raise ValueError(f"devices: must be 1 with device mps, got {self.devices}")
        return self


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
    seed: Seed


class IndexData(Section):
    folder: Annotated[str, Field(min_length=1)]
    long_side: Annotated[int, Field(ge=32, le=100_000)] | None
    creatures: Creatures


class Weights(Section):
    name: Backbone
    weights: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]


class DownloadBackbone(Section):
    cams: Weights
    segmenter: Weights


class Schedule(Section):
    """Settings of every trainer."""

    epochs: Count
    stop_after: Count | None
    batch_size: Count
    crop: Annotated[int, Field(ge=32, le=4096)]
    scale: tuple[Factor, Factor]
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
            raise ValueError("scale: the smaller factor must come first")
        if (self.stop_after or 0) > self.epochs:
            raise ValueError("stop_after: must not be greater than epochs")
        if self.batch_size == 1 and (reason := self.needs_two_images()):
            raise ValueError(f"batch_size: must be at least 2 {reason}, got 1")
        return self

    def needs_two_images(self) -> str:
        """Return the settings that need a batch of two or more images, "" if one image is enough.

        Batch norm in training mode needs more than one value per channel.
        """
        return ""


class Training(Schedule):
    """Settings of every trainer of a backbone."""

    output_stride: OutputStride
    batch_norm: Literal["trained", "frozen"]
    freeze: Literal["none", "stem", "all"]

    def _ends_in_one_pixel(self, side: int) -> str:
        """Return why the last feature map of an image of `side` pixels is a single pixel, "" if it is not."""
        return (
            f"with output_stride {self.output_stride} and a crop of this size"
            if side <= self.output_stride
            else ""
        )


class Adaptation(Section):
    """The settings of PLDA; params.yaml explains them."""

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
    baseline: Literal["cam", "seam", "lse"]
    adaptation: Adaptation
    inspected: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _adversary_has_features_to_adapt(self) -> "TrainCam":
        if self.freeze == "all" and self.adaptation.enabled and self.adaptation.adversary:
            raise ValueError(
                "adaptation.adversary: must be 0 with freeze: all, which trains no features, "
                f"got {self.adaptation.adversary}"
            )
        return self

    def needs_two_images(self) -> str:
        """Return what `Schedule.needs_two_images` returns."""
        side = max(32, round(0.3 * self.crop)) if self.baseline == "seam" else self.crop  # seam's second view
        return self._ends_in_one_pixel(side) if self.batch_norm == "trained" else ""


class InferCams(Section):
    scales: Annotated[list[Factor], Field(min_length=1)]
    flip: bool


class Pamr(Section):
    iterations: Count


class Regions(Section):
    scales: Annotated[list[Annotated[float, Field(ge=1, le=100_000)]], Field(min_length=1)]


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


class GuidedFilter(Section):
    radius: Count
    softness: Positive


class Refinement(Section):
    """A chain of refinements and a section for each of its steps; other steps need no section."""

    refinement: Sequence[str]
    pamr: Pamr | None = None
    crf: Crf | None = None

    def of(self, step: str) -> dict[str, Any]:
        """Return the settings of a step of the chain."""
        return dict(getattr(self, step))

    @model_validator(mode="after")
    def _chain_is_sound(self) -> "Refinement":
        for step in self.refinement:
            if getattr(self, step) is None:
                raise ValueError(f"{step}: is missing, but refinement contains it")
        if len(set(self.refinement)) < len(self.refinement):
            raise ValueError("refinement: duplicate step")
        if "crf" in self.refinement[:-1]:
            raise ValueError("refinement: crf must come last, because its maps have the image's size")
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
    refinement: list[Literal["pamr", "guided_filter", "regions", "random_walk", "crf"]]
    background_score: BackgroundScore
    undecided: Annotated[float, Field(ge=0, lt=1)]
    review: Annotated[str, Field(min_length=1)]
    regions: Regions | None = None
    random_walk: RandomWalk | None = None
    guided_filter: GuidedFilter | None = None

    @model_validator(mode="after")
    def _the_walk_comes_before_regions(self) -> "MakeMasks":
        chain = self.refinement
        if {"random_walk", "regions"} <= {*chain} and chain.index("regions") < chain.index("random_walk"):
            raise ValueError(
                "refinement: random_walk must come before regions, whose maps are too fine for it, "
                f"got {chain}"
            )
        return self


class SegmenterTraining(Training):
    """Settings of every trainer of a segmentation network."""

    head: Literal["deeplabv3", "lraspp", "deeplabv2"]
    object_share: Literal["matched", "learnt"]

    def needs_two_images(self) -> str:
        """Return what `Schedule.needs_two_images` returns.

        The heads deeplabv3 and lraspp train batch norm for every value of `batch_norm`.
        """
        if self.head == "deeplabv3":
            return "with head deeplabv3, which averages each image to one value"
        if self.head == "lraspp":
            return self._ends_in_one_pixel(self.crop // 2 + 1)  # convnext_tiny rounds down
        return self._ends_in_one_pixel(self.crop) if self.batch_norm == "trained" else ""


class RelabelMasks(Refinement, SegmenterTraining):
    enabled: bool
    refinement: list[Literal["pamr", "regions"]]
    undecided: Annotated[float, Field(ge=0, lt=1)]
    regions: Regions | None = None


class TrainSegmenter(SegmenterTraining):
    supervision: Literal["tags", "masks"]
    tagger: Literal["cams", "none"]


class PredictMasks(Refinement):
    splits: Annotated[list[Literal["train", "val", "test"]], Field(min_length=1)]
    scales: Annotated[list[Factor], Field(min_length=1)]
    flip: bool
    refinement: list[Literal["pamr", "regions", "crf"]]
    regions: Regions | None = None


class Report(Section):
    gallery: Annotated[int, Field(ge=0)]
    worst: Annotated[int, Field(ge=0)]


class Params(Section):
    """The whole params file. A section has the name of the stage that it configures."""

    source: Origin
    seed: Seed
    compute: Compute
    download_data: DownloadData
    index_data: IndexData
    download_backbone: DownloadBackbone
    train_cam: TrainCam
    infer_cams: InferCams
    train_boundary: TrainBoundary
    make_masks: MakeMasks
    relabel_masks: RelabelMasks
    train_segmenter: TrainSegmenter
    predict_masks: PredictMasks
    report: Report

    @model_validator(mode="after")
    def _test_images_are_known(self) -> "Params":
        if self.download_data.test and self.source != "voc2012":
            raise ValueError("download_data.test: only source voc2012 has test images to download")
        return self

    @model_validator(mode="after")
    def _processes_can_share(self) -> "Params":
        devices = self.compute.devices
        trainers: dict[str, Schedule] = {
            "train_cam": self.train_cam,
            "train_segmenter": self.train_segmenter,
        }
        if self.train_boundary.enabled:
            trainers["train_boundary"] = self.train_boundary
        if self.relabel_masks.enabled:
            trainers["relabel_masks"] = self.relabel_masks
        for name, trainer in trainers.items():
            if trainer.batch_size % devices:
                raise ValueError(
                    f"{name}.batch_size: must be a multiple of compute.devices, which is {devices}, "
                    f"got {trainer.batch_size}"
                )
        return self

    @model_validator(mode="after")
    def _the_walk_has_boundaries(self) -> "Params":
        if "random_walk" in self.make_masks.refinement and not self.train_boundary.enabled:
            raise ValueError(
                "make_masks.refinement: random_walk needs the boundary network: set train_boundary.enabled"
            )
        return self


def read_params(path: Path) -> Params:
    """Read and check a params file.

    Raises:
        InputError: the file is missing or not YAML, or fields are unknown, missing or wrong; names each one.
    """
    return check(Params, read_yaml(path), path)


def check(kind: type[Checked], values: Any, path: Path | str) -> Checked:
    """Check `values`, which were parsed from `path`; error messages name `path`.

    Raises:
        InputError: one line per field that is unknown, missing or wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError("\n".join(_in_words(path, e) for e in error.errors())) from error


def _in_words(path: Path | str, error: Any) -> str:
    field = ".".join(str(part) for part in error["loc"] if "[" not in str(part))
    got = _shortened(repr(error["input"]))
    match error["type"]:
        case "extra_forbidden":
            reason = "unknown key"
        case "missing":
            return f"{path}: {field}: is missing"
        case "value_error":  # raised by this module; the message names the field
            name = error["msg"].removeprefix("Value error, ")
            return f"{path}: {field}.{name}" if field else f"{path}: {name}"
        case "model_type" if not field:
            return f"{path}: must hold keys with values, got {got if error['input'] else 'nothing'}"
        case "model_type" | "dict_type":
            reason = "must be a section with keys and values"
        case "string_type":
            reason = "must be text; put it in quotes"
        case _:
            reason = error["msg"][0].lower() + error["msg"][1:]
    return f"{path}: {_shortened(field)}: {reason}, got {got}"


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} ..."
