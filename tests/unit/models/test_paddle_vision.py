"""Networks of paddle.vision by name: Paddle's own, with weights of our own drawing."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.checkpoint.files import write_arrays
from passl.checkpoint.pretrained import load_pretrained
from passl.checkpoint.sources import write_safetensors
from passl.errors import CheckpointError
from passl.models import create_model, model_spec

# Trained numbers with 1000 classes, as torchvision's documentation lists them.
TORCHVISION = {"ResNet18": 11_689_512, "ResNet50": 25_557_032, "MobileNetV2": 3_504_872}


def trained(model):
    return sum(int(p.size) for p in model.parameters() if not p.stop_gradient)


@pytest.mark.parametrize("name", TORCHVISION)
def test_counts_equal_torchvisions(name):
    assert trained(create_model(name)) == TORCHVISION[name]


def test_resnet50_of_45_classes_answers_for_images_of_any_size():
    model = create_model("paddle:resnet50", class_num=45)
    assert model_spec("paddle:resnet50").name == "ResNet50"
    assert trained(model) == 25_557_032 - 955 * 2049
    model.eval()
    for side in (32, 40):
        logits = model(paddle.zeros([2, 3, side, side]))
        assert list(logits.shape) == [2, 45]
        assert np.isfinite(logits.numpy()).all()


def test_one_seed_gives_one_start_and_another_another():
    first, again, other = (create_model("ResNet18", seed=s, class_num=3) for s in (1, 1, 2))
    for name, value in first.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), again.state_dict()[name].numpy(), err_msg=name)
    assert (first.conv1.weight != other.conv1.weight).any()
    std = first.layer1[0].conv1.weight.numpy().std()
    assert std == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    assert first.bn1._variance.numpy().tolist() == [1.0] * 64


@pytest.mark.parametrize("name", ["ResNet18", "SqueezeNet1_1", "MobileNetV3_large"])
def test_another_number_of_classes_starts_the_classifier_anew(tmp_path, name):
    weights = {k: v.numpy() for k, v in create_model(name, class_num=7).state_dict().items()}
    write_arrays(tmp_path / "w.pdparams", weights)
    model = create_model(name, class_num=3, seed=1)
    with pytest.raises(CheckpointError):
        load_pretrained(model, tmp_path / "w.pdparams")
    report = load_pretrained(model, tmp_path / "w.pdparams", finetune=True)
    assert all(name.startswith(model.head_prefixes) for name in report.reinitialised)
    assert len(report.loaded) == len(weights) - len(report.reinitialised)
    assert len(report.reinitialised) == 2


TORCH_NAMES = {"_mean": "running_mean", "_variance": "running_var"}


def test_a_file_of_torchvision_is_read(tmp_path):
    model = create_model("ResNet18", class_num=3, seed=3)
    stored = {"bn1.num_batches_tracked": np.int64(7)}
    for name, value in model.state_dict().items():
        head, _, last = name.rpartition(".")
        array = value.numpy()
        stored[f"{head}.{TORCH_NAMES.get(last, last)}"] = array.T if name == "fc.weight" else array
    write_safetensors(tmp_path / "x.safetensors", stored)
    other = create_model("ResNet18", class_num=3, seed=4)
    report = load_pretrained(other, tmp_path / "x.safetensors")
    assert len(report.loaded) == len(model.state_dict())
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name].numpy(), value.numpy(), err_msg=name)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_logits_are_timms(tmp_path, name):
    timm = pytest.importorskip("timm")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=5).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    ours = create_model(f"paddle:{name}", class_num=5)
    load_pretrained(ours, tmp_path / "x.pth")
    ours.eval()
    images = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype("float32")
    with torch.no_grad(), paddle.no_grad():
        wanted, found = theirs(torch.tensor(images)).numpy(), ours(paddle.to_tensor(images)).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
