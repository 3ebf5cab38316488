r"""Which fonts of this machine have the letters of a text: classes have names in every script.

A font draws a box for a letter that it lacks.  Here such a letter is looked for in the fonts that
are installed; where none has it, its escape is written (``\u732b``), which can be looked up, and
the font that would help is named once.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Optional

from PIL import ImageDraw, ImageFont

from passl.logs.logger import get_logger

__all__ = [
    "Pen",
    "can_draw",
    "drawable",
    "escaped",
    "fonts_for",
    "pillows_font",
    "tell_of_lacking",
]

#: Beginnings of names of fonts (letters and digits alone) that have many letters and are easy to
#: read when small; the first are taken before the others.
_PREFERRED = (
    "notosanscjk", "notosanssc", "sourcehansans", "wqymicrohei", "wqyzenhei", "msyh", "simhei",
    "pingfang", "hiraginosansgb", "heiti", "droidsansfallback", "arialunicode", "arialuni",
    "notosans", "freesans", "unifont",
)  # fmt: skip
_ODD_STYLES = (
    "bold", "italic", "oblique", "black", "light", "thin", "medium", "mono", "serif", "condensed",
    "lastresort",
)  # fmt: skip
#: Scripts that the same font serves.
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH")
_TRIAL_PX = 16
_NOBODYS = "\U0010fffe"  # no character, so what a font draws for it is what it draws for a lack
_MOST_SHOWN = 12
_CODES = 0x40000  # the planes of letters
_owner: dict[str, Optional[Path]] = {}
_told: set[str] = set()


def can_draw(text: str) -> bool:
    """Whether every letter is in matplotlib's own font or in another that is installed."""
    return not _without_font(text)


def fonts_for(text: str) -> list[Path]:
    """Fonts that have what matplotlib's own lacks of ``text``, as far as any here has it."""
    owners = _owners(_lacking(text, _base(_TRIAL_PX)))
    return list(dict.fromkeys(owner for owner in owners.values() if owner is not None))


def drawable(name: str, otherwise: str, where: str) -> str:
    """``name``, or ``otherwise`` where no font has its letters, which is told then.

    Args:
        name, otherwise: texts.
        where: what is drawn, for the note.
    """
    if can_draw(name):
        return name
    tell_of_lacking(name, where)
    return otherwise


def escaped(text: str) -> str:
    r"""``text`` with ``\u732b`` for each letter that no font here has."""
    without = _without_font(text)
    return "".join(_escape(letter) if letter in without else letter for letter in text)


def tell_of_lacking(text: str, where: str) -> None:
    """Say which letters no font has and which font would help, once for each such font."""
    without = [letter for letter in _without_font(text) if _helpful(letter) not in _told]
    if not without:
        return
    helpful = dict.fromkeys(_helpful(letter) for letter in without)
    _told.update(helpful)
    more = f" and {len(without) - _MOST_SHOWN} more" if len(without) > _MOST_SHOWN else ""
    get_logger().warning(
        "%s: no font on this machine has %s%s; codes, or the numbers of the classes, stand in the "
        "place of such letters. Install %s",
        where, " ".join(without[:_MOST_SHOWN]), more, ", ".join(helpful),
    )  # fmt: skip


class Pen:
    """Writes on a picture of Pillow, each letter in a font that has it.

    Args:
        draw: of the picture.
        size_px: of the letters.
        where: what is drawn, for the note on letters that no font has.
        base: the font of all letters that it has; None: matplotlib's, else Pillow's own.
    """

    def __init__(
        self, draw: ImageDraw.ImageDraw, size_px: int, where: str, base: Any = None
    ) -> None:
        base = _base(size_px) if base is None else base
        self._draw, self._size_px, self._base = draw, size_px, base
        self.where = where

    def length(self, text: str) -> float:
        """Width in pixels."""
        return sum(self._draw.textlength(part, font=font) for part, font in self._parts(text))

    def write(self, place: tuple[float, float], text: str, colour: tuple[int, int, int]) -> None:
        """Draw ``text`` from its left top corner on."""
        tell_of_lacking(text, self.where)
        x, y = place
        for part, font in self._parts(text):
            self._draw.text((x, y), part, colour, font=font)
            x += self._draw.textlength(part, font=font)

    def bar(self, place: tuple[int, int], width: int, colour: tuple[int, int, int]) -> None:
        """Draw a line of two pixels from its left end on."""
        self._draw.line([place, (place[0] + width, place[1])], colour, width=2)

    def cut(self, text: str, room: float) -> str:
        """``text``, with three dots for its end if it is wider than ``room`` pixels."""
        text = "".join(letter if letter.isprintable() else "?" for letter in text)
        if self.length(text) <= room:
            return text
        while text and self.length(text + "...") > room:
            text = text[:-1]
        return text + "..."

    def _parts(self, text: str) -> list[tuple[str, Any]]:
        """The text in pieces of one font."""
        owners = _owners(_lacking(text, self._base))
        parts: list[tuple[str, Any]] = []
        for letter in text:
            owner, font, shown = owners.get(letter), self._base, letter
            if owner is not None:
                font = _open(str(owner), self._size_px)
            elif letter in owners:
                shown = _escape(letter)
            if parts and parts[-1][1] is font:
                parts[-1] = parts[-1][0] + shown, font
            else:
                parts.append((shown, font))
        return parts


# -- letters -----------------------------------------------------------------------------------


def _lacking(text: str, font: Any) -> list[str]:
    """The letters of ``text`` that ``font`` has not, each once."""
    return [letter for letter in dict.fromkeys(text) if not _has(font, letter)]


def _without_font(text: str) -> list[str]:
    """The letters of ``text`` that neither matplotlib's font nor any other here has."""
    owners = _owners(_lacking(text, _base(_TRIAL_PX)))
    return [letter for letter, owner in owners.items() if owner is None]


@lru_cache(maxsize=4096)
def _has(font: Any, letter: str) -> bool:
    """Whether a font has a letter: it draws something else than for a lack."""
    if letter.isspace() or unicodedata.category(letter) in ("Cf", "Mn", "Me"):
        return True  # joiners, accents above others: nothing of their own to draw
    if isinstance(font, ImageFont.ImageFont):  # of a fixed size, Latin alone
        return ord(letter) < 256
    return bool(_drawn(font, letter) != _drawn(font, _NOBODYS))


def _drawn(font: Any, letter: str) -> tuple[Any, bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _escape(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode("ascii")


def _helpful(letter: str) -> str:
    """The name of a family that has it."""
    script = unicodedata.name(letter, "").split(" ")[0].split("-")[0]
    if script in _CJK:
        return "Noto Sans CJK (Debian: fonts-noto-cjk)"
    if script and unicodedata.category(letter)[0] in "LM":
        return f"Noto Sans {script.title()} (Debian: fonts-noto-core)"
    return "one that has it, such as Noto Sans Symbols or Noto Emoji"


# -- fonts -------------------------------------------------------------------------------------


def _owners(letters: Sequence[str]) -> dict[str, Optional[Path]]:
    """For each letter a font of this machine that has it; None: there is none."""
    for letter in letters:
        if letter not in _owner:
            # A font that serves others too is taken first: a name is of one hand.
            known = dict.fromkeys(file for file in _owner.values() if file is not None)
            files = [*known, *(file for file in _installed() if file not in known)]
            _owner[letter] = next((file for file in files if _draws(file, letter)), None)
    return {letter: _owner[letter] for letter in letters}


def _draws(file: Path, letter: str) -> bool:
    """Whether a font has a letter and draws it at any size; coloured pictures have one size."""
    code, bits = ord(letter), _letters_of(file)
    if code >= _CODES or not bits[code >> 3] >> (code & 7) & 1:
        return False
    try:
        return bool(_open(str(file), _TRIAL_PX).getmask(letter).getbbox())
    except (OSError, ValueError):
        return False


@cache
def _letters_of(file: Path) -> bytes:
    """A bit for each letter, set where the font has it."""
    from matplotlib.ft2font import FT2Font

    bits = bytearray(_CODES >> 3)
    try:
        for code in FT2Font(str(file)).get_charmap():
            if code < _CODES:
                bits[code >> 3] |= 1 << (code & 7)
    except (RuntimeError, OSError, ValueError):  # damaged, or in a format that is none
        return bytes(_CODES >> 3)
    return bytes(bits)


@lru_cache(maxsize=1)
def _installed() -> list[Path]:
    """Fonts of this machine, those that are best to read first.

    They are looked for anew: matplotlib's own list is from when it was first used.
    """
    try:
        from matplotlib.font_manager import findSystemFonts
    except ImportError:
        return []
    found = sorted((Path(file) for file in findSystemFonts()), key=_preference)
    upright = [file for file in found if _preference(file)[1] == 0]
    return upright or found


def _preference(file: Path) -> tuple[int, int, str]:
    name = "".join(letter for letter in file.stem.lower() if letter.isalnum())
    known = next((rank for rank, start in enumerate(_PREFERRED) if name.startswith(start)), 99)
    return known, sum(style in name for style in _ODD_STYLES), str(file)


@lru_cache(maxsize=8)
def _base(size_px: int) -> Any:
    """matplotlib's own font, which has the alphabets of Europe; Pillow's without it or FreeType."""
    try:
        import matplotlib

        file = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
        return ImageFont.truetype(str(file), size_px)
    except (ImportError, OSError):
        return pillows_font(size_px)


@lru_cache(maxsize=32)
def _open(file: str, size_px: int) -> Any:
    return ImageFont.truetype(file, size_px)


@lru_cache(maxsize=8)
def pillows_font(size_px: int) -> Any:
    """Pillow's own font; before Pillow 10.1, or without FreeType, one of a fixed size."""
    try:
        return ImageFont.load_default(size_px)
    except (TypeError, ImportError, OSError):
        return ImageFont.load_default()
