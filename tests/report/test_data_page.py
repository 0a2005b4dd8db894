"""The data page: its figures are those of the store."""

import re

import numpy as np

from pcamjax.data.store import PatchBatch, write_store
from pcamjax.report.data_page import write_data_page


class Source:
    """24 patches: 16 of train, 5 of valid, 3 unlabelled of test; one slide on both sides; one image twice."""

    name = "<b>test source</b>"

    def __len__(self):
        return 24

    def batches(self):
        images = np.random.default_rng(0).integers(0, 256, (24, 96, 96, 3), dtype=np.uint8)
        images[20] = images[0]
        labels = np.array([1, 0, 0, 0] * 4 + [1, 1, 0, 0, 0] + [-1] * 3, np.int8)
        slides = ["s1"] * 8 + ["s2"] * 8 + ["s2"] * 5 + [""] * 3
        yield PatchBatch(images, labels, [f"p{i:02d}" for i in range(24)], slides,
                         ["train"] * 16 + ["valid"] * 5 + ["test"] * 3)


def test_data_page(tmp_path):
    patches = write_store(Source(), tmp_path / "store")
    page = write_data_page(patches, tmp_path / "page")
    assert page == tmp_path / "page" / "index.html"
    html = page.read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.split("</style>")[1]))
    for words in ("Data: &lt;b&gt;test source&lt;/b&gt;", "24 patches of 96×96", "train 16 12 4 0 25.00 2",
                  "valid 5 3 2 0 40.00 1", "test 3 0 0 3 – not known",
                  "Slides that lie in more than one part: 1.",
                  "Patches whose slide is not known: 3", "1 of 24 patches repeat another exactly",
                  "Same pixels, both labels: p00 = p20.", patches.sha256):
        assert words in text, words
    assert not re.search(r"https?:|<script|<link|@import|url\(", html)
    assert len(re.findall(r'src="data:image/png;base64,', html)) == html.count("<img") == 6
    assert {path.name for path in (tmp_path / "page" / "figures").iterdir()} == {
        "class_proportions.png", "patches_train.png", "patches_valid.png", "patches_test.png",
        "augmentation_1.png", "augmentation_2.png"}
