"""The training masks of a finished run, worst first."""

from pathlib import Path

from plda.data.archive import Archive
from plda.data.data_set import DataSet
from plda.data.images import read_file
from plda.data.index import Entry
from plda.data.table import read_table
from plda.errors import InputError
from plda.masks.estimate import COLUMNS, read_estimates
from plda.masks.folder import mask_path
from plda.masks.review import image_name

DATA_SET, MASKS, ESTIMATES = "index_data/data_set", "relabel_masks/masks", "relabel_masks/estimates.csv"


class Run:
    """The training images of a run with their masks.

    Attributes:
        data: the data set.
        expected: expected IoU of the masks in percent, by the image's key; empty if the run has no estimates.
        entries: the training images by their name in a review's table: lowest expected IoU first, or in the
            data set's order.
    """

    def __init__(self, results: Path) -> None:
        """Read the tables of a run.

        Args:
            results: folder of the run, such as results/main.

        Raises:
            InputError: the run is not finished, or a table is invalid.
        """
        for name in (DATA_SET, MASKS, ESTIMATES):
            if not (results / name).exists():
                raise InputError(
                    f"{results}: RESULTS: must be the folder of a run with {name}, got none; "
                    "run `snakemake --cores all` first"
                )
        self.data = DataSet(results / DATA_SET)
        self._masks = results / MASKS
        self._archive = Archive(self.data.folder / "images.zip")
        training, estimates = self.data.training, results / ESTIMATES
        for entry in training:
            if not mask_path(self._masks, entry).exists():
                raise InputError(
                    f"{mask_path(self._masks, entry)}: must be the mask of {entry.image}, got no file; "
                    "run `snakemake --cores all` first"
                )
        # no rows if relabel_masks.enabled is false
        self.expected = read_estimates(estimates, training) if read_table(estimates, COLUMNS) else {}
        worst_first = sorted(training, key=lambda entry: self.expected.get(entry.key, 0))
        self.entries = {image_name(entry): entry for entry in worst_first}

    def photo(self, entry: Entry) -> bytes:
        """Return the file of an image, JPEG or PNG."""
        return self._archive.read(entry.image)

    def mask(self, entry: Entry) -> bytes:
        """Return the file of the training mask of an image.

        Raises:
            InputError: it cannot be read.
        """
        return read_file_of(mask_path(self._masks, entry))


def read_file_of(path: Path) -> bytes:
    """Read a file; errors name it."""
    try:
        return read_file(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
