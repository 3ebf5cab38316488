"""timm's policy strings: what each names, and the strings themselves read.

``rand-m9-n2-mstd0.5-inc1`` is a policy followed by its parts, in any order.  timm passes over a
part without a number in silence; here it is an error.

Source: timm.data.auto_augment (names, defaults, weights); E. Cubuk et al., arXiv:1805.09501 (the
policy ``original``); the EfficientNet code of TensorFlow's TPU models (``v0``); H. Touvron et al.,
"DeiT III", arXiv:2204.07118 (``3a``); D. Hendrycks et al., "AugMix", arXiv:1912.02781.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Optional

from passl.config.suggest import did_you_mean
from passl.errors import ConfigError

__all__ = ["CHOICES", "POLICIES", "Policy", "SubPolicy", "read_policy"]

#: Operations applied one after the other: (name, probability, level) each.
SubPolicy = tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Policy:
    """A policy string, read.

    Attributes:
        kind: ``rand``, ``augmix``, or ``auto`` for a fixed list of sub-policies.
        name: as it is written.
        sub_policies: of ``auto``.
        choices: operations to choose from, with their weights, or None where all are equal.
        weights: of the choices.
        level: strength of the operations, for ``rand`` and ``augmix``.
        noise: standard deviation of the level; infinite: uniform between 0 and the level.
        top: highest level after the noise.
        layers: operations an image gets (``rand``), operations of a chain (``augmix``; 0: one to
            three, at random).
        prob: probability of each operation.
        width: chains of ``augmix``.
        alpha: of the distributions that ``augmix`` mixes by.
    """

    kind: str
    name: str
    sub_policies: tuple[SubPolicy, ...] = ()
    choices: tuple[str, ...] = ()
    weights: Optional[tuple[float, ...]] = None
    level: float = 10.0
    noise: float = 0.0
    top: float = 10.0
    layers: int = 2
    prob: float = 0.5
    width: int = 3
    alpha: float = 1.0


def _table(text: str) -> tuple[SubPolicy, ...]:
    """``Equalize .8 1 + ShearY .8 4`` a line."""
    rows = []
    for line in text.strip().splitlines():
        steps = (step.split() for step in line.split("+"))
        rows.append(tuple((name, float(prob), float(level)) for name, prob, level in steps))
    return tuple(rows)


_V0 = """
Equalize .8 1 + ShearY .8 4
Color .4 9 + Equalize .6 3
Color .4 1 + Rotate .6 8
Solarize .8 3 + Equalize .4 7
Solarize .4 2 + Solarize .6 2
Color .2 0 + Equalize .8 8
Equalize .4 8 + SolarizeAdd .8 3
ShearX .2 9 + Rotate .6 8
Color .6 1 + Equalize 1 2
Invert .4 9 + Rotate .6 0
Equalize 1 9 + ShearY .6 3
Color .4 7 + Equalize .6 0
Posterize .4 6 + AutoContrast .4 7
Solarize .6 8 + Color .6 9
Solarize .2 4 + Rotate .8 9
Rotate 1 7 + TranslateYRel .8 9
ShearX 0 0 + Solarize .8 4
ShearY .8 0 + Color .6 4
Color 1 0 + Rotate .6 2
Equalize .8 4 + Equalize 0 8
Equalize 1 4 + AutoContrast .6 2
ShearY .4 7 + SolarizeAdd .6 7
Posterize .8 2 + Solarize .6 10
Solarize .6 8 + Equalize .6 1
Color .8 6 + Rotate .4 5
"""
_ORIGINAL = """
PosterizeOriginal .4 8 + Rotate .6 9
Solarize .6 5 + AutoContrast .6 5
Equalize .8 8 + Equalize .6 3
PosterizeOriginal .6 7 + PosterizeOriginal .6 6
Equalize .4 7 + Solarize .2 4
Equalize .4 4 + Rotate .8 8
Solarize .6 3 + Equalize .6 7
PosterizeOriginal .8 5 + Equalize 1 2
Rotate .2 3 + Solarize .6 8
Equalize .6 8 + PosterizeOriginal .4 6
Rotate .8 8 + Color .4 0
Rotate .4 9 + Equalize .6 2
Equalize 0 7 + Equalize .8 8
Invert .6 4 + Equalize 1 8
Color .6 4 + Contrast 1 8
Rotate .8 8 + Color 1 2
Color .8 8 + Solarize .8 7
Sharpness .4 7 + Invert .6 8
ShearX .6 5 + Equalize 1 9
Color .4 0 + Equalize .6 3
Equalize .4 7 + Solarize .2 4
Solarize .6 5 + AutoContrast .6 5
Invert .6 4 + Equalize 1 8
Color .6 4 + Contrast 1 8
Equalize .8 8 + Equalize .6 3
"""

#: The fixed policies. Those that end in ``r`` posterize more at a higher level.
POLICIES: dict[str, tuple[SubPolicy, ...]] = {
    "original": _table(_ORIGINAL),
    "originalr": _table(_ORIGINAL.replace("PosterizeOriginal", "PosterizeIncreasing")),
    "v0": _table(_V0),
    "v0r": _table(_V0.replace("Posterize", "PosterizeIncreasing")),
    "3a": _table("Solarize 1 5\nDesaturate 1 10\nGaussianBlurRand 1 10"),
}

_PLAIN = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
_GROWING = {"Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness"}
_INCREASING = tuple(f"{name}Increasing" if name in _GROWING else name for name in _PLAIN)
_MIX_OF_AUGMIX = tuple(name for name in _INCREASING if name not in ("Invert", "SolarizeAdd"))

#: The sets of ``rand-t...``: operations and their weights (of equal ones: None).
CHOICES: dict[str, dict[str, Optional[float]]] = {
    "weights": {
        "Rotate": 3,
        "ShearX": 2,
        "ShearY": 2,
        "TranslateXRel": 1,
        "TranslateYRel": 1,
        "ColorIncreasing": 0.25,
        "SharpnessIncreasing": 0.25,
        "AutoContrast": 0.25,
        "SolarizeIncreasing": 0.05,
        "SolarizeAdd": 0.05,
        "ContrastIncreasing": 0.05,
        "BrightnessIncreasing": 0.05,
        "Equalize": 0.05,
        "PosterizeIncreasing": 0.05,
        "Invert": 0.05,
    },
    "3a": {"SolarizeIncreasing": None, "Desaturate": None, "GaussianBlur": None},
    "3aw": {
        "SolarizeIncreasing": 6,
        "Desaturate": 6,
        "GaussianBlur": 6,
        "Rotate": 3,
        "ShearX": 2,
        "ShearY": 2,
        "PosterizeIncreasing": 1,
        "AutoContrast": 1,
        "ColorIncreasing": 1,
        "SharpnessIncreasing": 1,
        "ContrastIncreasing": 1,
        "BrightnessIncreasing": 1,
        "Equalize": 1,
        "Invert": 1,
    },
}

_UNIFORM_ABOVE = 100.0  # a standard deviation that timm takes as "uniform"


@dataclass
class _Parts:
    """The parts of a policy string, each taken out once."""

    text: str
    known: tuple[str, ...]
    values: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in self.text.split("-")[1:]:
            name, value = self._split(part)
            if name in self.values:
                raise self.error(f"says {name!r} twice")
            self.values[name] = value

    def _split(self, part: str) -> tuple[str, str]:
        if "t" in self.known and part.startswith("t"):
            return "t", part[1:]
        found = re.fullmatch(r"([a-z]+)(\d.*)", part)
        name = found[1] if found else part
        if name not in self.known:
            hint = did_you_mean(name, self.known)
            raise self.error(f"has the part {part!r}, which no such policy has{hint}")
        if found is None:
            raise self.error(f"has the part {part!r} without its number, such as {part}1")
        return name, found[2]

    def number(self, name: str, default: float, low: float, high: float = math.inf) -> float:
        """A part as a number within bounds."""
        try:
            value = float(self.values.get(name, default))
        except ValueError:
            raise self.error(f"has {name!r} with {self.values[name]!r}, not a number") from None
        if not low <= value <= high:
            bounds = f"{low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
            raise self.error(f"has {name!r} with {value:g}; it must be {bounds}")
        return value

    def whole(self, name: str, default: int, low: int, high: float = math.inf) -> int:
        """A part as a whole number."""
        value = self.number(name, default, low, high)
        if not value.is_integer():
            raise self.error(f"has {name!r} with {value:g}; it must be a whole number")
        return int(value)

    def noise(self, default: float) -> float:
        """The standard deviation of the level."""
        noise = self.number("mstd", default, 0)
        return math.inf if noise > _UNIFORM_ABOVE else noise

    def error(self, what: str) -> ConfigError:
        """What is wrong with the string."""
        return ConfigError(f"the policy {self.text!r} {what}")


def read_policy(text: str) -> Policy:
    """The policy that ``text`` names.

    Raises:
        ConfigError: the policy or one of its parts is unknown, or a number out of range.
    """
    name = text.split("-")[0]
    if name == "rand":
        return _read_rand(_Parts(text, ("m", "n", "p", "mstd", "mmax", "inc", "t")))
    if name == "augmix":
        return _read_augmix(_Parts(text, ("m", "w", "d", "a", "mstd")))
    if name in POLICIES:
        parts = _Parts(text, ("mstd",))
        return Policy("auto", text, POLICIES[name], noise=parts.noise(0.0))
    known = ("rand", "augmix", *POLICIES)
    raise ConfigError(
        f"no augmentation policy is called {name!r} (in {text!r})"
        f"{did_you_mean(name, known)}; for example rand-m9-mstd0.5-inc1"
    )


def _read_rand(parts: _Parts) -> Policy:
    increasing = bool(parts.whole("inc", 0, 0, 1))
    choices: dict[str, Optional[float]] = dict.fromkeys(_INCREASING if increasing else _PLAIN)
    if "t" in parts.values:
        wanted = parts.values["t"]
        if wanted not in CHOICES:
            hint = did_you_mean(wanted, CHOICES)
            raise parts.error(f"has 't' with {wanted!r}, which is no set of operations{hint}")
        choices = CHOICES[wanted]
    given = [weight for weight in choices.values() if weight is not None]
    layers = parts.whole("n", 2, 0)
    if given and layers > len(choices):
        raise parts.error(f"takes {layers} different operations of {len(choices)}")
    return Policy(
        "rand",
        parts.text,
        choices=tuple(choices),
        weights=tuple(weight / sum(given) for weight in given) or None,
        level=parts.whole("m", 10, 0),
        noise=parts.noise(0.0),
        top=parts.whole("mmax", 0, 0) or 10,
        layers=layers,
        prob=parts.number("p", 0.5, 0, 1),
    )


def _read_augmix(parts: _Parts) -> Policy:
    return Policy(
        "augmix",
        parts.text,
        choices=_MIX_OF_AUGMIX,
        level=parts.whole("m", 3, 0),
        noise=parts.noise(math.inf),
        layers=parts.whole("d", 0, 0),
        prob=1.0,
        width=parts.whole("w", 3, 1),
        alpha=parts.number("a", 1.0, 1e-6),
    )
