"""A patch_camelyon that TensorFlow Datasets itself wrote, read with and without TensorFlow."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.datasets.patch_camelyon.patch_camelyon_dataset_builder import Builder

from pcamjax.data.sources.tfds import open_tfds
from pcamjax.data.store import Patches, write_store
from pcamjax.errors import InputError

# TFDS and TensorFlow warn about themselves; what this project says is not in question here.
pytestmark = pytest.mark.filterwarnings("default")

COUNTS = {"train": 7, "valid": 4, "test": 3}
IMAGES = {part: np.random.default_rng(i).integers(0, 256, (count, 96, 96, 3), np.uint8)
          for i, (part, count) in enumerate(COUNTS.items())}

WITHOUT_TENSORFLOW = """
import sys
from importlib.machinery import PathFinder

class Hidden(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "tensorflow" else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hidden
from pcamjax.data.sources.tfds import open_tfds
from pcamjax.data.store import write_store
from pcamjax.errors import InputError
try:
    write_store(open_tfds(sys.argv[1]), sys.argv[2])
except InputError as error:
    print(error)
assert "tensorflow" not in sys.modules
"""


class LocalFiles:
    """Stands for the download of TFDS: the same files, written here from the arrays above."""

    def __init__(self, folder: Path):
        self.folder = folder
        for part, images in IMAGES.items():
            labels = (np.arange(len(images)) % 2).astype(np.uint8).reshape(-1, 1, 1, 1)
            for axis, array in (("x", images), ("y", labels)):
                with h5py.File(folder / f"camelyonpatch_level_2_split_{part}_{axis}.h5", "w") as file:
                    file[axis] = array

    def download_and_extract(self, resources):
        return {key: self.folder / Path(url).name.removesuffix(".gz") for key, url in resources.items()}


class PatchCamelyon(Builder, skip_registration=True):
    """TFDS' own builder, reading local files."""

    name = "patch_camelyon"
    code_path = None  # there are no checksums to be looked for beside the code

    def _split_generators(self, dl_manager):
        return super()._split_generators(LocalFiles(Path(self.data_dir).parent))


@pytest.fixture(scope="module", params=["array_record", "tfrecord"])
def prepared(request, tmp_path_factory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    PatchCamelyon(data_dir=folder, file_format=request.param).download_and_prepare()
    return request.param, folder


def assert_holds_the_arrays(patches: Patches):
    assert {part: counts["count"] for part, counts in patches.manifest["parts"].items()} == {
        "train": 7, "valid": 4, "test": 3}
    for row, name in enumerate(patches.ids.tolist()):
        part, i = name.split("_")
        np.testing.assert_array_equal(patches.images[row], IMAGES[part][int(i)])
        assert patches.labels[row] == int(i) % 2 and patches.parts[row] == part


def test_what_tfds_wrote_is_what_we_read(prepared, tmp_path):
    _, folder = prepared
    for number, opened in enumerate((folder, folder / "patch_camelyon" / "2.0.0")):
        assert_holds_the_arrays(write_store(open_tfds(opened), tmp_path / f"store{number}"))


def test_array_records_are_read_without_tensorflow(prepared, tmp_path):
    file_format, folder = prepared
    done = subprocess.run([sys.executable, "-c", WITHOUT_TENSORFLOW, folder, tmp_path / "store"], check=True,
                          capture_output=True, text=True)
    if file_format == "array_record":
        assert_holds_the_arrays(Patches.open(tmp_path / "store"))
    else:
        assert "TFRecord files, which need TensorFlow: pip install 'pcamjax[tfds]'" in done.stdout
        assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_prepared_data_set_says_how_to_prepare_one(tmp_path):
    with pytest.raises(InputError, match="no prepared patch_camelyon here; prepare it: tfds build"):
        open_tfds(tmp_path)


def test_a_damaged_data_set_is_refused_and_leaves_no_store(prepared, tmp_path):
    file_format, folder = prepared
    version = tmp_path / "copy" / "patch_camelyon" / "2.0.0"
    version.mkdir(parents=True)
    for file in (folder / "patch_camelyon" / "2.0.0").iterdir():
        content = file.read_bytes()
        (version / file.name).write_bytes(content[:len(content) // 2] if "-test." in file.name else content)
    with pytest.raises(InputError, match=r"2\.0\.0"):
        write_store(open_tfds(tmp_path / "copy"), tmp_path / "store")
    (version / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="TFDS cannot read it"):
        open_tfds(tmp_path / "copy")
    assert [file.name for file in tmp_path.iterdir()] == ["copy"]


def test_another_data_set_is_refused(tmp_path):
    class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        code_path = None

        def _info(self):
            features = tfds.features.FeaturesDict({"digit": np.int64})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield 0, {"digit": 3}

    Digits(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    with pytest.raises(InputError, match="features .*digit.* expected id, image and label"):
        open_tfds(tmp_path / "digits" / "1.0.0")
