"""Names that other programs give to what is a key here.

Flags of timm, DeiT, ViT-pytorch, iLLaMA and LM4VisualEncoding, keys of myrtle-vision and of
PaddleClas, and words of habit; the pages ``docs/from_*.md`` say more of each.  A name that is a key
or a component here is found without this table.
"""

from __future__ import annotations

__all__ = ["FOREIGN"]

_GLOBAL = {
    "checkpoint_hist": "max_num_latest_checkpoint",
    "checkpoint_path": "checkpoint",
    "checkpoints": "checkpoint",
    "eval_every": "eval_interval",
    "exp_name": "output_dir",
    "experiment": "output_dir",
    "grad_accum_steps": "accum_steps",
    "grad_checkpointing": "recompute",
    "gradient_accumulation_steps": "accum_steps",
    "initial_checkpoint": "pretrained_model",
    "iters_per_checkpoint": "save_interval",
    "iters_per_val": "eval_interval",
    "local_batch_size": "micro_batch_size",
    "log_interval": "print_batch_step",
    "max_epochs": "epochs",
    "max_steps": "max_train_step",
    "num_epochs": "epochs",
    "num_steps": "max_train_step",
    "output_directory": "output_dir",
    "pretrained": "pretrained_model",
    "pretrained_backbone": "pretrained_model",
    "pretrained_dir": "pretrained_model",
    "pretrained_path": "pretrained_model",
    "recovery_interval": "save_interval",
    "resume": "checkpoint",
    "resume_path": "checkpoint",
    "torchcompile": "to_static",
    "train_batch_size": "global_batch_size",
    "update_freq": "accum_steps",
    "val_interval": "eval_interval",
}
_MODEL = {
    "class_num": "class_num",
    "drop": "drop_rate",
    "drop_path": "drop_path_rate",
    "dropout": "drop_rate",
    "heads": "num_heads",
    "image_size": "img_size",
    "input_size": "img_size",
    "nb_classes": "class_num",
    "num_classes": "class_num",
    "number_of_classes": "class_num",
}
_UPDATE = {
    "betas": "Optimizer.betas",
    "clip_grad": "Optimizer.grad_clip",
    "clip_norm": "Optimizer.grad_clip.clip_norm",
    "max_grad_norm": "Optimizer.grad_clip.clip_norm",
    "opt": "Optimizer.name",
    "opt_betas": "Optimizer.betas",
    "opt_eps": "Optimizer.eps",
    "learning_rate": "LRScheduler.learning_rate",
    "lr": "LRScheduler.learning_rate",
    "min_lr": "LRScheduler.eta_min",
    "sched": "LRScheduler",
    "scheduler": "LRScheduler",
    "warmup_lr": "LRScheduler.warmup_start_lr",
}
_MIXING = "DataLoader.Train.batch_transform.MixupCutmix"
_TRANSFORMS = "DataLoader.Train.dataset.transform_ops"
_DATA = {
    "aa": f"{_TRANSFORMS}.TimmAutoAugment.config_str",
    "aug_repeats": "DataLoader.Train.sampler.num_repeats",
    "batch_size": "DataLoader.Train.sampler.batch_size",
    "cutmix": f"{_MIXING}.cutmix_alpha",
    "data_dir": "DataLoader.Train.dataset.image_root",
    "data_path": "DataLoader.Train.dataset.image_root",
    "eval_batch_size": "DataLoader.Eval.sampler.batch_size",
    "hflip": f"{_TRANSFORMS}.RandFlipImage.prob",
    "label_smoothing": f"{_MIXING}.epsilon",
    "mixup": f"{_MIXING}.mixup_alpha",
    "mixup_mode": f"{_MIXING}.mode",
    "mixup_off_epoch": f"{_MIXING}.off_epoch",
    "mixup_prob": f"{_MIXING}.prob",
    "mixup_switch_prob": f"{_MIXING}.switch_prob",
    "recount": f"{_TRANSFORMS}.RandomErasing.max_count",
    "remode": f"{_TRANSFORMS}.RandomErasing.mode",
    "repeated_aug": "DataLoader.Train.sampler.num_repeats",
    "reprob": f"{_TRANSFORMS}.RandomErasing.prob",
    "smoothing": f"{_MIXING}.epsilon",
}
_OTHERS = {
    "AMP": "FP16",
    "ARCHITECTURE": "Model",
    "Arch": "Model",
    "amp": "FP16",
    "amp_dtype": "FP16.dtype",
    "distillation_alpha": "Distillation.alpha",
    "distillation_tau": "Distillation.temperature",
    "distillation_type": "Distillation.type",
    "fp16_opt_level": "FP16.level",
    "kd_temperature": "Distillation.temperature",
    "loss_scale": "FP16.GradScaler.init_loss_scaling",
    "model": "Model",
    "model_type": "Model",
    "model_ema": "EMA",
    "model_ema_decay": "EMA.decay",
    "q_config": "Quantization.format",
    "q_format": "Quantization.format",
    "teacher_model": "Distillation.teacher.name",
    "teacher_path": "Distillation.teacher.pretrained",
    "teacher_weights_path": "Distillation.teacher.pretrained",
}

#: Their name, with underscores -> the path of our key.
FOREIGN: dict[str, str] = {
    **{theirs: f"Global.{ours}" for theirs, ours in _GLOBAL.items()},
    **{theirs: f"Model.{ours}" for theirs, ours in _MODEL.items()},
    **_UPDATE,
    **_DATA,
    **_OTHERS,
}
