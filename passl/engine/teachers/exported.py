"""Running exported models on tensors: Paddle's inference format, and ONNX.

A batch goes through the host's memory on its way, as neither runtime shares Paddle's tensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Optional

import numpy as np
import paddle
from paddle import Tensor

from passl.errors import CheckpointError
from passl.export.card import CARD_NAME, ModelCard
from passl.export.onnx_files import external_files
from passl.export.sessions import OnnxSession, PaddleSession, Session

__all__ = ["EXPORTED", "card_beside", "exported_runner"]

Runner = Callable[[Tensor], Tensor]

#: Suffixes of the file that names an exported model.
EXPORTED = (".onnx", ".json", ".pdmodel")


def exported_runner(name: str) -> tuple[Runner, list[Path]]:
    """What runs the exported model, and the files it is made of.

    Args:
        name: path of an ``.onnx`` file, with the files that hold weights of it beside it, or of the
            ``.json`` (Paddle 3) or ``.pdmodel`` (Paddle 2) beside a ``.pdiparams`` file.

    Raises:
        CheckpointError: a file is missing, or cannot be used.
        PasslError: ONNX Runtime is not installed.
    """
    path = Path(name).expanduser()
    files = [path] if path.suffix == ".onnx" else [path, path.with_suffix(".pdiparams")]
    for file in files:
        if not file.is_file():
            what = "is a folder, and no such file" if file.is_dir() else "there is no such file"
            raise CheckpointError(f"{file}: {what}; {name} is the exported teacher")
    if path.suffix == ".onnx":
        files += external_files(path)
    _check_card(path)
    device = paddle.device.get_device()  # cpu, gpu:0, ...
    if path.suffix == ".onnx":
        session: Session = OnnxSession(path, device)
    else:
        session = PaddleSession(path, files[1], device)
    return _through_host(session.run), files


def card_beside(path: Path) -> Optional[ModelCard]:
    """The description of an exported model; None: there is none that names its file.

    Raises:
        CheckpointError: there is one, and it cannot be used.
    """
    if not (path.parent / CARD_NAME).is_file():
        return None
    card = ModelCard.read(path.parent)
    names = {part["name"] for part in card.files.get(_kind(path), {}).values()}
    return card if path.name in names else None


def _kind(path: Path) -> str:
    return "onnx" if path.suffix == ".onnx" else "paddle"


def _check_card(path: Path) -> None:
    """Refuse what the description beside an export says is no teacher, or another file.

    Raises:
        CheckpointError: it takes bytes or a fixed batch, gives no logits, or differs from what was
            exported.
    """
    card = card_beside(path)
    if card is None:
        return
    faults = []
    if card.input["dtype"] != "float32":
        faults.append(f"takes {card.input['dtype']} [b, h, w, c] (export without --preprocess)")
    if card.output["meaning"] != "logits":
        faults.append(f"gives {card.output['meaning']} (export with a head, without --softmax)")
    if card.batch_size is not None:
        faults.append(f"takes exactly {card.batch_size} images (export without --batch)")
    if faults:
        raise CheckpointError(
            f"{path}: cannot teach: it {' and '.join(faults)}; a teacher takes the student's "
            "normalised images and gives logits"
        )
    card.verify(path.parent, _kind(path))


def _through_host(run: Callable[[np.ndarray], np.ndarray]) -> Runner:
    def on_tensors(images: Tensor) -> Tensor:
        return paddle.to_tensor(run(np.ascontiguousarray(images.astype("float32").numpy())))

    return on_tensors
