"""Convert patches from any source into a store, with a report on their labels and duplicates."""

from pathlib import Path

from absl import flags

from experiments import launch
from pcamjax.data.download import BASE_URL, download_pcam
from pcamjax.data.duplicates import find_duplicates
from pcamjax.data.sources.folder import open_folder
from pcamjax.data.sources.kaggle import open_kaggle
from pcamjax.data.sources.pcam_hdf5 import PARTS, open_pcam_hdf5
from pcamjax.data.sources.synthetic import open_synthetic
from pcamjax.data.store import Patches, Source, refuse_existing, write_store
from pcamjax.errors import InputError
from pcamjax.files import write_json
from pcamjax.report.data_page import write_data_page

LAYOUTS = ["pcam", "kaggle", "tfds", "folder", "synthetic", "download"]
SOURCE = flags.DEFINE_enum("source", None, LAYOUTS,
                           "The layout of the input; download fetches PCam into --input first.")
INPUT = flags.DEFINE_string("input", None, "The folder with the data; synthetic needs none.")
PUBLISHED = flags.DEFINE_bool("verify_published", False, "pcam: demand the published sizes and hashes.")
TABLE = flags.DEFINE_string("table", None, "folder: the CSV file, if it is not <input>/labels.csv.")
COUNTS = flags.DEFINE_list("counts", ["4000", "1000", "1000"], "synthetic: train, valid and test patches.")
SEED = flags.DEFINE_integer("seed", 0, "synthetic: the seed.")
DOWNLOAD_PARTS = flags.DEFINE_list("parts", list(PARTS), "download: the parts to fetch.")
URL = flags.DEFINE_string("base_url", BASE_URL, "download: the address of the folder with the files.")


def open_source(output: Path) -> Source:
    """The source that the flags name, downloaded first if they say so."""
    if SOURCE.value == "synthetic":
        if len(COUNTS.value) != len(PARTS) or not all(count.isdecimal() for count in COUNTS.value):
            raise InputError(f"--counts={','.join(COUNTS.value)}: expected three whole numbers, as "
                             "4000,1000,1000")
        counts = {part: int(count) for part, count in zip(PARTS, COUNTS.value, strict=True) if int(count)}
        return open_synthetic(counts, SEED.value)
    if not INPUT.value:
        raise InputError(f"--input is missing; name the folder of the {SOURCE.value} data")
    match SOURCE.value:
        case "download":
            folder = download_pcam(INPUT.value, parts=DOWNLOAD_PARTS.value, base_url=URL.value)
            return open_pcam_hdf5(folder, verify_published=True, output=output)
        case "pcam":
            return open_pcam_hdf5(INPUT.value, verify_published=PUBLISHED.value, output=output)
        case "kaggle":
            return open_kaggle(INPUT.value)
        case "folder":
            return open_folder(INPUT.value, TABLE.value)
        case "tfds":
            from pcamjax.data.sources.tfds import open_tfds  # the only one that loads tensorflow_datasets
            return open_tfds(INPUT.value)


def report(patches: Patches) -> Path:
    """Prints counts and duplicates, writes them into the store's folder `report` and returns the page."""
    for part, counts in patches.manifest["parts"].items():
        print(f"{part}: {counts['count']:,} patches, {counts['positive']:,} metastasis, "
              f"{counts['negative']:,} healthy, {counts['unlabelled']:,} unlabelled, "
              f"slides: {counts['slides'] or 'not known'}")
    duplicates = find_duplicates(patches)
    print(duplicates.summary())
    write_json(patches.path / "report" / "duplicates.json", duplicates.to_dict())
    return write_data_page(patches, patches.path / "report")


def _lacks_report(output: Path) -> bool:
    """Whether there is a whole store whose report was cut short."""
    return (output / "manifest.json").is_file() and not (output / "report" / "index.html").exists()


def _converted_before(source: Source, output: Path) -> Patches:
    """The store at `output`, if a conversion of this source has written it.

    Raises:
      InputError: it is of another source.
    """
    patches = Patches.open(output)
    if (patches.manifest["source"], len(patches)) != (source.name, len(source)):
        refuse_existing(output)
    print(f"{output}: converted before, only its report is made")
    return patches


def run() -> None:
    if not SOURCE.value or not launch.OUTPUT.value:
        raise InputError(f"--source and --output are needed; sources are {', '.join(LAYOUTS)}")
    output = Path(launch.OUTPUT.value)
    if not _lacks_report(output):
        refuse_existing(output)
    source = open_source(output)
    if _lacks_report(output):
        patches = _converted_before(source, output)
    else:
        patches = write_store(source, output)
    page = report(patches)
    print(f"store: {output}\nreport: {page}")


if __name__ == "__main__":
    launch.main(run)
