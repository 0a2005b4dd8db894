"""Files of every generation of names give exactly the values in them; any other file gives one clear line."""

import re
import shutil
import zipfile

import h5py
import numpy as np
import pytest
from weights.keras_files import (
    Layer,
    backbone,
    keras_1,
    keras_2,
    keras_3,
    random_layers,
    renamed,
    write_legacy,
    write_numbered,
)

from pcamjax.errors import InputError
from pcamjax.models import MODELS, WeightsFile
from pcamjax.weights import conversion
from pcamjax.weights.conversion import read_tensors
from pcamjax.weights.tensors import swap_axes, with_tensors

NAME = "mobilenet_025"


@pytest.fixture(scope="module")
def layers():
    return random_layers(NAME)


@pytest.fixture(scope="module")
def base(layers):
    return backbone(layers, NAME)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.h5"


def assert_read(path, layers, name=NAME, classifier="read", **options):
    """The file gives exactly the values of these layers, in our axes."""
    found = read_tensors(path, name, **options)
    expected = {tensor.path: swap_axes(tensor.role, layer.tensors[tensor.role])
                for ours, layer in zip(with_tensors(name, **options), layers, strict=False) for tensor in ours.tensors}
    assert found.classifier == classifier and found.tensors.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(found.tensors[key], values)


def refused(path, message, name=NAME, **options):
    """The file is refused in one line that begins with its path and says this."""
    with pytest.raises(InputError, match=message) as error:
        read_tensors(path, name, **options)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("names", [keras_1, keras_2, keras_3])
@pytest.mark.parametrize("under", [None, "model_weights"])
def test_names_of_every_generation(path, layers, names, under):
    assert_read(write_legacy(path, renamed(layers, names), under), layers)


def test_names_with_slashes(path, layers):
    with_slashes = renamed(layers, keras_2, lambda name: name.replace("_bn", "/bn"))
    assert_read(write_legacy(path, with_slashes), layers)


def test_lists_of_names_over_several_attributes(path, layers):
    assert_read(write_legacy(path, renamed(layers), split=True), layers)


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("inside", ["layers", "layers/functional/layers"])
def test_numbered_layers(path, layers, names, inside):
    assert_read(write_numbered(path, NAME, layers, inside, names), layers)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_keras_archive(tmp_path, layers, compression):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("config.json", "{}")
        archive.write(write_numbered(tmp_path / "inside.h5", NAME, layers), "model.weights.h5")
    assert_read(path, layers)


def test_content_tells_the_format_not_the_name(tmp_path, layers):
    assert_read(write_legacy(tmp_path / "model.keras", renamed(layers)), layers)
    assert_read(write_legacy(tmp_path / "legacy.weights.h5", renamed(layers)), layers)


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_other_precisions_become_single(path, base, kind):
    halves = [Layer(layer.name, {role: values.astype(np.float16) for role, values in layer.tensors.items()})
              for layer in base]
    stored = [Layer(layer.name, {role: values.astype(kind) for role, values in layer.tensors.items()})
              for layer in halves]
    assert_read(write_legacy(path, renamed(stored)), halves, classifier="not in the file")
    assert all(values.dtype == np.float32 for values in read_tensors(path, NAME).tensors.values())


def test_compressed_values(path, base):
    write_legacy(path, renamed(base))
    with h5py.File(path, "r+") as file:
        values = file["conv_pw_13/conv_pw_13/kernel"][()]
        del file["conv_pw_13/conv_pw_13/kernel"]
        file.create_dataset("conv_pw_13/conv_pw_13/kernel", data=values, compression="gzip")
    assert_read(path, base, classifier="not in the file")


def from_a_session(name):
    """What Keras calls a layer in a session that has had other layers before."""
    return re.sub(r"^(conv2d|batch_normalization)(_(\d+))?$", lambda m: f"{m[1]}_{int(m[3] or 0) + 94}", name)


def test_automatic_numbers_may_begin_anywhere(path):
    layers = random_layers("inception_v3")
    dense = {"dense1": "dense_2", "dense2": "dense_3", "logits": "dense_4"}
    names = [dense.get(layer.name, from_a_session(layer.name)) for layer in layers]
    stored = [Layer(name, layer.tensors) for name, layer in zip(names, layers, strict=True)]
    assert_read(write_legacy(path, renamed(stored)), layers, "inception_v3")
    one, other = (i for i, layer in enumerate(layers) if layer.name in ("conv2d_40", "conv2d_49"))
    assert layers[one].tensors["kernel"].shape == layers[other].tensors["kernel"].shape
    stored[one], stored[other] = stored[other], stored[one]
    refused(write_legacy(path, renamed(stored)), "'conv2d_143', as conv2d_49 counted from 0, stands where 'conv2d_40'",
            "inception_v3")


def test_a_base_saved_as_one_layer_of_a_partly_frozen_model(path, layers, base):
    """Keras lists what is trained, then the rest: here the first twenty layers are frozen."""
    inner = [(i, name, values) for i, layer in enumerate(renamed(base)) for name, values in layer.tensors.items()]
    inner.sort(key=lambda entry: entry[0] < 20 or "moving" in entry[1])
    outer = [Layer("mobilenet_0.25_96", {name: values for _, name, values in inner}), *renamed(layers[len(base):])]
    assert next(iter(outer[0].tensors)) != "conv1/kernel"
    assert_read(write_legacy(path, outer), layers)


def test_a_file_without_our_classifier(path, base):
    assert_read(write_legacy(path, renamed(base)), base, classifier="not in the file")


@pytest.fixture(scope="module")
def with_imagenet(base):
    rng = np.random.default_rng(1)
    return [*base, Layer("conv_preds", {"kernel": rng.normal(size=(1, 1, 256, 1000)).astype(np.float32),
                                        "bias": rng.normal(size=1000).astype(np.float32)})]


def test_imagenets_classifier_is_left_out_of_ours(path, base, with_imagenet):
    for file in (write_legacy(path, renamed(with_imagenet)),
                 write_numbered(path, NAME, with_imagenet, imagenet=True),
                 write_numbered(path, NAME, with_imagenet, imagenet=True, names=False)):
        assert_read(file, base, classifier="ImageNet's, left out")


def test_the_form_for_imagenet_needs_its_classifier(path, layers, base, with_imagenet):
    assert_read(write_legacy(path, renamed(with_imagenet)), with_imagenet, imagenet=True)
    refused(write_legacy(path, renamed(base)), "holds no classifier for ImageNet, 'conv_preds' is missing",
            imagenet=True)
    refused(write_legacy(path, renamed(layers)), "'dense1' stands where 'conv_preds' is expected", imagenet=True)


def swap(layers, one, other):
    position = {layer.name: i for i, layer in enumerate(layers)}
    layers = list(layers)
    layers[position[one]], layers[position[other]] = layers[position[other]], layers[position[one]]
    return layers


def of_layer(layers, name, change):
    """These layers with other tensors in one."""
    return [Layer(layer.name, change(dict(layer.tensors))) if layer.name == name else layer for layer in layers]


def reordered(*order):
    return lambda tensors: {role: tensors[role] for role in order}


STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")
BAD = {
    "two blocks' layers of one shape swapped": (
        lambda base: swap(base, "conv_pw_8", "conv_pw_9"), "'conv_pw_9' stands where 'conv_pw_8' is expected"),
    "two layers of one block and one shape swapped": (
        lambda base: swap(base, "conv_dw_3_bn", "conv_pw_3_bn"), "'conv_pw_3_bn' stands where 'conv_dw_3_bn'"),
    "the layers backwards": (lambda base: base[::-1], "'conv_pw_13_bn' stands where 'conv1' is expected"),
    "two tensors of one layer swapped": (
        lambda base: of_layer(base, "conv1_bn", reordered("beta", "gamma", *STATISTICS[2:])),
        "conv1_bn/beta stands in 'conv1_bn' where conv1_bn/gamma is expected"),
    "mean and variance swapped": (
        lambda base: of_layer(base, "conv_pw_5_bn", reordered(*STATISTICS[:2], "moving_variance", "moving_mean")),
        "conv_pw_5_bn/moving_variance stands in 'conv_pw_5_bn' where conv_pw_5_bn/moving_mean is expected"),
    "a tensor missing": (
        lambda base: of_layer(base, "conv1_bn", reordered(*STATISTICS[:3])),
        "'conv1_bn' holds 3 tensors, expected 'conv1_bn' with gamma, beta, moving_mean, moving_variance"),
    "a layer missing": (
        lambda base: [layer for layer in base if layer.name != "conv_pw_4"],
        "'conv_pw_4_bn' stands where 'conv_pw_4' is expected"),
    "the last layer missing": (lambda base: base[:-1], "ends where 'conv_pw_13_bn' is expected"),
    "a tensor too many": (
        lambda base: of_layer(base, "conv1", lambda tensors: tensors | {"bias": np.zeros(8, np.float32)}),
        "'conv1' holds 2 tensors, expected 'conv1' with kernel"),
    "a layer too many": (
        lambda base: [*base[:4], Layer("conv_0", base[0].tensors), *base[4:]],
        "'conv_0' stands where 'conv_pw_1' is expected"),
    "another classifier": (
        lambda base: [*base, Layer("dense", {"kernel": np.zeros((256, 2), np.float32), "bias": np.zeros(2)})],
        r"dense/kernel has the shape \[256, 2\], dense1/kernel is expected with \[256, 1024\]"),
    "another shape": (
        lambda base: of_layer(base, "conv1", lambda tensors: {"kernel": tensors["kernel"][:, :, :2]}),
        r"conv1/kernel has the shape \[3, 3, 2, 8\], conv1/kernel is expected with \[3, 3, 3, 8\]"),
    "axes the other way round": (
        lambda base: of_layer(base, "conv_dw_1", lambda tensors: {
            "depthwise_kernel": tensors["depthwise_kernel"].swapaxes(2, 3)}),
        r"conv_dw_1/depthwise_kernel has the shape \[3, 3, 1, 8\]"),
    "integers": (
        lambda base: of_layer(base, "conv1", lambda tensors: {"kernel": tensors["kernel"].astype(np.int32)}),
        "conv1/kernel does not hold floating point numbers"),
    "not a number": (
        lambda base: of_layer(base, "conv1", lambda tensors: {"kernel": tensors["kernel"] * np.float32(np.nan)}),
        "conv1/kernel holds values that are not finite"),
    "too large a number": (
        lambda base: of_layer(base, "conv1", lambda tensors: {"kernel": tensors["kernel"] * np.float64(1e300)}),
        "conv1/kernel holds values that are not finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_legacy_file_that_does_not_fit(path, base, case):
    change, message = BAD[case]
    write_legacy(path, renamed(change(base)))
    refused(path, f"{message}.*; restore the file, or save {NAME} with Keras again")


def test_a_tensor_in_another_layer_of_the_same_shape(path, base):
    stored = renamed(base)
    one, other = (next(layer for layer in stored if layer.name == name) for name in ("conv_pw_8", "conv_pw_9"))
    one.tensors["conv_pw_9/kernel"] = other.tensors.pop("conv_pw_9/kernel")
    other.tensors["conv_pw_8/kernel"] = one.tensors.pop("conv_pw_8/kernel")
    refused(write_legacy(path, stored), "conv_pw_9/kernel stands in 'conv_pw_8' where conv_pw_8/kernel is expected")


def test_layers_beyond_the_last(path, layers):
    more = Layer("more", {"kernel": np.zeros((2, 2), np.float32)})
    refused(write_legacy(path, renamed([*layers, more])), "'more' is left over, 'logits' is expected to be the last")


def test_numbered_layers_swapped_are_told_by_their_names(path, layers):
    refused(write_numbered(path, NAME, swap(layers, "conv_pw_8", "conv_pw_9")),
            "'conv_pw_9' stands where 'conv_pw_8' is expected")


@pytest.mark.parametrize(("gone", "message"), [
    ("layers/conv2d_5", "layers/conv2d_6 is there, but not layers/conv2d_5"),
    ("layers/batch_normalization_3/vars/1", "layers/batch_normalization_3 has the tensor 3, but not all before it"),
    ("layers/batch_normalization_26", r"layers/dense/vars/0.* \[256, 1024\], conv_pw_13_bn/gamma is expected|"
                                      "'dense1' stands where 'conv_pw_13_bn' is expected"),
])
def test_numbered_layers_with_a_gap(path, layers, gone, message):
    write_numbered(path, NAME, layers)
    with h5py.File(path, "r+") as file:
        del file[gone]
    refused(path, message)


@pytest.mark.parametrize("write", [lambda path, base: write_legacy(path, renamed(base)),
                                   lambda path, base: write_numbered(path, NAME, base)])
def test_the_network_that_a_file_does_fit_is_named(path, base, write):
    refused(write(path, base), r"conv1/kernel is expected with \[3, 3, 3, 16\]; its tensors are those of "
                               f"{NAME}, load them as that", "mobilenet_050")


def test_another_networks_file_is_refused(path, base):
    refused(write_legacy(path, renamed(base)), f"'conv1' stands where 'block1_conv1' .* those of {NAME}", "vgg19")


def test_the_old_resnet50_is_refused_by_its_names_and_by_its_hash(path, base, monkeypatch):
    old = [Layer("conv1", {"kernel": np.zeros((7, 7, 3, 64)), "bias": np.zeros(64)}),
           Layer("bn_conv1", {role: np.zeros(64) for role in STATISTICS}),
           Layer("res2a_branch2a", {"kernel": np.zeros((1, 1, 64, 64)), "bias": np.zeros(64)})]
    message = "ResNet50's old weights .* get the current file .* MD5 4d473c1dd8becc155b73f8504c6f6626, from https://"
    refused(write_legacy(path, renamed(old)), message, "resnet50")
    write_legacy(path, renamed(base))
    md5 = conversion.hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(conversion, "OLD_RESNET50", {md5})
    refused(path, f"its MD5 is {md5}; these are {message}", "resnet50")


def test_a_published_file_is_taken_by_order_and_shape(path, base, with_imagenet, monkeypatch):
    for layers, classifier in ((base, "not in the file"), (with_imagenet, "ImageNet's, left out")):
        odd = [Layer(f"odd_{i}", {f"odd_{i}_{j}/bias:0": values for j, values in enumerate(layer.tensors.values())})
               for i, layer in enumerate(layers)]
        refused(write_legacy(path, odd), "'odd_0' stands where 'conv1' is expected")
        file = WeightsFile("https://example.org/file.h5", conversion.hashlib.md5(path.read_bytes()).hexdigest(), "")
        monkeypatch.setitem(MODELS[NAME].weights, "imagenet", file)
        assert_read(path, base, classifier=classifier)


def test_a_truncated_file(path, base):
    write_legacy(path, renamed(base))
    whole = path.read_bytes()
    for size in (0, 100, 10_000, len(whole) - 100):
        path.write_bytes(whole[:size])
        refused(path, "not readable as HDF5 or .keras file .*; download or copy it again")


def test_damaged_values(path, base):
    write_legacy(path, renamed(base))
    with h5py.File(path, "r+") as file:
        values = file["conv_pw_13/conv_pw_13/kernel"][()]
        del file["conv_pw_13/conv_pw_13/kernel"]
        data = file.create_dataset("conv_pw_13/conv_pw_13/kernel", data=values, compression="gzip")
        begin = data.id.get_chunk_info(0).byte_offset
    with open(path, "r+b") as file:
        file.seek(begin + 100)
        file.write(bytes(1000))
    refused(path, "not readable as HDF5")


@pytest.mark.parametrize("content", [b"GIF89a", b"PK\x03\x04 and no more"])
def test_a_file_of_another_kind(path, content):
    path.write_bytes(content)
    refused(path, "not readable as HDF5 or .keras file")


def test_a_missing_file(path):
    refused(path, "not readable .*No such file")


def test_an_archive_without_weights_or_with_too_large_ones(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
    refused(path, "no item named 'model.weights.h5'")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(100 << 20))
    refused(path, "its model.weights.h5 has 104857600 bytes, more than")


def test_nothing_outside_the_file_is_opened(path, tmp_path, base):
    target = write_legacy(tmp_path / "target.h5", renamed(base))

    def damaged(change):
        shutil.copy(target, path)
        with h5py.File(path, "r+") as file:
            group = file["conv1/conv1"]
            del group["kernel"]
            change(group)
        return path

    def virtual(group):
        layout = h5py.VirtualLayout((3, 3, 3, 8), np.float32)
        layout[:] = h5py.VirtualSource(target, "conv1/conv1/kernel", (3, 3, 3, 8))
        group.create_virtual_dataset("kernel", layout)

    def link(group):
        group["kernel"] = h5py.ExternalLink(target, "conv1/conv1/kernel")

    def soft(group):
        group["kernel"] = h5py.SoftLink("/conv_pw_1/conv_pw_1/kernel")

    def external(group):
        group.create_dataset("kernel", (3, 3, 3, 8), np.float32, external=[(tmp_path / "raw", 0, 864)])

    def bomb(group):
        group.create_dataset("kernel", (3, 3, 3, 8), np.float32, maxshape=(None,) * 4, chunks=(3, 3, 3, 10**6))

    for change in (link, soft):
        refused(damaged(change), "conv1/kernel is listed, but not there or only as a link")
    for change in (virtual, external, bomb):
        refused(damaged(change), "conv1/kernel is not stored as plain values inside this file")


def test_what_belongs_to_no_layer(path, layers):
    write_legacy(path, renamed(layers))
    with h5py.File(path, "r+") as file:
        file["conv1/extra"] = np.zeros(3)
    refused(path, "'conv1/extra' is there, but belongs to no layer")
    write_numbered(path, NAME, layers)
    with h5py.File(path, "r+") as file:
        file["optimizer/vars/0"] = np.zeros(3)
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)
    assert_read(path, layers)
    with h5py.File(path, "r+") as file:
        file["extra/vars/0"] = np.zeros(3)
    refused(path, "'extra/vars/0' is there, but belongs to no layer")
    with h5py.File(path, "w") as file:
        file.create_group("layers")
    refused(path, "no layers with tensors inside")
    refused(write_legacy(path, []), "no layers with tensors inside")


def test_names_that_are_none(path, base):
    write_legacy(path, renamed(base))
    with h5py.File(path, "r+") as file:
        file["conv1"].attrs["weight_names"] = [b"conv1/kernel\n"]
    refused(path, "weight_names of '/conv1' has names that are not printable")
    with h5py.File(path, "r+") as file:
        file["conv1"].attrs["weight_names"] = [1.0, 2.0]
    refused(path, "weight_names of '/conv1' is no list of names")
    with h5py.File(path, "r+") as file:
        file["conv1"].attrs["weight_names"] = np.full(30_000, b"x")
    refused(path, "weight_names of '/conv1' is no list of names")
    with h5py.File(path, "w") as file:
        for i in range(20_001):
            file.create_group(str(i))
    refused(path, "more than 20000 objects")
