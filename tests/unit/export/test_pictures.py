"""What users name as pictures, and what is read of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from passl.errors import ConfigError, DataError
from passl.export import pictures
from passl.export.pictures import Picture, as_picture, expand, pictures_of
from passl.export.preprocess import Preprocessor, as_channels

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray = COLOURS) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return str(path)


def test_names_become_files_in_a_fixed_order(tmp_path):
    b, a = save(tmp_path / "in/b.png"), save(tmp_path / "in/deep/a.PNG")
    save(tmp_path / "in/.hidden/c.png")
    (tmp_path / "in/notes.txt").write_text("x")
    single = save(tmp_path / "z.bmp")
    assert expand([single, str(tmp_path / "in"), single]) == [single, b, a, single]
    assert expand([str(tmp_path / "**/*.[pP][nN][gG]")]) == [b, a]
    assert expand(["-", single], ["one.png\n", "\n", " two .png \r\n"]) == [
        "one.png", " two .png ", single,
    ]
    odd = save(tmp_path / "odd[1].png")  # a file whose name looks like a pattern
    assert expand([odd]) == [odd]


def test_nothing_found_is_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match="no file matches this pattern"):
        expand([str(tmp_path / "*.png")])
    with pytest.raises(ConfigError, match="no picture in this folder"):
        expand([str(tmp_path)])


def test_path_image_and_array_are_the_same_pixels(tmp_path):
    path = save(tmp_path / "a.png")
    for given in (path, Path(path), Image.open(path), COLOURS):
        np.testing.assert_array_equal(as_picture(given, 3).pixels(), COLOURS)
    assert as_picture(COLOURS, 3).source == "image 3"
    deep = Image.fromarray((COLOURS[:, :, 0].astype(np.uint16) << 8) + 77)
    deep.save(tmp_path / "deep.png")
    for given in (tmp_path / "deep.png", deep):  # of Pillow too not cut off at 255
        np.testing.assert_array_equal(as_picture(given, 0).pixels()[:, :, 2], COLOURS[:, :, 0])
    assert Picture("grey", COLOURS[:, :, 0]).pixels().shape == (5, 7, 1)


@pytest.mark.parametrize(("content", "sentence"), [
    ("nowhere.png", "there is no such file"),
    (".", "it is a folder"),
    (COLOURS.astype(np.float32), r"array of float32 \[5, 7, 3\] is no picture"),
    (COLOURS[None], r"array of uint8 \[1, 5, 7, 3\] is no picture"),
    (7, "a int is no picture"),
    (COLOURS[:0], r"array of uint8 \[0, 7, 3\] is no picture"),
    (Image.new("RGB", (0, 5)), r"array of uint8 \[5, 0, 3\] is no picture"),
])  # fmt: skip
def test_what_is_no_picture_is_told_with_its_name(content, sentence):
    with pytest.raises(DataError, match=f"^mine: .*{sentence}"):
        Picture("mine", content).pixels()


def test_grey_is_pillows_and_colours_are_repeated():
    grey = np.asarray(Image.fromarray(COLOURS).convert("L"))
    np.testing.assert_array_equal(as_channels(COLOURS, 1)[:, :, 0], grey)
    np.testing.assert_array_equal(as_channels(grey[:, :, None], 3), np.stack([grey] * 3, axis=2))


def test_the_steps_left_to_the_model_are_the_last_two():
    steps = [
        {"name": "ResizeImage", "size": 4},
        {"name": "NormalizeImage", "mean": [0.1, 0.2, 0.3], "std": 0.5, "order": "hwc"},
        {"name": "ToCHWImage"},
    ]
    outside, inside = Preprocessor(steps, 3), Preprocessor(steps, 3, inside=True)
    pixels = inside(COLOURS)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (4, 4, 3))
    assert [step["name"] for step in inside.within] == ["NormalizeImage", "ToCHWImage"]
    expected = ((pixels / 255.0 - [0.1, 0.2, 0.3]) / 0.5).transpose(2, 0, 1)
    np.testing.assert_allclose(outside(COLOURS), expected, atol=1e-6)
    np.testing.assert_array_equal(inside.whole(pixels), outside(COLOURS))


@pytest.mark.parametrize(("steps", "sentence"), [
    ([{"name": "ResizeImage", "size": 4}], "do not end with NormalizeImage"),
    ([{"name": "Normalise"}], "no transform is called 'Normalise'"),
    ([{"name": "ResizeImage", "sise": 4}], "has no argument 'sise'"),
])  # fmt: skip
def test_transforms_that_cannot_be_used_are_told(steps, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Preprocessor(steps, 3, inside=True)


def write_video(path: Path, code: str, num: int, step: int = 5) -> str:
    """Frames of one grey each, ``step`` brighter than the one before."""
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 5, (16, 16))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no such video")
    for number in range(num):
        writer.write(np.full((16, 16, 3), number * step, np.uint8))
    writer.release()
    return str(path)


def test_frames_of_a_video_come_in_order(tmp_path):
    path = write_video(tmp_path / "clip.avi", "MJPG", 5, step=50)
    frames = list(pictures_of(path, every=2))
    assert [frame.source for frame in frames] == [f"{path}#0", f"{path}#2", f"{path}#4"]
    means = [frame.pixels().mean() for frame in frames]
    np.testing.assert_allclose(means, [0, 100, 200], atol=3)  # JPEG rounds


@pytest.mark.parametrize(("ending", "code"), [(".avi", "MJPG"), (".mkv", "MJPG")])
def test_a_video_that_ends_early_is_told_after_its_frames(tmp_path, ending, code):
    whole = write_video(tmp_path / f"whole{ending}", code, 40)
    assert len(list(pictures_of(whole))) == 40  # and no word more
    short = tmp_path / f"short{ending}"
    data = Path(whole).read_bytes()
    short.write_bytes(data[: len(data) // 2])
    *frames, last = pictures_of(str(short), every=3)
    assert 1 < len(frames) < 10
    assert last.source == str(short)
    with pytest.raises(DataError, match=r"announces 40 frames, and \d+ can be read: it was cut"):
        last.pixels()


@pytest.mark.parametrize(("name", "announced", "found", "last_ms", "is_told"), [
    ("a.mp4", 1000, 990, 0, False),  # an edit list leaves some out
    ("a.mp4", 1000, 980, 33000, True),  # lost in the middle
    ("a.mp4", 3, 1, 0, False),
    ("a.webm", 1000, 400, 33300, False),  # its rate varies: the number is an estimate
    ("a.webm", 1000, 400, 13000, True),
    ("a.webm", -9e15, 400, 13000, False),  # a live recording: nobody knows
    ("a.webm", float("nan"), 400, 13000, False),
    ("a.mkv", 9e18, 400, 13000, False),
])  # fmt: skip
def test_a_whole_video_is_not_taken_for_a_short_one(name, announced, found, last_ms, is_told):
    cv2 = pytest.importorskip("cv2")

    class Video:
        def get(self, key: int) -> float:
            return {
                cv2.CAP_PROP_FRAME_COUNT: announced,
                cv2.CAP_PROP_FPS: 30.0,
                cv2.CAP_PROP_POS_MSEC: last_ms,
            }[key]

    assert bool(pictures._cut_short(name, Video(), found)) is is_told


def test_a_video_that_is_none_is_one_failure(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    for path, sentence in (
        (str(tmp_path / "clip.mp4"), "OpenCV cannot read it as a video"),
        (str(tmp_path / "gone.mp4"), "there is no such file"),
    ):
        (picture,) = pictures_of(path)
        with pytest.raises(DataError, match=sentence):
            picture.pixels()
