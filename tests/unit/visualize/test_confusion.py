"""Confusions and mistakes of an evaluation, counted against what the model really says."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import paddle
import pytest
from paddle import nn

from passl.data.dataset import Dataset
from passl.data.loader import Loader
from passl.data.samplers import DistributedBatchSampler
from passl.errors import ConfigError
from passl.registry import TRANSFORMS
from passl.visualize import confusion_sheet
from passl.visualize.confusion import Confusion, confuse, save_confusions, save_mistakes
from passl.visualize.confusion_sheet import draw_confusion, draw_mistakes

# class of each sample, and the logits the model gives it
LABELS = [0, 1, 2, 1, 0, 2, 1]
LOGITS = np.array(
    [[3, 0, 0], [1, 0, 0], [0, 0, 2], [0, 5, 0], [0, 0, 4], [0, 0, 1], [0.5, 0, 0]], np.float32
)


class _Rows(Dataset):
    """Sample ``i`` is an image of the number ``i``."""

    class_num = 3

    def __init__(self):
        steps = [{"name": "NormalizeImage", "scale": 1.0, "mean": 0.0, "std": 1.0, "order": "hwc"},
                 {"name": "ToCHWImage"}]
        super().__init__([TRANSFORMS.build(step) for step in steps])

    def __len__(self):
        return len(LABELS)

    def load(self, index):
        return np.full([4, 6, 1], index, np.uint8), LABELS[index]


class _Table(nn.Layer):
    def forward(self, images):
        return paddle.to_tensor(LOGITS)[images.reshape([images.shape[0], -1])[:, 0].astype("int64")]


def _loader(dataset: Dataset) -> Loader:
    sampler = DistributedBatchSampler(num_samples=len(dataset), batch_size=3, seed=0)
    return Loader(dataset, sampler, num_workers=0)


@pytest.fixture
def confusion() -> Confusion:
    return confuse(_Table(), _loader(_Rows()))


def test_every_sample_is_counted_once_and_mistakes_are_sorted_by_certainty(confusion):
    np.testing.assert_array_equal(confusion.matrix, [[1, 0, 1], [2, 1, 0], [0, 0, 2]])
    assert confusion.samples == 7
    assert confusion.accuracy == pytest.approx(4 / 7)
    assert [mistake.index for mistake in confusion.mistakes] == [4, 1, 6]
    worst = confusion.mistakes[0]
    assert (worst.true, worst.predicted) == (0, 2)
    assert worst.probability == pytest.approx(np.exp(4) / (np.exp(4) + 2), rel=1e-5)
    assert worst.probability_true == pytest.approx(1 / (np.exp(4) + 2), rel=1e-5)
    assert confusion.pairs() == [(1, 0, 2), (0, 2, 1)]


def test_tables_say_names_and_paths(confusion, tmp_path):
    names = ["cat", "dog", "owl"]
    with open(save_confusions(confusion, names, tmp_path / "c.csv"), encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["samples"]) for row in rows) == 7
    assert rows[2]["true_name"] == "dog"
    assert float(rows[2]["part_of_true"]) == pytest.approx(2 / 3, abs=1e-6)
    path = save_mistakes(confusion, None, _Rows(), tmp_path / "m.csv")
    with open(path, encoding="utf-8") as file:
        first = next(iter(csv.DictReader(file)))
    assert (first["index"], first["path"], first["true_name"]) == ("4", "_Rows[4]", "")


@pytest.mark.parametrize("classes", [3, 30, 60])
def test_few_classes_are_a_matrix_and_many_a_list(confusion, classes, tmp_path):
    matrix = np.zeros([classes, classes], np.int64)
    matrix[:3, :3] = confusion.matrix
    wide = Confusion(matrix, confusion.mistakes, 7)
    image = cv2.imread(str(draw_confusion(wide, None, tmp_path / "c.png", title="model\nfile")))
    assert min(image.shape[:2]) > 200
    assert image.std() > 10
    assert (image.shape[1] == 1200) == (classes == 60)


def test_names_that_cannot_be_drawn_are_escaped_and_paths_keep_their_bytes(
    confusion, tmp_path, monkeypatch
):
    names = ["cat", "two\nlines, no utf\udcff", "owl"]
    draw_confusion(confusion, names, tmp_path / "c.png", title="x")
    draw_mistakes(confusion, _Rows(), names, tmp_path / "m.png", title="x")
    rows = save_confusions(confusion, names, tmp_path / "c.csv").read_bytes().splitlines()
    assert b"two\\nlines, no utf\\xff" in rows[3]
    monkeypatch.setattr(_Rows, "path_of", lambda _, index: f"no utf\udcff {index}")
    mistakes = save_mistakes(confusion, None, _Rows(), tmp_path / "m.csv").read_bytes()
    assert b",no utf\xff 4," in mistakes


def test_mistakes_are_drawn_and_their_absence_is_said(confusion, tmp_path):
    drawn = draw_mistakes(confusion, _Rows(), ["cat", "dog", "owl"], tmp_path / "m.png", title="x")
    assert cv2.imread(str(drawn)).std() > 10
    none = Confusion(np.eye(3, dtype=np.int64), [], 3)
    assert cv2.imread(str(draw_mistakes(none, _Rows(), None, tmp_path / "n.png", title="x"))).any()


def test_a_perfect_model_of_many_classes_has_no_empty_axes(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        confusion_sheet, "save_figure", lambda figure, path: seen.append(figure) or path
    )
    none = Confusion(np.eye(60, dtype=np.int64), [], 60)
    draw_confusion(none, None, tmp_path / "c.png", title="x")
    assert seen[0].axes == []
    assert [text.get_text() for text in seen[0].texts][-1] == "no mistakes"


def test_long_names_leave_room_for_the_probabilities(confusion, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        confusion_sheet, "save_figure", lambda figure, path: seen.append(figure) or path
    )
    names = ["golden retriever, a dog", "n02123045 tabby", "American goldfinch"]
    draw_mistakes(confusion, _Rows(), names, tmp_path / "m.png", title="x")
    (figure,) = seen
    figure.draw_without_rendering()
    captions = figure.texts[2:]
    assert [text.get_text()[:5] for text in captions[:4:2]] == ["true ", "said "]
    for name, value in zip(captions[::2], captions[1::2]):
        assert name.get_window_extent().x1 < value.get_window_extent().x0, name.get_text()


def test_samples_of_several_classes_are_refused():
    class Many(_Rows):
        multi_label = True

        def load(self, index):
            return super().load(index)[0], np.array([0, 2])

    with pytest.raises(ConfigError, match="multi_label"):
        confuse(_Table(), _loader(Many()))


def test_how_many_mistakes_are_drawn_is_said_in_words_that_fit(confusion, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        confusion_sheet, "save_figure", lambda figure, path: seen.append(figure) or path
    )
    none = Confusion(np.eye(3, dtype=np.int64), [], 3)
    for each, most in ((confusion, 24), (confusion, 2), (none, 24)):
        draw_mistakes(each, _Rows(), None, tmp_path / "m.png", title="x", most=most)
    total = len(confusion.mistakes)
    notes = [figure.texts[1].get_text() for figure in seen]
    assert notes[0].startswith(f"all mistakes, the surest first: {total} of {total}, in 7 samples")
    assert notes[1].startswith(f"the surest mistakes: 2 of {total}, in 7 samples")
    assert notes[2] == "no mistakes in 3 samples"


def test_a_mistake_in_a_hundred_differs_from_none_to_the_eye(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        confusion_sheet, "save_figure", lambda figure, path: seen.append(figure) or path
    )
    matrix = np.array([[99, 1], [0, 100]], np.int64)
    draw_confusion(Confusion(matrix, [], 200), None, tmp_path / "c.png", title="x")
    drawn = seen[0].axes[0].images[0]
    some, none = drawn.cmap(drawn.norm(0.01)), drawn.cmap(drawn.norm(0.0))
    assert np.abs(np.subtract(some, none)).max() > 0.1
    labels = [label.get_text() for label in seen[0].axes[1].get_yticklabels()]
    assert labels[:2] == ["0%", "1%"]
