"""Data sets give the images they should and refuse what cannot be used, in plain words."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from passl.data.dataset import Dataset, MissingDataError
from passl.data.datasets.digits import DigitsDataset
from passl.data.datasets.fashion_mnist import FashionMNISTDataset
from passl.data.datasets.image_folder import ImageFolder
from passl.data.datasets.imagenet import ImageNetDataset
from passl.data.transforms.decode import DecodeImage
from passl.errors import EXIT_CONFIG, ConfigError, DataError

RNG = np.random.default_rng(0)
LAYOUT = (
    "Expected: a folder such as ILSVRC2012/ with train/ and val/ below it, and a list file "
    "(train_list.txt, val_list.txt) with one 'relative/path label' a line; docs/data.md shows how "
    "to prepare them."
)


# -- digits --------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_split_by_class_and_nothing_lost():
    from sklearn.datasets import load_digits

    original = load_digits()
    parts = {split: DigitsDataset(split=split, in_chans=1) for split in ("train", "val")}
    seen = {}
    for dataset in parts.values():
        for index in range(len(dataset)):
            position = int(dataset.path_of(index).split()[-1])
            assert position not in seen
            image, label = dataset.load(index)
            assert image.dtype == np.uint8
            assert image.shape == (8, 8, 1)
            levels = image[..., 0] / 255.0 * 16.0
            np.testing.assert_allclose(levels, original.images[position], atol=0.04)
            assert label == original.target[position]
            seen[position] = label
    assert len(seen) == 1797
    per_class = np.bincount(original.target)
    counts = np.bincount(parts["val"].labels)
    np.testing.assert_array_equal(counts, np.rint(per_class * 0.2))


def test_digits_split_is_the_same_every_time_and_follows_the_ratio():
    first, second = (DigitsDataset(split="val") for _ in range(2))
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.load(5)[0], second.load(5)[0])
    assert abs(len(DigitsDataset(split="val", val_ratio=0.5)) - 1797 / 2) <= 5


def test_digits_repeat_the_grey_value_for_three_channels():
    image, _ = DigitsDataset(in_chans=3).load(0)
    grey, _ = DigitsDataset(in_chans=1).load(0)
    np.testing.assert_array_equal(image, np.repeat(grey, 3, axis=2))


# -- Fashion-MNIST -------------------------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    images = np.arange(5 * 28 * 28).reshape(5, 28, 28) % 251
    for prefix, ending in (("train", ".gz"), ("t10k", "")):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte{ending}", images)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte{ending}", np.array([9, 0, 3, 3, 1]))
    return tmp_path


@pytest.mark.parametrize("split", ["train", "val"])
def test_fashion_mnist_reads_idx_files_compressed_or_not(idx_folder, split):
    dataset = FashionMNISTDataset(root=str(idx_folder), split=split, in_chans=3)
    assert (len(dataset), dataset.class_num) == (5, 10)
    image, label = dataset.load(2)
    assert label == 3
    assert image.shape == (28, 28, 3)
    assert dataset.classes is None  # of MNIST, say
    expected = (np.arange(2 * 784, 3 * 784) % 251).reshape(28, 28)
    np.testing.assert_array_equal(image, np.repeat(expected[..., None], 3, axis=2))


def test_fashion_mnist_of_the_debian_package_is_complete():
    root = Path("/usr/share/datasets/fashion-mnist")
    if not root.is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    for split, count in (("train", 60000), ("val", 10000)):
        dataset = FashionMNISTDataset(split=split)
        assert np.bincount(dataset.labels).tolist() == [count // 10] * 10
        assert dataset.classes[0] == "T-shirt/top"
        assert dataset.classes[9] == "Ankle boot"
        assert len(set(dataset.classes)) == 10


def test_fashion_mnist_names_the_missing_file_and_the_package(tmp_path):
    with pytest.raises(MissingDataError) as error:
        FashionMNISTDataset(root=str(tmp_path))
    assert str(error.value) == (
        f"FashionMNISTDataset: {tmp_path}/train-images-idx3-ubyte.gz does not exist. Put the four "
        "idx files into a folder and name it with dataset.root, or install them: apt-get install "
        "dataset-fashion-mnist"
    )


def test_damaged_idx_files_are_named(idx_folder):
    images, labels = (
        idx_folder / f"train-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")
    )
    whole = images.read_bytes()

    def error() -> str:
        with pytest.raises(DataError) as caught:
            FashionMNISTDataset(root=str(idx_folder))
        return str(caught.value)

    images.write_bytes(whole[: len(whole) // 2])
    assert error().startswith(f"{images}: cannot be read, truncated or broken")
    images.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    assert (
        error()
        == f"{images}: truncated or broken: 3919 bytes of data where 5 x 28 x 28 are announced"
    )
    images.write_bytes(labels.read_bytes())
    assert error() == f"{images}: is not an idx file of unsigned bytes in 3 dimensions"
    images.write_bytes(whole)
    write_idx(labels, np.array([1, 2, 3]))
    assert "holds 5 images but" in error()
    write_idx(labels, np.array([1, 2, 3, 4, 10]))
    assert error() == f"{labels}: label 10 is not one of the 10 classes"


# -- ImageFolder ---------------------------------------------------------------------------------


def test_image_folder_sorts_classes_and_files(image_tree):
    dataset = ImageFolder(root=str(image_tree / "images"))
    assert dataset.classes == ["cat", "dog", "emu"]
    assert dataset.class_to_idx == {"cat": 0, "dog": 1, "emu": 2}
    assert dataset.class_num == 3
    assert [dataset.table.name(i) for i in range(5)] == [
        "cat/img 0.jpg",
        "cat/img 1.jpg",
        "cat/img 2.jpg",
        "cat/img 3.jpg",
        "dog/img 0.jpg",
    ]
    assert dataset.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_image_folder_decodes_with_and_without_decode_image(image_tree):
    root = str(image_tree / "images")
    plain, label = ImageFolder(root=root).sample(5, RNG)
    decoded, _ = ImageFolder(root=root, transform_ops=[DecodeImage()]).sample(5, RNG)
    expected = np.asarray(Image.open(image_tree / "images/dog/img 1.jpg").convert("RGB"))
    np.testing.assert_array_equal(plain, expected)
    np.testing.assert_array_equal(decoded, expected)
    assert label == 1


def test_image_folder_looks_deeper_and_only_at_images(image_tree):
    images = image_tree / "images"
    (images / "cat" / "more").mkdir()
    os.rename(images / "cat" / "img 0.jpg", images / "cat" / "more" / "X.JPG")
    (images / "cat" / "notes.txt").write_text("no image")
    (images / ".cache").mkdir()
    (images / "cat" / "._img 1.jpg").write_bytes(b"what macOS puts beside a file")
    dataset = ImageFolder(root=str(images))
    assert len(dataset) == 12
    assert "cat/more/X.JPG" in [dataset.table.name(i) for i in range(12)]


def test_image_folder_follows_links_but_never_in_a_circle(tmp_path):
    for name in ("cat/1.jpg", "cat/deep/2.jpg", "dog/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "cat/deep/back").symlink_to("..")
    (tmp_path / "dog/cats").symlink_to("../cat")
    dataset = ImageFolder(root=str(tmp_path))
    assert [dataset.table.name(index) for index in range(len(dataset))] == [
        "cat/1.jpg", "cat/deep/2.jpg", "dog/3.jpg", "dog/cats/1.jpg", "dog/cats/deep/2.jpg",
    ]  # fmt: skip


def test_image_folder_faults_are_named(image_tree):
    root = str(image_tree / "images")

    def error(**arguments: object) -> str:
        with pytest.raises(DataError) as caught:
            ImageFolder(**{"root": root, **arguments})
        return str(caught.value)

    assert error(class_num=4) == (
        f"ImageFolder: {root} has 3 class folders (cat, dog, emu) but dataset.class_num is 4"
    )
    (image_tree / "images" / "fox").mkdir()
    assert error() == (
        f"ImageFolder: 1 of 4 class folders of {root} have no image in them (fox); wanted: files "
        "ending in .jpg .jpeg .png .bmp .webp .tif .tiff .ppm. Remove the empty folders or fill "
        "them"
    )
    file = str(image_tree / "list.txt")
    assert error(root=file) == f"ImageFolder: root {file} is a file; it must be a folder"
    empty = image_tree / "empty"
    empty.mkdir()
    assert error(root=str(empty)).startswith(
        f"ImageFolder: {empty} has no folders in it; it needs one"
    )
    assert error(root="no/such") == (
        f"ImageFolder: root no/such does not exist (looked in {Path.cwd()}). Expected: one folder "
        "of images a class, no/such/CLASS/IMAGE.jpg; docs/data.md shows how to prepare it."
    )


def test_a_folder_that_cannot_be_read_is_told_not_passed_over(image_tree, monkeypatch):
    locked = image_tree / "images/cat/deep"
    locked.mkdir()
    look = os.scandir

    def scandir(path: Any) -> Any:
        if os.fspath(path) == str(locked):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"cat/deep cannot be read \(Permission denied\)"):
        ImageFolder(root=str(image_tree / "images"))


# -- ImageNetDataset -----------------------------------------------------------------------------


def imagenet(tree: Path, **arguments: object) -> ImageNetDataset:
    given = {"image_root": str(tree / "images"), "cls_label_path": str(tree / "list.txt")}
    return ImageNetDataset(**{**given, **arguments})  # type: ignore[arg-type]


def test_list_paths_may_contain_the_delimiter(image_tree):
    dataset = imagenet(image_tree, class_num=3)
    assert len(dataset) == 12
    assert dataset.path_of(5) == str(image_tree / "images/dog/img 1.jpg")
    image, label = dataset.sample(5, RNG)
    assert (image.shape, label) == ((40, 48, 3), 1)
    assert dataset.warnings == []


def test_multi_label_targets_are_multi_hot_in_the_batch_only(image_tree):
    list_file = image_tree / "multi.txt"
    list_file.write_text("cat/img 0.jpg 3,17,250\ndog/img 1.jpg 0\n")
    dataset = imagenet(image_tree, cls_label_path=str(list_file), multi_label=True, class_num=251)
    labels = [dataset.sample(index, RNG)[1] for index in (0, 1)]
    assert [label.tolist() for label in labels] == [[3, 17, 250], [0]]
    target = dataset.collate_labels(labels)
    assert target.dtype == np.float32
    assert target.shape == (2, 251)
    assert [np.flatnonzero(row).tolist() for row in target] == [[3, 17, 250], [0]]
    assert target.sum() == 4


def test_classes_without_an_image_are_reported_not_refused(image_tree):
    dataset = imagenet(image_tree, class_num=5)
    assert dataset.warnings == [f"{image_tree}/list.txt: 2 classes (3, 4) of 5 without an image"]


def test_imagenet_faults_are_named(image_tree):
    def error(kind: type[Exception] = MissingDataError, **arguments: object) -> str:
        with pytest.raises(kind) as caught:
            imagenet(image_tree, **arguments)
        return str(caught.value)

    assert error(cls_label_path="no/list.txt") == (
        f"cls_label_path no/list.txt does not exist (looked in {Path.cwd()}). {LAYOUT}"
    )
    folder = str(image_tree / "images")
    assert error(cls_label_path=folder) == (
        f"cls_label_path {folder} is a folder; it must be the list file itself. {LAYOUT}"
    )
    assert error(image_root="/no/root") == f"image_root /no/root does not exist. {LAYOUT}"
    file = str(image_tree / "list.txt")
    assert error(image_root=file) == f"image_root {file} is a file; it must be a folder. {LAYOUT}"
    assert error(ConfigError, multi_label=True).startswith(
        "ImageNetDataset: multi_label needs class_num"
    )
    assert error(DataError, class_num=2).startswith(
        f"{file}:9: the label 2 is out of range: class_num is 2, so labels go from 0 to 1"
    )
    (image_tree / "images" / "dog" / "img 2.jpg").unlink()
    assert error() == (
        f"{file}:7: the image {image_tree}/images/dog/img 2.jpg does not exist (1 of 12 files "
        f"looked at are missing). Paths in the list are relative to image_root, {folder}. "
        "`passl-check --data` looks at all of them."
    )


def test_missing_data_ends_with_the_status_of_a_wrong_config():
    assert MissingDataError.exit_code == EXIT_CONFIG


# -- samples -------------------------------------------------------------------------------------


def test_whatever_goes_wrong_names_the_sample(image_tree, encode, photo):
    dataset = imagenet(image_tree)
    path = image_tree / "images" / "emu" / "img 3.jpg"

    def error() -> str:
        with pytest.raises(DataError) as caught:
            dataset.sample(11, RNG)
        return str(caught.value)

    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert error().startswith(
        f"sample 11 ({path}) cannot be used: truncated or broken image ({len(whole) // 2} bytes)"
    )
    path.write_bytes(b"")
    assert error() == f"sample 11 ({path}) cannot be used: the file is empty"
    path.unlink()
    assert error() == f"sample 11 ({path}) cannot be used: the file does not exist"
    path.mkdir()
    assert error() == f"sample 11 ({path}) cannot be used: it is a folder, not an image file"
    dataset.transforms = [lambda image, rng: 1 / 0]
    with pytest.raises(
        DataError, match=r"sample 0 \(.*cat/img 0.jpg\) cannot be used: ZeroDivision"
    ):
        dataset.sample(0, RNG)


def test_a_data_set_of_ones_own_needs_len_and_load_only():
    class Noise(Dataset):
        def __len__(self) -> int:
            return 3

        def load(self, index: int) -> tuple[np.ndarray, int]:
            return np.full((2, 2, 3), index, np.uint8), index

    image, label = Noise([lambda image, rng: image + 1]).sample(2, RNG)
    assert (image == 3).all()
    assert Noise().collate_labels([label, 0]).tolist() == [2, 0]
    with pytest.raises(DataError, match=r"sample 7 \(Noise\[7\]\)"):
        Noise([lambda image, rng: None.missing]).sample(7, RNG)


class Labelled(Dataset):
    """Something of three classes."""

    class_num = 3

    def __init__(self, several: bool = False) -> None:
        super().__init__()
        self.multi_label = several


def test_soft_labels_of_a_data_set_reach_the_loss_as_they_are():
    shares = np.array([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5]], np.float32)
    for labels in (list(shares), shares.astype(np.float64).tolist()):
        target = Labelled().collate_labels(labels)
        assert target.dtype == np.float32
        np.testing.assert_array_equal(target, shares)
    assert Labelled().collate_labels([]).shape == (0,)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_label_that_is_no_class_is_refused_not_taken_for_another(several, wrong):
    labels = [[0, wrong], [1]] if several else [0, wrong]
    with pytest.raises(DataError, match=f"the label {wrong} is out of range; labels go .* to 2"):
        Labelled(several=several).collate_labels([np.array(label) for label in labels])


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([1.5, 2.0], "1.5 is no label"),
        (["cat", "dog"], "'cat' is no label"),
        ([[0, 1], [1, 2]], "is no label"),
        ([[0.5, 0.5], [0.1, 0.1, 0.8]], "different lengths"),
        ([[0.5, 0.5], [0.1, 0.9]], "2 values, but there are 3 classes"),
    ],
)
def test_what_is_no_label_is_told_instead_of_rounded(labels, text):
    with pytest.raises(DataError, match=text):
        Labelled().collate_labels(labels)
