"""PASSL's five ViT recipes load unmodified, in the structure and spelling of its files.

The values are those of the recipes; the text is put together here from one template.
"""

from __future__ import annotations

from typing import Any

import pytest

from passl.config import load_config, plan_batches
from passl.errors import ConfigError

ADAN = "ViT_base_patch16_224_in1k_adan_1n8c_dp_fp16o2"

_TEMPLATE = """\
# global configs
Global:
  task_type: Classification
  train_loop: ClassificationTrainingEpochLoop
  validate_loop: ClassificationEvaluationLoop
  checkpoint: null
  finetune: {finetune}
  pretrained_model: {pretrained_model}
  output_dir: ./output/
  device: gpu
  save_interval: 1
  max_num_latest_checkpoint: 0
  eval_during_train: True
  eval_interval: 1
  eval_unit: "epoch"
  accum_steps: {accum_steps}
  epochs: {epochs}
  print_batch_step: 10
  use_visualdl: {use_visualdl}
  seed: 2021

# FP16 setting
FP16:
  level: O2
  GradScaler:
    init_loss_scaling: 65536.0

DistributedStrategy:
  data_parallel: True

# model architecture
Model:
  name: {model}
  class_num: {class_num}
  drop_rate: 0.1

# loss function config for traing/eval process
Loss:
  Train:
    - ViTCELoss:
        weight: 1.0
        type: {loss_type}{smoothing}
  Eval:
    - CELoss:
        weight: 1.0

LRScheduler:
  name: ViTLRScheduler
  learning_rate: {learning_rate}
  decay_type: {decay_type}
  warmup_steps: {warmup_steps}

{optimizer}

# data loader for train and eval
DataLoader:
  Train:
    dataset:
      name: ImageNetDataset
      image_root: {image_root}
      cls_label_path: {image_root}{train_list}{multi_label}
      transform_ops:
        - DecodeImage:
            to_rgb: True
            channel_first: False
        - RandCropImage:
            size: {size}{crop_scale}
            interpolation: {interpolation}
            backend: pil
        - RandFlipImage:
            flip_code: 1
        - NormalizeImage:
            scale: 1.0/255.0
            mean: [0.5, 0.5, 0.5]
            std: [0.5, 0.5, 0.5]
            order: ''
        - ToCHWImage:
    sampler:
      name: DistributedBatchSampler
      batch_size: {batch_size}
      drop_last: {drop_last}
      shuffle: True
    loader:
      num_workers: 8
      use_shared_memory: True
  Eval:
    dataset:
      name: ImageNetDataset
      image_root: {image_root}
      cls_label_path: {image_root}{val_list}
      transform_ops:
        - DecodeImage:
            to_rgb: True
            channel_first: False
{resize}
        - NormalizeImage:
            scale: 1.0/255.0
            mean: [0.5, 0.5, 0.5]
            std: [0.5, 0.5, 0.5]
            order: ''
        - ToCHWImage:
    sampler:
      name: BatchSampler
      batch_size: {eval_batch_size}
      drop_last: False
      shuffle: False
    loader:
      num_workers: 8
      use_shared_memory: True

Metric:
{metric_train}  Eval:
    - TopkAcc:
        topk: [1, 5]

Export:
  export_type: paddle
  input_shape: [None, 3, {size}, {size}]
"""

_ADAMW = """\
Optimizer:
  name: AdamW
  betas: (0.9, 0.999)
  epsilon: {epsilon}
  weight_decay: {weight_decay}
"""
_CLIP = """\
  grad_clip:
    name: ClipGradByGlobalNorm
    clip_norm: {clip_norm}
"""
_MOMENTUM = """\
Optimizer:
  name: Momentum
  momentum: 0.9
  weight_decay: 0.0001
"""
_METRIC_TRAIN = "  Train:\n    - TopkAcc:\n        topk: [1, 5]\n"
_SHORT_AND_CROP = (
    "        - ResizeImage:\n            resize_short: 256\n            interpolation: bicubic\n"
    "            backend: pil\n        - CenterCropImage:\n            size: 224"
)
_EXACT = (
    "        - ResizeImage:\n            size: 384\n            interpolation: bilinear\n"
    "            backend: pil"
)

_BASE_224: dict[str, Any] = {
    "finetune": "False",
    "pretrained_model": "null",
    "accum_steps": 2,
    "epochs": 300,
    "use_visualdl": "False",
    "model": "ViT_base_patch16_224",
    "class_num": 1000,
    "loss_type": "sigmoid",
    "smoothing": "\n        epsilon: 0.0001",
    "learning_rate": "3e-3",
    "decay_type": "cosine",
    "warmup_steps": 10000,
    "optimizer": _ADAMW.format(epsilon="1e-8", weight_decay=0.3)
    + "  use_master_param: False\n"
    + _CLIP.format(clip_norm=1.0),
    "image_root": "./dataset/ILSVRC2012/",
    "train_list": "train_list.txt",
    "val_list": "val_list.txt",
    "multi_label": "",
    "size": 224,
    "crop_scale": "\n            scale: [0.05, 1.0]",
    "interpolation": "bicubic",
    "batch_size": 512,
    "drop_last": "False",
    "resize": _SHORT_AND_CROP,
    "eval_batch_size": 256,
    "metric_train": _METRIC_TRAIN,
}
_FINETUNE: dict[str, Any] = {
    **_BASE_224,
    "finetune": "True",
    "pretrained_model": "./pretrained/ViT_base_patch16_224/best_model",
    "epochs": 8,
    "model": "ViT_base_patch16_384",
    "loss_type": "softmax",
    "smoothing": "",
    "learning_rate": 0.003,
    "warmup_steps": 500,
    "optimizer": _MOMENTUM + _CLIP.format(clip_norm=0.5),
    "size": 384,
    "interpolation": "bilinear",
    "batch_size": 64,
    "drop_last": "True",
    "resize": _EXACT,
    "eval_batch_size": 32,
    "metric_train": "",
}

#: name -> values of the template; the names are those of PASSL's files.
RECIPES: dict[str, dict[str, Any]] = {
    "ViT_base_patch16_224_in1k_1n8c_dp_fp16o2": _BASE_224,
    "ViT_base_patch16_224_in1k_adan_1n8c_dp_fp16o2": {
        **_BASE_224,
        "epochs": 150,
        "use_visualdl": "True",
        "learning_rate": "1.5e-2",
        "warmup_steps": 20000,
        "drop_last": "True",
        "optimizer": "Optimizer:\n  name: Adan\n  weight_decay: 0.02\n  use_master_param: True\n",
    },
    "ViT_base_patch16_384_ft_in1k_1n8c_dp_fp16o2": _FINETUNE,
    "ViT_large_patch16_224_in21k_4n32c_dp_fp16o2": {
        **_BASE_224,
        "accum_steps": 1,
        "epochs": 90,
        "model": "ViT_large_patch16_224",
        "class_num": 21841,
        "learning_rate": "1e-3",
        "decay_type": "linear",
        "optimizer": _ADAMW.format(epsilon="1e-6", weight_decay=0.15) + "  exp_avg_force_fp32: "
        "True\n",
        "image_root": "./dataset/ImageNet21K/",
        "train_list": "image_all_list.txt",
        "val_list": "image_dummy_val_list.txt",
        "multi_label": "\n      multi_label: True\n      class_num: 21841",
        "crop_scale": "",
        "batch_size": 128,
        "drop_last": "True",
        "metric_train": "",
    },
    "ViT_large_patch16_384_in1k_ft_4n32c_dp_fp16o2": {
        **_FINETUNE,
        "accum_steps": 1,
        "pretrained_model": "./pretrained/ViT_large_patch16_224/latest",
        "model": "ViT_large_patch16_384",
        "learning_rate": 0.015,
        "optimizer": _MOMENTUM + _CLIP.format(clip_norm=1.5),
        "batch_size": 16,
        "eval_batch_size": 256,
    },
}


def recipe(name: str) -> str:
    """The YAML text of one of :data:`RECIPES`."""
    return _TEMPLATE.format(**RECIPES[name])


@pytest.mark.parametrize("name", [name for name in RECIPES if name != ADAN])
def test_passls_own_vit_files_load_unmodified(write, name):
    values = RECIPES[name]
    path = write(f"{name}.yaml", recipe(name))
    config = load_config(path, mode="train")
    load_config(path, mode="eval")
    assert config.Model["name"] == values["model"]
    assert config.Model["class_num"] == values["class_num"]
    assert config.LRScheduler["learning_rate"] == float(values["learning_rate"])
    assert config.LRScheduler["warmup_steps"] == values["warmup_steps"]
    assert config.Global.epochs == values["epochs"]
    assert config.FP16.GradScaler.init_loss_scaling == 65536.0
    assert config.Export.input_shape == [None, 3, values["size"], values["size"]]
    normalize = config.DataLoader.Train.dataset["transform_ops"][3]
    assert (normalize["name"], normalize["scale"]) == ("NormalizeImage", 1.0 / 255.0)
    world = 32 if "4n32c" in name else 8
    plan = plan_batches(config, world)
    assert plan.global_batch_size == (512 if "384" in name else 4096)
    assert (plan.batch_size, plan.accum_steps) == (values["batch_size"], values["accum_steps"])
    assert plan.eval_batch_size == values["eval_batch_size"] * world


def test_the_adan_recipe_trains_with_adan_as_written(write):
    config = load_config(write("adan.yaml", recipe(ADAN)), mode="train")
    assert config.Optimizer is not None
    assert config.Optimizer.component == {
        "name": "Adan",
        "betas": (0.98, 0.92, 0.99),
        "eps": 1e-8,
        "weight_decay": 0.02,
        "no_prox": False,
    }


@pytest.mark.parametrize("key", ["is_vanilla", "warmup_init"])
def test_what_an_optimizer_of_passl_can_do_and_ours_cannot_is_refused(write, key):
    text = recipe(ADAN).replace("  name: Adan\n", f"  name: Adan\n  {key}: KEY\n")
    load_config(write("off.yaml", text.replace("KEY", "False")), mode="train")
    with pytest.raises(ConfigError, match=f"Optimizer.{key}: "):
        load_config(write("on.yaml", text.replace("KEY", "True")), mode="train")


def test_what_was_changed_is_told(write):
    name = "ViT_large_patch16_224_in21k_4n32c_dp_fp16o2"
    path = write("x.yaml", recipe(name))
    text = path.read_text().split("\n")
    config = load_config(path)
    assert config.Optimizer.component["eps"] == 1e-6
    first = text.index("  epsilon: 1e-6") + 1
    assert config.notes == [
        f"x.yaml:{first}: Optimizer.epsilon: read as Optimizer.eps; "
        "PASSL ignored this key of AdamW and ran with 1e-8",
        f"x.yaml:{first + 2}: Optimizer.exp_avg_force_fp32: dropped; "
        "master weights and optimizer state are always float32 here",
    ]


def test_passls_overrides_work_on_passls_files(write):
    path = write("x.yaml", recipe("ViT_base_patch16_224_in1k_1n8c_dp_fp16o2"))
    crop = "DataLoader.Train.dataset.transform_ops.1.RandCropImage.size=160"
    config = load_config(
        path,
        [
            crop,
            "Model.img_size=160",
            "Loss.Train.0.ViTCELoss.epsilon=0",
            "DataLoader.Eval.dataset.transform_ops.2.size=160",
        ],
    )
    assert config.DataLoader.Train.dataset["transform_ops"][1]["size"] == 160
    assert config.Loss.Train[0].component["epsilon"] == 0.0
    assert config.origin("DataLoader.Train.dataset.transform_ops.1.size") == f"-o {crop}"
