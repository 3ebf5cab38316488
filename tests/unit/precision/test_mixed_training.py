"""Training at O2 against a model of mixed-precision training written here in NumPy.

Numbers are chosen so that every sum of the forward and backward pass is exact in float32: then the
order of additions does not matter, what is left is the rounding of mixed precision, and the two
agree bit for bit.
"""

from __future__ import annotations

from typing import Optional

import numpy as np
import paddle
import pytest
from forced_amp import cast_truncates, forced_amp  # noqa: F401  a fixture
from paddle import nn

from passl.optim.adamw import AdamW
from passl.optim.clip import ClipGradByGlobalNorm, global_norm
from passl.optim.groups import build_param_groups
from passl.optim.momentum import Momentum
from passl.precision.amp import LossScaler, Precision
from passl.precision.gradients import WideGradients
from passl.precision.half_weights import HalfWeights

TRUNCATES = cast_truncates()
BATCH, INPUTS, OUTPUTS, MICRO = 16, 8, 4, 2
SCALER = {
    "init_loss_scaling": 2.0**21,
    "incr_every_n_steps": 6,
    "decr_every_n_nan_or_inf": 2,
    "max_loss_scaling": 2.0**21,
}


def rounded(value: np.ndarray, dtype: str) -> np.ndarray:
    """To the nearest number of ``dtype``, ties to even, or towards zero; given as float32."""
    value = np.asarray(value, np.float32)
    if dtype == "float16":
        with np.errstate(over="ignore", invalid="ignore"):
            found = value.astype(np.float16)
            if TRUNCATES:
                further = np.abs(found.astype(np.float32)) > np.abs(value)
                found = np.where(
                    further & (np.abs(value) < 65536), np.nextafter(found, np.float16(0)), found
                )
            return found.astype(np.float32)
    bits = value.view(np.uint32)
    if not TRUNCATES:
        bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    found = (bits & np.uint32(0xFFFF0000)).view(np.float32)
    return np.where(np.isfinite(value), found, value)


class NumpyTraining:
    """A linear layer under a squared error, with half weights and float32 masters."""

    def __init__(self, masters: dict[str, np.ndarray], dtype: str) -> None:
        self.masters = {name: value.copy() for name, value in masters.items()}
        self.velocity = {name: np.zeros_like(value) for name, value in masters.items()}
        self.dtype, self.updates = dtype, 0
        self.scale, self.good, self.bad = 1.0, 0, 0
        if dtype == "float16":
            self.scale = SCALER["init_loss_scaling"]

    def half(self) -> dict[str, np.ndarray]:
        return {name: rounded(value, self.dtype) for name, value in self.masters.items()}

    def gradients(self, x: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
        """Of the scaled loss, rounded micro-batch by micro-batch, added up in float32."""
        sums = {name: np.zeros_like(value) for name, value in self.masters.items()}
        weights = self.half()
        for part in np.split(np.arange(BATCH), MICRO):
            y = x[part] @ weights["weight"] + weights["bias"]
            error = (y - target[part]) * np.float32(2.0 / y.size * self.scale / MICRO)
            with np.errstate(invalid="ignore"):
                sums["weight"] += rounded(x[part].T @ error, self.dtype)
                sums["bias"] += rounded(error.sum(axis=0), self.dtype)
        return sums

    def step(self, x: np.ndarray, target: np.ndarray, lr: float, momentum: float) -> bool:
        sums = self.gradients(x, target)
        finite = all(np.isfinite(value).all() for value in sums.values())
        if finite:
            self.updates += 1
            for name, value in sums.items():
                gradient = value * np.float32(1.0 / self.scale)
                self.velocity[name] = self.velocity[name] * np.float32(momentum) + gradient
                self.masters[name] = self.masters[name] - self.velocity[name] * np.float32(lr)
        if self.dtype == "float16":
            self._move_scale(finite)
        return finite

    def _move_scale(self, finite: bool) -> None:
        self.good, self.bad = (self.good + 1, 0) if finite else (0, self.bad + 1)
        if self.good == SCALER["incr_every_n_steps"]:
            self.scale, self.good = min(self.scale * 2.0, SCALER["max_loss_scaling"]), 0
        if self.bad == SCALER["decr_every_n_nan_or_inf"]:
            self.scale, self.bad = max(self.scale * 0.5, 1.0), 0


class OurTraining:
    """The same through Paddle and this package, in the order of the trainer."""

    def __init__(self, masters: dict[str, np.ndarray], dtype: str, optimizer: str) -> None:
        self.layer = nn.Linear(INPUTS, OUTPUTS)
        for name, value in masters.items():
            dict(self.layer.named_parameters())[name].set_value(value)
        groups = build_param_groups(self.layer.named_parameters())
        is_adamw = optimizer == "AdamW"
        self.optimizer = AdamW(groups=groups) if is_adamw else Momentum(groups=groups, momentum=0.5)
        self.half = HalfWeights(self.layer, dtype, self.layer.state_dict())
        self.optimizer.use_masters(self.half.masters)
        self.precision = Precision("O2", dtype, LossScaler(**SCALER))
        self.parameters = list(self.layer.named_parameters())
        self.sums = WideGradients(self.parameters)
        self.clip: Optional[ClipGradByGlobalNorm] = None

    def step(self, x: np.ndarray, target: np.ndarray, lr: float) -> bool:
        for number, part in enumerate(np.split(np.arange(BATCH), MICRO)):
            with self.precision.autocast():
                y = self.layer(paddle.to_tensor(x[part]))
            loss = (y.astype("float32") - paddle.to_tensor(target[part])).square().mean()
            self.precision.backward(loss, 1.0 / MICRO)
            if number < MICRO - 1:
                self.sums.keep()
        self.sums.finish()
        if self.clip is not None:
            norm = self.clip(self.parameters, self.precision.scale)
        else:
            self.precision.unscale(parameter.grad for _, parameter in self.parameters)
            norm = global_norm(self.parameters)
        accepted = self.precision.accept(norm)
        if accepted:
            self.optimizer.step(lr)
        self.optimizer.clear_grad()
        return bool(accepted)


def problem(seed: int = 5) -> tuple[dict[str, np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    """Masters that half precision cannot hold, and exact batches; some overflow, some hold NaN."""
    rng = np.random.default_rng(seed)
    masters = {
        "weight": rng.uniform(0.3, 0.9, [INPUTS, OUTPUTS]).astype(np.float32),
        "bias": rng.uniform(0.3, 0.9, [OUTPUTS]).astype(np.float32),
    }
    batches = []
    for number in range(40):
        x = rng.integers(-1, 2, [BATCH, INPUTS]).astype(np.float32)
        target = rng.integers(-2, 3, [BATCH, OUTPUTS]).astype(np.float32)
        if number in (11, 25, 26):
            x[3, 2] = np.inf if number == 11 else np.nan
        batches.append((x, target))
    return masters, batches


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_step_is_that_of_the_numpy_model_bit_for_bit(forced_amp, dtype):  # noqa: F811
    masters, batches = problem()
    ours, theirs = OurTraining(masters, dtype, "Momentum"), NumpyTraining(masters, dtype)
    decisions, scales = [], []
    for x, target in batches:
        with np.errstate(invalid="ignore"):
            wanted = theirs.step(x, target, 2.0**-9, 0.5)
        assert ours.step(x, target, 2.0**-9) is wanted
        decisions.append(wanted)
        scales.append(theirs.scale)
        assert ours.precision.scale == theirs.scale
        for name, parameter in ours.parameters:
            where = f"{name} after step {len(decisions)}"
            np.testing.assert_array_equal(
                ours.half.masters[name].numpy(), theirs.masters[name], where
            )
            assert str(parameter.dtype) == f"paddle.{dtype}"
            np.testing.assert_array_equal(
                parameter.astype("float32").numpy(), theirs.half()[name], where
            )
    state = ours.optimizer.state_dict()
    for name, value in theirs.velocity.items():
        np.testing.assert_array_equal(state[f"{name}/velocity"].numpy(), value)
    assert ours.optimizer.num_steps == theirs.updates == sum(decisions)
    if dtype == "float16":  # overflows of its own at first, growth, shrinking: all happened
        assert decisions[:4] != [True] * 4
        assert any(after > before for before, after in zip(scales, scales[1:]))
        assert any(after < before for before, after in zip(scales, scales[1:]))
    else:
        assert decisions == [number not in (11, 25, 26) for number in range(40)]


def test_half_gradients_alone_would_not_agree(forced_amp):  # noqa: F811
    """The oracle sees the difference that this module is about."""
    masters, batches = problem()
    exact, rough = NumpyTraining(masters, "bfloat16"), NumpyTraining(masters, "bfloat16")
    summed = rough.gradients
    rough.gradients = lambda *batch: {  # type: ignore[method-assign]
        name: rounded(value, "bfloat16") for name, value in summed(*batch).items()
    }
    for x, target in batches[:10]:
        exact.step(x, target, 2.0**-9, 0.5)
        rough.step(x, target, 2.0**-9, 0.5)
    assert any((exact.masters[name] != rough.masters[name]).any() for name in masters)


def test_adamw_with_clipping_follows_its_formula_on_the_masters(forced_amp):  # noqa: F811
    masters, batches = problem()
    ours, theirs = OurTraining(masters, "float16", "AdamW"), NumpyTraining(masters, "float16")
    ours.clip = ClipGradByGlobalNorm(0.05)
    wide = {name: value.astype(np.float64) for name, value in masters.items()}
    first = {name: np.zeros_like(value) for name, value in wide.items()}
    second = {name: np.zeros_like(value) for name, value in wide.items()}
    count = 0
    for x, target in batches[:24]:
        theirs.masters = {name: ours.half.masters[name].numpy() for name in masters}
        with np.errstate(invalid="ignore"):
            sums = theirs.gradients(x, target)
        finite = all(np.isfinite(value).all() for value in sums.values())
        if finite:
            count += 1
            unscaled = {n: v.astype(np.float64) / theirs.scale for n, v in sums.items()}
            norm = np.sqrt(sum((v**2).sum() for v in unscaled.values()))
            factor = min(1.0, 0.05 / (norm + 1e-6))
            for name, value in unscaled.items():
                gradient = value * factor
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                root = np.sqrt(second[name] / (1 - 0.999**count)) + 1e-8
                wide[name] = wide[name] - 1e-3 * first[name] / (1 - 0.9**count) / root
        theirs._move_scale(finite)
        assert ours.step(x, target, 1e-3) is finite
        assert ours.precision.scale == theirs.scale
        for name, parameter in ours.parameters:
            master = ours.half.masters[name].numpy()
            np.testing.assert_allclose(master, wide[name], rtol=3e-6, err_msg=name)
            np.testing.assert_array_equal(
                parameter.astype("float32").numpy(), rounded(master, "float16")
            )
    assert count > 10
