"""Which weights a command means that uses a trained model."""

from __future__ import annotations

from pathlib import Path

from passl.config import Config
from passl.errors import CheckpointError

__all__ = ["weights_to_evaluate"]


def weights_to_evaluate(config: Config, run_dir: Path) -> str:
    """What the command line names, else what the run itself trained.

    A ``pretrained_model`` in the file is where training began, so it comes last.

    Args:
        config: of the run.
        run_dir: folder of the run; it need not exist.

    Raises:
        CheckpointError: there are no weights.
    """
    settings = config.Global
    pretrained = settings.pretrained_model
    if pretrained is not None and config.origin("Global.pretrained_model").startswith("-o"):
        return pretrained
    if settings.checkpoint not in (None, "auto"):
        return str(settings.checkpoint)
    for link in ("best", "latest"):
        if (run_dir / link).exists():
            return str(run_dir / link)
    if pretrained is None:
        raise CheckpointError(
            f"there is nothing to evaluate: {run_dir} holds no checkpoint yet; name the "
            "weights with -o Global.pretrained_model=PATH, or train first"
        )
    return pretrained
