"""What a person reads when something is wrong: the exact text, the exit status, no traceback.

Mistakes in config files and overrides are in tests/unit/config; here are those that only show when
data, weights, folders and devices are really looked at.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Callable

import cv2
import numpy as np
import paddle
import pytest
from small_run import RunFolder

from passl.cli import check, train
from passl.cli import eval as eval_command

TO_TENSOR = (
    "[{DecodeImage: }, {ResizeImage: {size: 8}}, {NormalizeImage: {mean: [0.5, 0.5, 0.5], "
    "std: [0.5, 0.5, 0.5], order: ''}}, {ToCHWImage: }]"
)
WANTED_LAYOUT = (
    "Expected: a folder such as ILSVRC2012/ with train/ and val/ below it, and a list file "
    "(train_list.txt, val_list.txt) with one 'relative/path label' a line; docs/data.md shows how "
    "to prepare them."
)
DATASET = "DataLoader.Train.dataset"


@pytest.fixture
def fails(run_folder: RunFolder, capsys) -> Callable[..., str]:
    """Train the small config with overrides; returns what was printed as the error."""

    def fails(*overrides: str, status: int) -> str:
        capsys.readouterr()
        assert run_folder.train(*overrides) == status
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return err.removesuffix("\n")

    return fails


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), noise)


GOOD_LINES = [f"{label}.jpg {label}" for label in range(10)]


def listed(root: Path, lines: list[str], *, images: bool = True) -> list[str]:
    """Overrides that train on a list file with these lines."""
    data = root / "data"
    data.mkdir(exist_ok=True)
    for label in range(10):
        if images:
            photo(data / f"{label}.jpg")
    (data / "list.txt").write_text("".join(f"{line}\n" for line in lines))
    return [
        f"{DATASET}={{_delete_: true, name: ImageNetDataset}}",
        f"{DATASET}.image_root={data}",
        f"{DATASET}.cls_label_path={data}/list.txt",
        f"{DATASET}.transform_ops={TO_TENSOR}",
        "Model.in_chans=3",
        "Global.eval_during_train=false",
    ]


# -- data --------------------------------------------------------------------------------------

LIST_FAULTS = {
    "negative label": (
        "0.jpg -1",
        "the label -1 is negative; labels count from 0\n  the line: 0.jpg -1",
    ),
    "label is a word": (
        "0.jpg cat",
        "the label 'cat' is not a whole number; wanted: 'path label'\n  the line: 0.jpg cat",
    ),
    "no label": (
        "0.jpg",
        "no label: there is no delimiter ' ' in the line; wanted: 'path label'\n  the line: 0.jpg",
    ),
}


@pytest.mark.parametrize("fault", LIST_FAULTS)
def test_a_bad_line_of_a_list_is_named(fails, tmp_path, fault):
    line, message = LIST_FAULTS[fault]
    err = fails(*listed(tmp_path, [*GOOD_LINES, line]), status=2)
    origin = f"-o {DATASET}={{_delete_: true, name: ImageNetDataset}}"
    assert err == f"passl-train: {origin}: {DATASET}: {tmp_path}/data/list.txt:11: {message}"


def test_a_label_beyond_the_models_classes(fails, tmp_path):
    assert fails(*listed(tmp_path, [*GOOD_LINES, "0.jpg 10"]), status=2) == (
        "passl-train: Model.class_num is 10, so labels go from 0 to 9, but "
        "DataLoader.Train.dataset has label 10; set Model.class_num=11 or more, or correct the list"
    )


def test_another_number_of_classes_than_the_data_has(fails):
    assert fails("Model.class_num=7", status=2) == (
        "passl-train: Model.class_num is 7 but DataLoader.Train.dataset (DigitsDataset) has 10 "
        "classes; set Model.class_num=10"
    )


def test_a_listed_image_that_is_not_there(fails, tmp_path):
    err = fails(*listed(tmp_path, GOOD_LINES, images=False), status=2)
    assert err.endswith(
        f": {tmp_path}/data/list.txt:1: the image {tmp_path}/data/0.jpg does not exist (10 of 10 "
        "files looked at are missing). Paths in the list are relative to image_root, "
        f"{tmp_path}/data. `passl-check --data` looks at all of them."
    )


def test_a_folder_where_the_list_should_be(fails, tmp_path):
    overrides = listed(tmp_path, GOOD_LINES)
    err = fails(*overrides, f"{DATASET}.cls_label_path={tmp_path}/data", status=2)
    assert err.endswith(
        f"cls_label_path {tmp_path}/data is a folder; it must be the list file itself. "
        f"{WANTED_LAYOUT}"
    )


def test_an_empty_list(fails, tmp_path):
    err = fails(*listed(tmp_path, []), status=2)
    assert err.endswith(
        f"{tmp_path}/data/list.txt: the list is empty; it needs one 'path label' a line"
    )


def test_a_truncated_jpeg_is_named_and_its_traceback_kept_back(fails, tmp_path, run_folder, capsys):
    overrides = listed(tmp_path, GOOD_LINES)
    broken = tmp_path / "data" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:1000])
    err = fails(*overrides, status=1)
    assert err.startswith(
        f"passl-train: sample 3 ({broken}) cannot be used: truncated or broken image (1000 bytes): "
    )
    assert f"sample 3 ({broken}) cannot be used" in run_folder.log()
    arguments = ["-c", str(run_folder.config_file), "--traceback", "-o", *overrides]
    assert train.main(arguments) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, 2])
def test_a_text_file_as_an_image_with_any_number_of_workers(fails, tmp_path, workers):
    overrides = listed(tmp_path, GOOD_LINES)
    (tmp_path / "data" / "3.jpg").write_text("hello")
    err = fails(*overrides, f"DataLoader.Train.loader.num_workers={workers}", status=1)
    assert err == (
        f"passl-train: sample 3 ({tmp_path}/data/3.jpg) cannot be used: not an image that Pillow "
        "knows (5 bytes)"
    )


def test_a_class_folder_without_an_image(fails, tmp_path):
    photo(tmp_path / "folder" / "cat" / "1.jpg")
    (tmp_path / "folder" / "dog").mkdir()
    err = fails(
        f"{DATASET}={{_delete_: true, name: ImageFolder}}", f"{DATASET}.root={tmp_path}/folder",
        f"{DATASET}.transform_ops={TO_TENSOR}", "Model.in_chans=3", "Model.class_num=2",
        "Global.eval_during_train=false", status=2,
    )  # fmt: skip
    assert err.endswith(
        f"1 of 2 class folders of {tmp_path}/folder have no image in them (dog); wanted: files "
        "ending in .jpg .jpeg .png .bmp .webp .tif .tiff .ppm. Remove the empty folders or fill "
        "them"
    )


def test_missing_imagenet_is_said_in_a_moment_without_paddle(repo, tmp_path, user_environment):
    config = repo / "configs" / "ViT_base_patch16_224.yaml"
    code = (
        "import sys; from passl.cli.train import main\n"
        f"status = main(['-c', {str(config)!r}])\n"
        "assert not {'paddle', 'cv2', 'PIL'} & set(sys.modules)\n"
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=user_environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    base = os.path.relpath(repo / "configs" / "_base_" / "data" / "imagenet1k_224.yaml", tmp_path)
    assert done.stderr.replace(str(repo), "").endswith(
        ": DataLoader.Train.dataset: cls_label_path ./dataset/ILSVRC2012/train_list.txt does not "
        f"exist (looked in {tmp_path}). {WANTED_LAYOUT}\n"
    ), (done.stderr, base)
    assert not (tmp_path / "output").exists()


def test_check_data_finds_every_broken_image(run_folder, tmp_path, capsys):
    overrides = listed(tmp_path, GOOD_LINES)
    for name in ("3.jpg", "7.jpg"):
        path = tmp_path / "data" / name
        path.write_bytes(path.read_bytes()[:900])
    status = check.main(["-c", str(run_folder.config_file), "--data", "-o", *overrides])
    out = capsys.readouterr().out
    assert status == 2
    assert "10 of 10 samples checked" in out
    assert "2 unreadable" in out
    assert f"sample 7 ({tmp_path}/data/7.jpg)" in out


# -- lengths and sizes -------------------------------------------------------------------------


def test_an_epoch_without_a_step(fails):
    err = fails(
        "DataLoader.Train.sampler.batch_size=5000",
        "DataLoader.Train.sampler.drop_last=true",
        status=2,
    )
    assert err == (
        "passl-train: DataLoader.Train: an epoch would have no batch: the data set has 1438 "
        "samples, fewer than the global batch of 5000, and sampler.drop_last leaves out a batch "
        "that is not full; set DataLoader.Train.sampler.drop_last=false or make the batch smaller"
    )


def test_a_warmup_longer_than_the_run_is_allowed_and_correct(run_folder):
    assert run_folder.train("Global.epochs=1", "LRScheduler.warmup_steps=5000",
                            "Global.print_batch_step=1") == 0  # fmt: skip
    rates = [record["lr"] for record in run_folder.records("train")]
    assert rates == pytest.approx([0.01 * step / 6 for step in range(6)])


def test_patches_that_do_not_fit_the_image(fails):
    err = fails("Model.patch_size=3", status=2)
    assert err.endswith(
        "img_size 8x8 is not a whole number of patches of 3 pixels; the nearest size that is: "
        "img_size=9"
    )


def test_soft_targets_with_an_accuracy_of_classes(fails):
    assert fails("DataLoader.Train.batch_transform=[{Mixup: {alpha: 0.8}}]", status=2) == (
        "passl-train: Metric: TopkAcc needs one class index per sample, but the targets are a "
        "number per class ([256, 10]), as Mixup, Cutmix and multi-label lists give; remove TopkAcc "
        "from that part of Metric"
    )


def test_a_loss_that_is_not_finite(fails, run_folder):
    err = fails("LRScheduler.learning_rate=1e30", "~Optimizer.grad_clip", status=1)
    assert err.startswith(
        "passl-train: 10 steps in a row (the first: step 3) had a loss or gradients that are not "
        "finite: the loss was nan. First bad layer: blocks.0."
    )
    assert "A lower learning rate, a longer warmup or gradient clipping" in err
    assert "step 3 was skipped, the weights are as before it: the loss was nan" in run_folder.log()


def test_a_rule_for_parameters_that_takes_hold_of_nothing(fails):
    assert fails("Optimizer.no_weight_decay_name=[pos_embd]", status=2) == (
        "passl-train: Optimizer.no_weight_decay_name: no parameter's name contains 'pos_embd'; the "
        "nearest names are pos_embed, patch_embed.proj.weight, patch_embed.proj.bias"
    )


def test_a_list_against_clipping_that_names_nothing(fails):
    assert fails("Optimizer.grad_clip.no_clip_list=[head, haed]", status=2) == (
        "passl-train: -o Optimizer.grad_clip.no_clip_list=[head, haed]: "
        "Optimizer.grad_clip.no_clip_list: no parameter's name contains 'haed'; the nearest names "
        "are head.weight, head.bias, patch_embed.proj.weight"
    )


def test_boundaries_that_do_not_rise(fails):
    override = "LRScheduler={_delete_: true, name: Step, boundaries: [3, 2], values: [1, 1, 1]}"
    assert fails(override, status=2) == (
        f"passl-train: -o {override}: LRScheduler: Step.boundaries: must rise from one to the "
        "next, found [3, 2]"
    )


# -- devices and folders -----------------------------------------------------------------------


@pytest.mark.skipif(
    paddle.device.is_compiled_with_cuda(), reason="needs a Paddle built for CPUs, as CI installs"
)
def test_a_gpu_where_there_is_none(fails):
    assert fails("Global.device=gpu", status=2) == (
        "passl-train: -o Global.device=gpu: Global.device: a GPU is asked for, but this Paddle is "
        "built for CPUs only; use -o Global.device=auto to take what there is, or install "
        "paddlepaddle-gpu"
    )


def test_half_precision_on_a_cpu_when_strict(fails):
    assert fails("FP16.level=O2", "FP16.strict=true", status=2) == (
        "passl-train: -o FP16.level=O2: FP16.level: O2 float16 does not exist on a CPU; use -o "
        "FP16.level=O0, or FP16.strict=false to run in fp32 instead"
    )


def test_a_flag_that_paddle_does_not_know(fails):
    assert fails("Global.flags={FLAGS_nonsense: 1}", status=2).startswith(
        "passl-train: -o Global.flags={FLAGS_nonsense: 1}: Global.flags: Paddle refuses these "
        "flags: "
    )


def test_a_folder_that_may_not_be_written(fails, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    as_root = os.geteuid() == 0
    if as_root:  # root may write anywhere, so become nobody for a moment
        (tmp_path / "file").touch()
        fails(f"Global.output_dir={tmp_path}/file", status=2)  # imports what nobody may not read
        for path in (*tmp_path.rglob("config.yaml"), tmp_path / "run"):
            path.chmod(0o755)  # whatever the umask
        for folder in (tmp_path, *list(tmp_path.parents)[:3]):
            folder.chmod(0o755)
        os.seteuid(65534)
    try:
        err = fails(f"Global.output_dir={closed}", status=2)
    finally:
        if as_root:
            os.seteuid(0)
    assert err.startswith("passl-train: -o Global.output_dir=/")  # a long value is cut
    assert err.endswith(
        f": Global.output_dir: cannot write to {closed}/VisionTransformer (Permission denied); "
        "choose another folder with -o Global.output_dir=PATH"
    )


def test_a_file_where_the_output_folder_should_be(fails, tmp_path):
    (tmp_path / "file").write_text("")
    err = fails(f"Global.output_dir={tmp_path}/file", status=2)
    assert err.endswith(
        f"cannot write to {tmp_path}/file/VisionTransformer (Not a directory); choose another "
        "folder with -o Global.output_dir=PATH"
    )


def test_starting_anew_over_an_earlier_run(fails, run_folder):
    assert run_folder.train("Global.epochs=1") == 0
    assert fails("Global.checkpoint=null", status=2) == (
        "passl-train: -o Global.checkpoint=null: Global.checkpoint is null, which starts anew, but "
        f"{run_folder.dir} already holds step_00000006 of an earlier run; continue it with -o "
        "Global.checkpoint=auto, choose another -o Global.output_dir=PATH, or remove the folder"
    )


# -- weights and checkpoints -------------------------------------------------------------------


def test_weights_that_are_not_there(fails):
    override = "Global.pretrained_model=nothing/here"
    assert fails(override, status=2) == (
        f"passl-train: -o {override}: Global.pretrained_model: nothing/here: there is no such "
        "checkpoint; nothing does not exist."
    )


def test_weights_without_training_state_cannot_be_continued(fails, make_run):
    other = make_run("other")
    assert other.train("Global.max_train_step=1") == 0
    file = other.dir / "latest" / "model.pdparams"
    loose = other.root / "loose.pdparams"
    loose.write_bytes(file.read_bytes())
    assert fails(f"Global.checkpoint={loose}", status=2).endswith(
        f"Global.checkpoint: {loose} holds weights but no training state to continue from; to "
        f"start from these weights use -o Global.checkpoint=auto Global.pretrained_model={loose}"
    )


def test_a_checkpoint_of_another_model(fails, make_run):
    other = make_run("other")
    assert other.train("Global.max_train_step=1", "Model.embed_dim=32") == 0
    err = fails(f"Global.pretrained_model={other.dir}/latest", status=1)
    assert (
        "these weights are of another model, or of another setting of it: 29 tensors do not fit, 1 "
        "of "
        "30 would." in err
    )
    assert "  cls_token: [1, 1, 32] in the file, [1, 1, 16] in the model\n" in err
    assert err.endswith(
        "Compare Model.name and its arguments with those the weights were trained with."
    )


def test_a_text_file_as_weights(fails, tmp_path):
    (tmp_path / "w.pdparams").write_text("these are not weights")
    assert fails(f"Global.pretrained_model={tmp_path}/w.pdparams", status=1) == (
        f"passl-train: {tmp_path}/w.pdparams: this is a text file (it begins with 'these are not "
        "weights'). Weights are read from files of PyTorch (.pth, .pt, .bin), safetensors, NumPy "
        "(.npz) and Paddle (.pdparams)."
    )


class Attack:
    """A pickle that runs a command when it is loaded without care."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_weights_that_would_run_a_command_are_refused_unrun(fails, tmp_path):
    target = tmp_path / "ran"
    (tmp_path / "evil.pdparams").write_bytes(pickle.dumps({"w": Attack(f"touch {target}")}))
    err = fails(f"Global.pretrained_model={tmp_path}/evil.pdparams", status=1)
    assert err.startswith(
        f"passl-train: {tmp_path}/evil.pdparams: refused, because loading it would run "
        "posix.system, and a file of weights needs no code. Nothing was run."
    )
    assert not target.exists()


def test_a_torn_checkpoint_that_was_asked_for_by_name(fails, make_run):
    other = make_run("other")
    assert other.train("Global.max_train_step=1") == 0
    weights = other.dir / "latest" / "model.pdparams"
    weights.write_bytes(weights.read_bytes()[:-10])
    err = fails(f"Global.checkpoint={other.dir}/latest", status=1)
    assert "model.pdparams" in err


def test_a_run_whose_checkpoints_are_all_damaged(fails, run_folder):
    every = ("Global.save_unit=step", "Global.save_interval=1", "Global.eval_during_train=false")
    assert run_folder.train("Global.max_train_step=2", *every) == 0
    for state in run_folder.dir.glob("checkpoints/*/state.json"):
        state.write_text("")
    err = fails(*every, status=1)
    assert "none that can be continued" in err
    assert "step_00000002/state.json: is 0 bytes long" in err
    assert "Global.output_dir=PATH" in err
    names = sorted(path.name for path in (run_folder.dir / "checkpoints").iterdir())
    assert names == ["step_00000001", "step_00000002"]


def test_evaluating_before_training(run_folder, capsys):
    assert eval_command.main(["-c", str(run_folder.config_file)]) == 1
    assert capsys.readouterr().err == (
        f"passl-eval: there are no weights yet: {run_folder.dir} holds no checkpoint; name other "
        "weights with -o Global.pretrained_model=PATH, or train first\n"
    )


# -- the user's own code -----------------------------------------------------------------------


def test_a_module_that_is_not_there(fails):
    assert fails("Global.imports=[nowhere.at.all]", status=2) == (
        "passl-train: -o Global.imports=[nowhere.at.all]: Global.imports: module 'nowhere.at.all' "
        "is not found, neither in the current folder nor on PYTHONPATH nor among the installed "
        "packages; start where its folder is, or correct the name"
    )


def test_a_module_with_a_syntax_error(fails, tmp_path, monkeypatch):
    (tmp_path / "my_broken_module.py").write_text("from passl.registry import LOSSES\nLOSSES.(\n")
    monkeypatch.syspath_prepend(tmp_path)
    err = fails("Global.imports=[my_broken_module]", status=2)
    assert f"{tmp_path}/my_broken_module.py:2: this is no valid Python: " in err
