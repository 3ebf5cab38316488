"""Compare every model that PASSL and timm both name, at its true width, and write the table down.

Needs torch and timm beside PASSL; takes about half an hour on one busy core::

    python tests/golden/compare_with_timm.py                          # every name, prints the table
    python tests/golden/compare_with_timm.py 'deit*' 'vit_tiny*'      # some of them
    python tests/golden/compare_with_timm.py --write docs/models.md   # and puts it into the page

Each of timm's models gets random weights, every one of them far from zero (a fresh LayerScale of
1e-6 would hide its branch); PASSL's model of the same name gets the same by name, those of Linear
layers transposed; both see the same two images of the name's own size, in float32 on one thread.
Wider models than base are compared at a reduced depth.  Hybrids are built with
``hybrid_style: timm`` and with their own constants, Google's.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import zlib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # read when the libraries are imported

import numpy as np
import timm
import torch

_BEGIN, _END = "<!-- table: compare_with_timm -->", "<!-- end of table: compare_with_timm -->"
_WIDEST_WHOLE = 768
_REDUCED_DEPTH = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("patterns", nargs="*", default=["*"], help="names, with wildcards")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in shared_names(args.patterns):
        for style in ("timm", "google") if is_hybrid(name) else ("",):
            row = compared(name, style)
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()
            rows.append(row)
            gc.collect()
    table = "\n".join([*head(), *rows])
    if args.write is not None:
        page = args.write.read_text(encoding="utf-8")
        before, _, rest = page.partition(_BEGIN)
        _, _, after = rest.partition(_END)
        args.write.write_text(f"{before}{_BEGIN}\n{table}\n{_END}{after}", encoding="utf-8")
    return 0


def shared_names(patterns: list[str]) -> list[str]:
    """The names and aliases of PASSL's models that timm has too, in PASSL's order."""
    from passl.models import list_models, model_spec

    known = [alias for name in list_models() for alias in (name, *model_spec(name).aliases)]
    return [
        name for name in known
        if timm.is_model(name) and any(fnmatchcase(name, pattern) for pattern in patterns)
    ]


def is_hybrid(name: str) -> bool:
    from passl.models import model_spec

    return model_spec(name).param("hybrid_style") is not None


def compared(name: str, style: str) -> str:
    """One row of the table."""
    depth, theirs = timm_model(name)
    ours = passl_model(name, style, depth, theirs)
    height, width = theirs.patch_embed.img_size
    rng = np.random.default_rng(0)
    images = rng.standard_normal((2, 3, height, width), dtype=np.float32)
    with torch.no_grad():
        features = theirs.forward_features(torch.from_numpy(images))
        logits = theirs.forward_head(features)
    our_features, our_logits = run_passl(ours, images)
    cells = [f"`{name}`" + (f", {style}'s constants" if style else ""), str(depth)]
    for found, expected in ((our_logits, logits.numpy()), (our_features, features.numpy())):
        assert found.shape == expected.shape, (name, found.shape, expected.shape)
        difference = float(np.abs(found - expected).max())
        cells += [f"{difference:.1e}", f"{difference / float(np.abs(expected).max()):.1e}"]
    return f"| {' | '.join(cells)} |"


def timm_model(name: str) -> tuple[int, Any]:
    """timm's model in evaluation, with random weights, and how deep it is."""
    from passl.models import model_spec

    spec = model_spec(name)
    param = spec.param("embed_dim"), spec.param("depth")
    width, depth = (known.default for known in param if known is not None)
    if width > _WIDEST_WHOLE:
        depth = min(depth, _REDUCED_DEPTH)
    model = timm.create_model(name, num_classes=1000, depth=depth)
    for key, parameter in model.named_parameters():
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        values = rng.standard_normal(tuple(parameter.shape), dtype=np.float32)
        if parameter.ndim >= 2 and key.endswith("weight"):
            values *= parameter[0].numel() ** -0.5  # unit gain
        elif key.endswith(("weight", "gamma")):
            values = 1 + 0.2 * values  # normalisations and scales
        else:
            values *= np.float32(0.1)
        parameter.data = torch.from_numpy(values)
    return depth, model.eval()


def passl_model(name: str, style: str, depth: int, theirs: torch.nn.Module) -> Any:
    """PASSL's model of that name with the weights of timm's."""
    import paddle

    import passl
    from passl.layers.init import no_init

    arguments = {"hybrid_style": style} if style else {}
    with no_init():
        model = passl.create_model(name, class_num=1000, depth=depth, **arguments)
    weights = dict(theirs.named_parameters())
    parameters = dict(model.named_parameters())
    assert set(weights) == set(parameters), (name, set(weights) ^ set(parameters))
    for key, parameter in parameters.items():
        value = weights[key].detach().numpy()
        parameter.set_value(paddle.to_tensor(value.T if value.ndim == 2 else value))
    model.eval()
    return model


def run_passl(model: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits."""
    import paddle

    with paddle.no_grad():
        features = model.forward_features(paddle.to_tensor(images))
        logits = model.forward_head(features)
    return features.numpy(), logits.numpy()


def head() -> list[str]:
    """What was compared, and the first lines of the table."""
    import paddle

    versions = f"timm {timm.__version__}, torch {torch.__version__}, Paddle {paddle.__version__}"
    return [
        f"Generated by `tests/golden/compare_with_timm.py` with {versions}, on a CPU.",
        "",
        "| model | depth | logits, largest difference | relative | features | relative |",
        "|---|---|---|---|---|---|",
    ]


if __name__ == "__main__":
    sys.exit(main())
