"""Top-k, order and failures of a predictor whose model is a known function."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from passl.errors import CheckpointError, ConfigError, DataError, PasslError
from passl.export.pictures import Picture
from passl.export.predictor import Failure, ModelFacts, Predictor
from passl.export.preprocess import Preprocessor

STEPS: list[dict[str, Any]] = [{"name": "ToCHWImage"}]


class Sums:
    """Logits that follow from the first pixel: log of (pixel + class)."""

    backend = "a test"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, batch: np.ndarray) -> np.ndarray:
        self.batches.append(len(batch))
        first = batch[:, :1, 0, 0].astype(np.float64)
        return np.log(first + np.arange(1, 5))


def predictor(session: Any = None, **changes: Any) -> Predictor:
    facts: dict[str, Any] = {
        "name": "Toy", "shape": (3, 2, 2), "batch_size": None, "meaning": "logits",
        "labels": ["a", "b", "c", "d"], "described_by": "toy.yml",
    }
    settings = {key: changes.pop(key) for key in ("batch_size", "num_workers") if key in changes}
    facts.update(changes)
    return Predictor(session or Sums(), Preprocessor(STEPS, 3), ModelFacts(**facts), **settings)


def picture(level: int) -> np.ndarray:
    return np.full((2, 2, 3), level, np.uint8)


@pytest.mark.parametrize("num_workers", [0, 3])
def test_probabilities_are_the_softmax_and_the_likeliest_come_first(num_workers):
    found = predictor(num_workers=num_workers).predict([picture(0), picture(6)], topk=3)
    assert [guess.name for guess in found[0].top] == ["d", "c", "b"]
    np.testing.assert_allclose([g.probability for g in found[0].top], [0.4, 0.3, 0.2])
    np.testing.assert_allclose([g.probability for g in found[1].top], [10 / 34, 9 / 34, 8 / 34])
    assert [item.source for item in found] == ["image 0", "image 1"]


def test_of_equals_the_lower_label_comes_first_and_topk_may_exceed_the_classes():
    class Flat(Sums):
        def run(self, batch: np.ndarray) -> np.ndarray:
            return np.zeros((len(batch), 4), np.float32)

    (found,) = predictor(Flat()).predict(picture(0), topk=9)
    assert [guess.label for guess in found.top] == [0, 1, 2, 3]


def test_probabilities_of_the_model_are_taken_as_they_are():
    class Shares(Sums):
        def run(self, batch: np.ndarray) -> np.ndarray:
            return np.tile(np.array([0.1, 0.2, 0.7, 0.0]), (len(batch), 1))

    (found,) = predictor(Shares(), meaning="probabilities", labels=None).predict(picture(0), 1)
    assert (found.top[0].name, found.top[0].probability) == ("2", 0.7)


def test_results_come_in_order_however_long_a_picture_takes():
    class Slow(Picture):
        def pixels(self) -> np.ndarray:
            time.sleep(0.02 if self.content.flat[0] % 3 == 0 else 0)
            return super().pixels()

    session = Sums()
    wanted = [f"p{level}" for level in range(10)]
    pictures = (Slow(name, picture(level)) for level, name in enumerate(wanted))
    results = list(predictor(session, batch_size=4, num_workers=3).stream(pictures))
    assert [result.source for result in results] == wanted
    assert session.batches == [4, 4, 2]


def test_a_picture_that_cannot_be_used_keeps_its_place():
    pictures = [
        Picture("good", picture(1)),
        Picture("gone.png", "gone.png"),
        Picture("large", np.zeros((5, 5, 3), np.uint8)),
        Picture("also good", picture(2)),
    ]
    results = list(predictor().stream(pictures))
    assert [isinstance(result, Failure) for result in results] == [False, True, True, False]
    assert results[1].reason == "gone.png: there is no such file"
    assert "shape [3, 5, 5], and the model takes [3, 2, 2]" in results[2].reason
    with pytest.raises(DataError, match=r"gone\.png: there is no such file"):
        predictor().predict(["gone.png"])


def test_pictures_are_taken_as_they_are_needed():
    taken = []

    def endless():
        for number in range(10_000):
            taken.append(number)
            yield Picture(str(number), picture(0))

    stream = predictor(batch_size=2, num_workers=2).stream(endless())
    assert next(stream).source == "0"
    assert len(taken) < 20
    stream.close()


def test_a_fixed_batch_is_filled_and_cut():
    session = Sums()
    found = predictor(session, batch_size=3, labels=None)
    results = Predictor(
        session, Preprocessor(STEPS, 3),
        ModelFacts("Toy", (3, 2, 2), 3, "logits", None, "toy.yml"), num_workers=0,
    ).predict(np.stack([picture(level) for level in range(4)]))
    assert len(results) == 4
    assert session.batches == [3, 3]
    assert results[3].top == found.predict(picture(3))[0].top


def test_what_gives_no_classes_or_no_numbers_is_refused():
    with pytest.raises(CheckpointError, match="gives features and no classes"):
        predictor(meaning="features")

    class Broken(Sums):
        def run(self, batch: np.ndarray) -> np.ndarray:
            return np.full((len(batch), 4), np.nan)

    with pytest.raises(PasslError, match="computed NaN or infinity"):
        predictor(Broken()).predict(picture(0))
    with pytest.raises(ConfigError, match="workers must be 0 or more; got -1"):
        predictor(num_workers=-1)
    with pytest.raises(PasslError, match=r"the model has 4 classes, and there are 3 names"):
        predictor(labels=["a", "b", "c"]).predict(picture(0))

    class Maps(Sums):
        def run(self, batch: np.ndarray) -> np.ndarray:
            return np.zeros((len(batch), 4, 2, 2))

    with pytest.raises(PasslError, match=r"gives \[1, 4, 2, 2\] for 1 pictures"):
        predictor(Maps()).predict(picture(0))
    with pytest.raises(PasslError, match="topk must be 1 or more"):
        predictor().predict(picture(0), topk=0)
