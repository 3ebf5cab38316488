"""Write docs/transforms.md and its pictures: every transform, on a photograph.

    python tools/draw_transforms.py              # docs/transforms.md and docs/images/transforms/
    python tools/draw_transforms.py --out DIR    # the same two into DIR

The chains below are the page's examples; a transform without one is an error.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import yaml
from PIL import Image

from passl.config.dump import emit
from passl.errors import ConfigError
from passl.registry import BATCH_TRANSFORMS, TRANSFORMS, Registry
from passl.signatures import ComponentSpec, ParamSpec

__all__ = ["EXAMPLES", "JPEG", "draw", "main", "page"]

_PHOTO = (180, 120)  # pixels: width and height of the photograph that is transformed
_DRAWS = 4
_GAP = 4
#: How the pictures are saved.
JPEG: dict[str, Any] = {"format": "JPEG", "quality": 82, "optimize": True}
_TO_INPUT = "- NormalizeImage: {order: hwc}"

#: The transform -> the chain that shows it, as in ``transform_ops`` or ``batch_transform``.
EXAMPLES = {
    "DecodeImage": "- DecodeImage",
    "ResizeImage": "- ResizeImage: {size: [120, 90], interpolation: bicubic}",
    "Resize": "- Resize: {size: 90, interpolation: bicubic}",
    "CenterCropImage": "- CenterCropImage: {size: 96}",
    "CenterCrop": "- CenterCrop: {size: [120, 220]}",
    "RandCropImage": "- RandCropImage: {size: 112, scale: [0.08, 1.0], interpolation: bicubic}",
    "RandomResizedCrop": "- RandomResizedCrop: {size: 112, scale: [0.6, 1.0]}",
    "RandomCrop": "- RandomCrop: {size: 112, padding: 12, fill: 128}",
    "RandFlipImage": "- RandFlipImage: {flip_code: 1, prob: 0.5}",
    "RandomHorizontalFlip": "- RandomHorizontalFlip: {p: 0.5}",
    "TimmAutoAugment": "- TimmAutoAugment: {config_str: rand-m9-mstd0.5-inc1}",
    "RandAugment": "- RandAugment: {num_layers: 2, magnitude: 10}",
    "ThreeAugment": "- ThreeAugment: {color_jitter: 0.3}",
    "ColorJitter": "- ColorJitter: {brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1}",
    "RandomGrayscale": "- RandomGrayscale: {p: 0.5}",
    "GaussianBlur": "- GaussianBlur: {sigma: [0.1, 2.0]}",
    "NormalizeImage": "- NormalizeImage: {order: hwc}",
    "RandomErasing": f"{_TO_INPUT}\n- RandomErasing: {{prob: 1.0, mode: pixel}}",
    "ToCHWImage": "- ToCHWImage",
    "Mixup": "- Mixup: {alpha: 1.0}",
    "Cutmix": "- Cutmix: {alpha: 1.0}",
    "TransformOpSampler": textwrap.dedent(
        """\
        - TransformOpSampler:
            ops:
              - Mixup: {alpha: 1.0, prob: 0.5}
              - Cutmix: {alpha: 1.0, prob: 0.5}"""
    ),
    "MixupCutmix": "- MixupCutmix: {mixup_alpha: 0.8, cutmix_alpha: 1.0, mode: elem}",
}

_INTRODUCTION = """\
# Transforms in pictures

Every transform that `transform_ops` and `batch_transform` of a config can name, on a photograph of
180 x 120 pixels. At the left is what comes in, then the result, pixel for pixel: four of them, of
four random generators, where something is random. [data.md](data.md) says how chains are loaded,
decoded and seeded, and how they differ from PASSL's; `passl-data preview -c CONFIG` draws the chain
of a config.

`python tools/draw_transforms.py` writes this page and its pictures. The photographs come with
scikit-learn, under [CC BY 2.0](https://creativecommons.org/licenses/by/2.0/):
[one](https://www.flickr.com/photos/danielbuechele/6061409035/),
[two](https://www.flickr.com/photos/vultilion/6056698931/); they were shrunk and transformed.
"""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Write docs/transforms.md and its pictures.")
    docs = Path(__file__).resolve().parents[1] / "docs"
    parser.add_argument("--out", type=Path, default=docs, help="folder (default: docs)")
    out: Path = parser.parse_args(argv).out
    folder = out / "images/transforms"
    folder.mkdir(parents=True, exist_ok=True)
    for registry in (TRANSFORMS, BATCH_TRANSFORMS):
        for name in registry.names():
            draw(registry, name).save(folder / f"{name}.jpg", **JPEG)
    (out / "transforms.md").write_text(page(), encoding="utf-8")
    print(f"{out / 'transforms.md'}: {len(EXAMPLES)} transforms")
    return 0


def page() -> str:
    """The text of docs/transforms.md."""
    parts = [_INTRODUCTION]
    kinds = [
        (TRANSFORMS, "Of one image: `transform_ops`"),
        (BATCH_TRANSFORMS, "Of a batch: `batch_transform`"),
    ]
    for registry, title in kinds:
        parts.append(f"## {title}\n\n| name | |\n|---|---|")
        found = (registry.spec(name) for name in registry.names())
        # A user's own, made known by Global.imports, are not part of the page.
        specs = [spec for spec in found if spec is not None and spec.module.startswith("passl.")]
        parts[-1] += "".join(
            f"\n| [`{spec.name}`](#{spec.name.lower()}) | {_summary(spec)} |" for spec in specs
        )
        parts += [_section(spec) for spec in specs]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def draw(registry: Registry, name: str) -> Image.Image:
    """What comes in at the left, then what comes out, four times.

    Raises:
        ConfigError: there is no example of the transform.
    """
    if registry is TRANSFORMS:
        photo = _photo("china.jpg")
        chain = _chain(registry, name)
        results = [_after(chain, photo, draw) for draw in range(_DRAWS)]
        nothing_random = all(np.array_equal(result, results[0]) for result in results)
        return _strip([photo, *(results[:1] if nothing_random else results)])
    one, two = _photo("china.jpg"), _photo("flower.jpg")
    batch = np.stack([one, one, two, two]).transpose(0, 3, 1, 2).astype(np.float32)
    labels = np.array([0, 0, 1, 1], np.int64)
    (mix,) = _chain(registry, name, model_class_num=2)
    mixed, _ = mix(batch, labels, np.random.default_rng(3))
    pictures = np.rint(np.clip(mixed, 0, 255)).astype(np.uint8).transpose(0, 2, 3, 1)
    return _strip([one, two, *pictures[:3]])


def _chain(registry: Registry, name: str, **runtime: Any) -> list[Any]:
    if name not in EXAMPLES:
        raise ConfigError(f"{name} has no example; add one to EXAMPLES of {Path(__file__).name}")
    return [
        registry.build(_component(entry), **runtime) for entry in yaml.safe_load(EXAMPLES[name])
    ]


def _component(entry: Any) -> dict[str, Any]:
    """PASSL's form, a name or a mapping of one name, as ``{name: ..., **arguments}``."""
    if isinstance(entry, str):
        return {"name": entry}
    ((name, arguments),) = entry.items()
    nested = {
        key: [_component(item) for item in value] if key == "ops" else value
        for key, value in (arguments or {}).items()
    }
    return {"name": name, **nested}


def _after(chain: list[Any], photo: np.ndarray, draw: int) -> np.ndarray:
    rng = np.random.default_rng(draw)
    image: Any = photo
    for transform in chain:
        image = transform(image, rng)
    if image.shape[0] == 3 and image.shape[2] != 3:  # channels first: one below the other
        image = np.repeat(image.reshape(-1, image.shape[2])[::3, ::3, None], 3, axis=2)
    if image.dtype != np.uint8:  # normalised: -2.2 is black, 2.7 white
        image = np.rint(np.clip((image + 2.2) / 4.9, 0, 1) * 255).astype(np.uint8)
    return image


def _photo(name: str) -> np.ndarray:
    from sklearn.datasets import load_sample_image

    return np.asarray(Image.fromarray(load_sample_image(name)).resize(_PHOTO, Image.BICUBIC))


def _strip(images: Sequence[np.ndarray]) -> Image.Image:
    height = max(image.shape[0] for image in images)
    width = sum(image.shape[1] + _GAP for image in images) - _GAP
    strip = Image.new("RGB", (width, height), "white")
    left = 0
    for image in images:
        strip.paste(Image.fromarray(image), (left, (height - image.shape[0]) // 2))
        left += image.shape[1] + _GAP
    return strip


def _summary(spec: ComponentSpec) -> str:
    return spec.doc.split("\n\n")[0].replace("\n", " ").replace("``", "`").replace("|", "\\|")


def _section(spec: ComponentSpec) -> str:
    key = "transform_ops" if spec.kind == "transforms" else "batch_transform"
    lines = [f"### {spec.name}", "", _summary(spec), ""]
    lines += ["```yaml", f"{key}:", textwrap.indent(EXAMPLES.get(spec.name, ""), "  "), "```", ""]
    lines += [f"![{spec.name}](images/transforms/{spec.name}.jpg)"]
    if spec.configurable:
        lines += ["", "| argument | takes | default | |", "|---|---|---|---|"]
        lines += [_row(param) for param in spec.configurable]
    if spec.aliases:
        lines += ["", f"Also called {', '.join(f'`{alias}`' for alias in spec.aliases)}."]
    return "\n".join(lines)


def _row(param: ParamSpec) -> str:
    default = "required" if param.required else f"`{emit({'x': param.default})[3:-1]}`"
    doc = param.doc.replace("``", "`").replace("|", "\\|")
    return f"| `{param.name}` | {param.type.describe()} | {default} | {doc} |"


if __name__ == "__main__":
    sys.exit(main())
