"""The soft mask of iLLaMA: from attention to all tokens to attention to earlier ones."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from passl.engine.hooks.scheduled import ScheduledSetting
from passl.errors import ConfigError
from passl.registry import HOOKS, Range
from passl.schedules.phases import early_rate

__all__ = ["SoftMask"]


@HOOKS.register()
class SoftMask(ScheduledSetting):
    """Begin with a soft mask, and end with none.

    The rate is that of every later token in the attention: 1 is bidirectional, 0 the model as
    released.  An evaluation during training uses the rate of the step before it, as the
    published logs do; every log line and evaluation says it.

    Args:
        schedule: ``constant`` keeps ``rate`` until the cutoff, ``linear`` falls from it to 0 there.
        cutoff_epochs: when the rate is 0, in epochs, fractions allowed; 0 is from the start.
        cutoff_steps: the same in optimizer steps; give one of the two.
        rate: of the first step.

    Source: Wang et al. 2024, "Adapting LLaMA Decoder to Vision Transformer", section 3.5.
    """

    setting = "soft_mask_rate"

    def __init__(
        self,
        *,
        schedule: Literal["constant", "linear"] = "constant",
        cutoff_epochs: Annotated[float, Range(min=0.0)] = 0.0,
        cutoff_steps: Annotated[int, Range(min=0)] = 0,
        rate: Annotated[float, Range(min=0.0, max=1.0)] = 1.0,
    ) -> None:
        super().__init__(cutoff_epochs, cutoff_steps)
        self.schedule, self.rate = schedule, rate

    def check(self, model: Any) -> None:
        """Refuse a model without a soft mask.

        Raises:
            ConfigError: it has none.
        """
        attention = getattr(model, "attention", None)
        if attention != "released":
            has_none = type(model).__name__ + (f" with attention: {attention}" if attention else "")
            raise ConfigError(
                f"Hooks: SoftMask: the model {has_none} has no soft mask; only iLLaMA with "
                "attention: released has one. Remove the hook, or choose such a model"
            )

    def value(self, step: int) -> float:
        """The rate of step number ``step``, from 0."""
        return early_rate(step, rate=self.rate, schedule=self.schedule, cutoff=self.cutoff)

    def apply(self, model: Any, value: float) -> None:
        """Set the rate of every block."""
        model.set_soft_mask_rate(value)
