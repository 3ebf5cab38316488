"""What a device can do of mixed precision, said in one line or refused."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
import pytest

import passl
from passl.engine import mixed_precision
from passl.engine.mixed_precision import why_not
from passl.errors import ConfigError


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of some compute capability, as Paddle tells of it."""

    def make(major: int, supported: bool = True) -> None:
        cuda = paddle.device.cuda
        monkeypatch.setattr(cuda, "get_device_capability", lambda *_: (major, 5))
        monkeypatch.setattr(cuda, "get_device_name", lambda *_: "Some GPU")
        for dtype in ("float16", "bfloat16"):
            monkeypatch.setattr(
                paddle.amp, f"is_{dtype}_supported", lambda *_: supported, raising=False
            )

    return make


@pytest.mark.parametrize(
    ("major", "dtype", "reason"),
    [
        (8, "bfloat16", None),
        (7, "float16", None),
        (7, "bfloat16", "needs a GPU of compute capability 8.0 or higher, and Some GPU has 7.x"),
        (6, "float16", "needs a GPU of compute capability 7.0 or higher, and Some GPU has 6.x"),
    ],
)
def test_a_gpu_too_old_for_the_dtype(gpu, major, dtype, reason):
    gpu(major)
    assert why_not("gpu", dtype) == reason


def test_what_paddle_says_it_cannot(gpu):
    gpu(9, supported=False)
    assert why_not("gpu", "bfloat16") == (
        f"is not supported by Paddle {paddle.__version__} on this gpu"
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_cpu_cannot(dtype):
    assert why_not("cpu", dtype) == "does not exist on a CPU"


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_a_run_says_what_runs_instead_or_is_refused(run_folder, monkeypatch, level):
    monkeypatch.setattr(mixed_precision, "why_not", lambda *_: "is not what this device does")
    options = [f"FP16.level={level}", "FP16.dtype=bfloat16"]
    run = passl.build_run(passl.load_config(run_folder.config_file, options))
    run.close()
    said = f"FP16 {level} bfloat16 is not what this device does: running in fp32"
    assert run_folder.log().count(said) == 1
    assert run.trainer.parts.precision.record() == {"level": "O0", "dtype": "float32"}
    assert run.trainer.parts.half is None
    assert {str(each.dtype) for each in run.model.parameters()} == {"paddle.float32"}
    options += ["FP16.strict=true", "Global.device=auto"]  # of a CPU the config check knows it
    strict = passl.load_config(run_folder.config_file, options)
    with pytest.raises(ConfigError, match=r"-o FP16.level=\w+: FP16.level: .*does; use -o FP16"):
        passl.build_run(strict)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["FP16.fp16_custom_black_list=[gelu, sofmax]"],
         "fp16_custom_black_list: Paddle .* has no operation 'sofmax'; did you mean 'softmax"),
        (["FP16.fp16_custom_white_list=[gleu]"],
         "fp16_custom_white_list: Paddle .* has no operation 'gleu'; did you mean .*'gelu'"),
        (["FP16.fp16_custom_white_list=[gelu]", "FP16.fp16_custom_black_list=[gelu]"],
         "'gelu' is in fp16_custom_black_list as well; keep one"),
        (["FP16.fp16_custom_black_list=[matmul]"],
         "no layer runs an operation 'matmul', and the entry would do nothing; write matmul_v2"),
    ],
    ids=["black", "white", "both", "old"],
)  # fmt: skip
def test_an_operation_that_paddle_does_not_have_is_refused(run_folder, options, message):
    config = passl.load_config(run_folder.config_file, ["FP16.level=O1", *options])
    with pytest.raises(ConfigError, match=message):
        passl.build_run(config)


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("matmul", lambda x: x @ x),
        ("mul", lambda x: paddle.mm(x, x)),
        ("sum", lambda x: x.sum()),
        ("transpose", lambda x: x.transpose([1, 0])),
        ("expand", lambda x: x.expand([2, 2, 2])),
        ("lookup_table", lambda x: F.embedding(paddle.to_tensor([1]), x)),
        ("cross_entropy", lambda x: F.cross_entropy(x, paddle.to_tensor([0, 1]))),
    ],
)
def test_what_paddle_calls_an_operation_in_its_lists(name, run):
    seen = _run_names(run)
    assert mixed_precision._RUNS_AS[name] in seen
    assert name not in seen


def _run_names(run):
    """Paddle counts what it runs under the names that its automatic casts look for."""
    core, flag = paddle.base.core, "FLAGS_low_precision_op_list"
    core.clear_low_precision_op_list()
    paddle.set_flags({flag: 1})
    try:
        run(paddle.ones([2, 2]))
    finally:
        paddle.set_flags({flag: 0})
    return set(core.get_low_precision_op_list())


def test_mean_is_a_name_that_paddles_own_losses_still_run_under():
    """Of a whole tensor it is another operator than along an axis, and both may be meant."""
    assert "mean" not in mixed_precision._RUNS_AS
    assert "mean" in _run_names(lambda x: F.l1_loss(x, x))
    assert "reduce_mean" in _run_names(lambda x: x.mean())


def test_the_names_of_paddles_own_lists_are_taken(run_folder):
    options = ["FP16.level=O1", "FP16.fp16_custom_white_list=[layer_norm, softmax, reduce_sum]",
               "FP16.fp16_custom_black_list=[matmul_v2, elementwise_add, gelu]"]  # fmt: skip
    passl.build_run(passl.load_config(run_folder.config_file, options)).close()
