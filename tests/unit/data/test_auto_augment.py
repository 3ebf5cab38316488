"""Operations have timm's pixels, policies timm's choices; bad strings say what is wrong."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from passl.data.transforms.auto_augment import RandAugment, TimmAutoAugment
from passl.data.transforms.operations import OPERATIONS, RESAMPLING, Surroundings
from passl.data.transforms.policies import CHOICES, POLICIES, read_policy
from passl.errors import ConfigError, DataError

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "augment.npz"
CASES = [key for key in np.load(GOLDEN).files if key != "image"]
AROUND = Surroundings((124, 116, 104), RESAMPLING["bicubic"])


class Side(np.random.Generator):
    """A generator whose ``random()`` is always one number: it holds the sign of an argument."""

    def __init__(self, value: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.value = value

    def random(self, *_args: object, **_kwargs: object) -> float:  # type: ignore[override]
        return self.value


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.fixture
def small(photo: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(photo[100:140, 200:248])


def apply(image: np.ndarray, name: str, argument: object) -> np.ndarray:
    picture = Image.fromarray(image)
    return np.asarray(OPERATIONS[name].apply(picture, argument, AROUND))


# -- operations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_an_operation_at_a_level_has_the_pixels_of_timm(golden, case):
    name, level, sign = case.split("/")
    argument = OPERATIONS[name].argument(float(level), Side(0.25 if sign == "plus" else 0.75))
    np.testing.assert_array_equal(apply(golden["image"], name, argument), golden[case])


def test_the_golden_file_has_every_operation_that_a_policy_of_timm_uses():
    used = {name for policy in POLICIES.values() for steps in policy for name, _, _ in steps}
    used |= {name for choices in CHOICES.values() for name in choices}
    used |= {*read_policy("rand-m9").choices, *read_policy("rand-inc1").choices}
    used |= set(read_policy("augmix").choices)
    assert used - {case.split("/")[0] for case in CASES} == {"GaussianBlurRand"}


def test_no_bit_kept_is_black(small):
    assert not apply(small, "Posterize", 0).any()
    for bits in range(1, 9):
        expected = np.asarray(ImageOps.posterize(Image.fromarray(small), bits))
        np.testing.assert_array_equal(apply(small, "Posterize", bits), expected)


def test_a_cutout_is_a_square_of_the_fill_colour_cut_off_at_the_border(small):
    cut = apply(small, "Cutout", (6, 0.5, 0.0))
    expected = small.copy()
    expected[14:26, :6] = AROUND.fill
    np.testing.assert_array_equal(cut, expected)
    np.testing.assert_array_equal(apply(small, "Cutout", (0, 0.5, 0.5)), small)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_an_operation_keeps_size_and_type_at_any_level(small, name):
    rng = np.random.default_rng(1)
    for level in (0.0, 0.1, 5.0, 10.0, 30.0):
        result = apply(small, name, OPERATIONS[name].argument(level, rng))
        assert (result.shape, result.dtype) == (small.shape, np.uint8)


# -- policies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rand-m9-mstd0.5-inc1", {"level": 9, "noise": 0.5, "layers": 2, "prob": 0.5, "top": 10}),
        ("rand-m10-n3-mstd0.5", {"level": 10, "noise": 0.5, "layers": 3}),
        ("rand-mstd101-p1-mmax20", {"noise": math.inf, "prob": 1.0, "top": 20, "level": 10}),
        ("rand", {"level": 10, "noise": 0.0, "layers": 2, "prob": 0.5, "weights": None}),
        ("original-mstd0.5", {"kind": "auto", "noise": 0.5}),
        ("augmix-m5-w4-d2", {"level": 5, "width": 4, "layers": 2, "noise": math.inf}),
    ],
)
def test_a_policy_string_is_read_as_timm_reads_it(text, expected):
    policy = read_policy(text)
    assert {key: getattr(policy, key) for key in expected} == expected


def test_increasing_replaces_six_of_fifteen_operations():
    plain, increasing = read_policy("rand").choices, read_policy("rand-inc1").choices
    assert len(plain) == len(increasing) == 15
    assert [b.replace("Increasing", "") for b in increasing] == list(plain)
    assert sum(a != b for a, b in zip(plain, increasing)) == 6


def test_the_fixed_policies_have_25_pairs():
    assert {name: len(policy) for name, policy in POLICIES.items()} == {
        "original": 25, "originalr": 25, "v0": 25, "v0r": 25, "3a": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rnd-m9", "no augmentation policy is called 'rnd' (in 'rnd-m9'); did you mean 'rand'?; "
         "for example rand-m9-mstd0.5-inc1"),
        ("rand-m9-msdt0.5", "the policy 'rand-m9-msdt0.5' has the part 'msdt0.5', which no such "
         "policy has; did you mean 'mstd'?"),
        ("rand-m", "the policy 'rand-m' has the part 'm' without its number, such as m1"),
        ("rand-m9-m8", "the policy 'rand-m9-m8' says 'm' twice"),
        ("rand-m9.5", "the policy 'rand-m9.5' has 'm' with 9.5; it must be a whole number"),
        ("rand-p2", "the policy 'rand-p2' has 'p' with 2; it must be from 0 to 1"),
        ("rand-m1x", "the policy 'rand-m1x' has 'm' with '1x', not a number"),
        ("rand-tweight", "the policy 'rand-tweight' has 't' with 'weight', which is no set of "
         "operations; did you mean 'weights'?"),
        ("rand-n4-t3aw-w0", "the policy 'rand-n4-t3aw-w0' has the part 'w0', which no such policy "
         "has; known: inc, m, mmax, mstd, n, p, t"),
        ("rand-tweights-n16", "the policy 'rand-tweights-n16' takes 16 different operations of 15"),
        ("v0-m9", "the policy 'v0-m9' has the part 'm9', which no such policy has; known: mstd"),
        ("augmix-b1", "the policy 'augmix-b1' has the part 'b1', which no such policy has; known: "
         "a, d, m, mstd, w"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_be_read_says_what_is_wrong(text, message):
    with pytest.raises(ConfigError) as error:
        TimmAutoAugment(config_str=text)
    assert str(error.value) == message


def test_only_colour_images_of_bytes_are_taken():
    with pytest.raises(DataError, match=r"TimmAutoAugment works on uint8 RGB images \[H, W, 3\]"):
        TimmAutoAugment()(np.zeros((4, 4, 3), np.float32), np.random.default_rng(0))
    with pytest.raises(DataError, match=r"RandAugment works .* not on uint8 of shape \[4, 4, 1\]"):
        RandAugment()(np.zeros((4, 4, 1), np.uint8), np.random.default_rng(0))


def applied(monkeypatch: pytest.MonkeyPatch, transform: TimmAutoAugment, draws: int) -> list:
    """(name, level) of the operations of each of many draws."""
    seen: list[list[tuple[str, float]]] = []

    def note(picture: Image.Image, name: str, level: float, rng: np.random.Generator):
        seen[-1].append((name, transform.level(level, rng)))
        return picture

    monkeypatch.setattr(transform, "_apply", note)
    rng, image = np.random.default_rng(0), np.zeros((2, 2, 3), np.uint8)
    for _ in range(draws):
        seen.append([])
        transform(image, rng)
    return seen


def close(count: float, draws: int, probability: float) -> bool:
    """Within five standard deviations of a binomial count."""
    return abs(count - draws * probability) <= 5 * math.sqrt(
        draws * probability * (1 - probability)
    )


def test_rand_augment_draws_operations_evenly_and_applies_half(monkeypatch):
    draws = 4000
    seen = applied(monkeypatch, TimmAutoAugment(config_str="rand-m5-n3-mstd0.5-inc1"), draws)
    lengths = Counter(len(steps) for steps in seen)
    for number, probability in enumerate((1 / 8, 3 / 8, 3 / 8, 1 / 8)):
        assert close(lengths[number], draws, probability)
    names = Counter(name for steps in seen for name, _ in steps)
    assert len(names) == 15
    for count in names.values():
        assert close(count, 3 * draws, 0.5 / 15)
    levels = np.array([level for steps in seen for _, level in steps])
    assert abs(levels.mean() - 5) < 5 * 0.5 / math.sqrt(len(levels))
    assert abs(levels.std() - 0.5) < 5 * 0.5 / math.sqrt(2 * len(levels))


def test_the_level_stays_inside_its_bounds_and_may_be_uniform():
    rng = np.random.default_rng(0)
    noisy = TimmAutoAugment(config_str="rand-m9-mstd2")
    levels = np.array([noisy.level(9, rng) for _ in range(4000)])
    assert levels.max() == 10
    assert close((levels == 10).sum(), 4000, 0.30854)  # of a normal: above half a deviation
    uniform = TimmAutoAugment(config_str="rand-m8-mstd101")
    levels = np.array([uniform.level(8, rng) for _ in range(4000)])
    assert 0 <= levels.min() < 0.1
    assert 7.9 < levels.max() <= 8
    assert abs(levels.mean() - 4) < 5 * 8 / math.sqrt(12 * 4000)
    assert TimmAutoAugment(config_str="rand-m9").level(14, rng) == 10
    assert TimmAutoAugment(config_str="rand-m9-mmax20").level(14, rng) == 14


def test_weighted_operations_are_drawn_by_weight_and_never_twice(monkeypatch):
    draws = 4000
    seen = applied(monkeypatch, TimmAutoAugment(config_str="rand-n2-p1-tweights"), draws)
    assert all(len({name for name, _ in steps}) == 2 for steps in seen)
    first = Counter(steps[0][0] for steps in seen)
    total = sum(weight for weight in CHOICES["weights"].values() if weight is not None)
    for name, weight in CHOICES["weights"].items():
        assert weight is not None
        assert close(first[name], draws, weight / total)


def test_auto_augment_takes_one_pair_with_the_probabilities_of_its_steps(monkeypatch):
    draws = 6000
    seen = applied(monkeypatch, TimmAutoAugment(config_str="v0"), draws)
    assert max(len(steps) for steps in seen) == 2
    wanted = Counter()
    for steps in POLICIES["v0"]:
        for name, prob, _ in steps:
            wanted[name] += prob / 25
    names = Counter(name for steps in seen for name, _ in steps)
    assert set(names) == set(wanted)  # also ShearX, once in 125
    for name, mean in wanted.items():  # of a sum of two: the variance is below 2 * mean
        assert abs(names[name] / draws - mean) < 5 * math.sqrt(2 * mean / draws)


def test_three_augment_as_a_policy_is_grey_solarised_or_blurred(small):
    rng, kinds = np.random.default_rng(0), Counter()
    grey = np.asarray(Image.fromarray(small).convert("L").convert("RGB"))
    solar = np.asarray(ImageOps.solarize(Image.fromarray(small), 128))
    transform = TimmAutoAugment(config_str="3a")
    for _ in range(900):
        image = transform(small, rng)
        kinds["grey" if (image == grey).all() else "solar" if (image == solar).all() else "b"] += 1
    assert all(close(count, 900, 1 / 3) for count in kinds.values())
    assert len(kinds) == 3


def test_augmix_blends_chains_with_the_image(small):
    rng, transform = np.random.default_rng(0), TimmAutoAugment(config_str="augmix-m3-mstd0")
    images = [transform(small, rng) for _ in range(40)]
    assert len({image.tobytes() for image in images}) > 35
    distance = np.mean([np.abs(image.astype(float) - small).mean() for image in images])
    alone = TimmAutoAugment(config_str="rand-m3-n2-p1-inc1")
    others = [np.abs(alone(small, rng).astype(float) - small).mean() for _ in range(40)]
    assert 0 < distance < np.mean(others)  # a blend with the image itself is nearer to it


@pytest.mark.parametrize("text", ["rand-m9-mstd0.5-inc1", "original-mstd0.5", "v0r", "augmix"])
@pytest.mark.parametrize("interpolation", ["bicubic", "random"])
def test_the_generator_alone_decides(small, text, interpolation):
    transform = TimmAutoAugment(config_str=text, interpolation=interpolation)
    before = small.copy()
    one, two = (
        [transform(small, np.random.default_rng([seed, 1])).tobytes() for seed in range(20)]
        for _ in range(2)
    )
    assert one == two
    assert len(set(one)) > 5
    np.testing.assert_array_equal(small, before)


def test_what_comes_in_from_outside_has_the_mean_colour(small):
    transform = TimmAutoAugment(config_str="rand-m10-n1-p1")
    transform.policy = read_policy("rand-m10-n1-p1")
    picture = transform._apply(Image.fromarray(small), "TranslateXRel", 10, Side(0.25))
    np.testing.assert_array_equal(np.asarray(picture)[0, -1], (124, 116, 104))


# -- Google's RandAugment ------------------------------------------------------------------------


def test_googles_rand_augment_always_applies_and_knows_levels_above_ten(small, monkeypatch):
    names = Counter()
    for name, operation in OPERATIONS.items():

        def note(picture, argument, around, name=name):
            names[name] += 1
            assert around == Surroundings((128, 128, 128), RESAMPLING["nearest"])
            return picture

        monkeypatch.setitem(OPERATIONS, name, type(operation)(operation.argument, note))
    rng, transform = np.random.default_rng(0), RandAugment(num_layers=2, magnitude=15)
    for _ in range(2000):
        transform(small, rng)
    assert sum(names.values()) == 4000
    assert len(names) == 16
    assert all(close(count, 4000, 1 / 16) for count in names.values())


@pytest.mark.parametrize(
    ("name", "level", "argument"),
    [
        ("Rotate", 15.0, 45.0), ("ShearX", 20.0, 0.6), ("TranslateX", 15.0, 150.0),
        ("Posterize", 20.0, 8), ("Posterize", 15.0, 6), ("Solarize", 15.0, 256),
        ("Color", 20.0, 3.7),
        ("SolarizeAddUnlimited", 20.0, 220), ("SolarizeAdd", 20.0, 128),
        ("Cutout", 10.0, (40, 0.25, 0.25)),
    ],
)  # fmt: skip
def test_arguments_at_levels_above_ten_follow_the_formulas(name, level, argument):
    assert OPERATIONS[name].argument(level, Side(0.25)) == pytest.approx(argument)
