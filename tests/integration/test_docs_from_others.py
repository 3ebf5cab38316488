"""Coming from another program: every flag has its row, and every key of a row exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs_tables import Row, base_config, pages, read_rows

from passl.config import load_config
from passl.config.foreign import FOREIGN
from passl.errors import ConfigError

REPO = Path(__file__).resolve().parents[2]

# The flags of the programs' argument parsers, and the keys of myrtle-vision's JSON files.
# Source: jeonsworld/ViT-pytorch 460a162 and rentainhe/ViT.pytorch 7676e4b, train.py, train.sh.
_VIT_PYTORCH = """
    --name --dataset --data_dir --num_workers --model_type --pretrained_dir --resume_path --gpu
    --output_dir --img_size --train_batch_size --eval_batch_size --eval_every --learning_rate
    --weight_decay --num_steps --decay_type --warmup_steps --max_grad_norm --local_rank --seed
    --gradient_accumulation_steps --fp16 --fp16_opt_level --loss_scale
    DATASET MODEL_TYPE IMG_SIZE NAME GPUS TRAIN_BATCH_SIZE EVAL_BATCH_SIZE GRAD_STEPS NUM_STEPS
    WARMUP_STEPS DECAY_TYPE RESUME_PATH PRETRAINED_DIR FP16_OPT_LEVEL
"""
# Source: facebookresearch/deit 7e160fe, main.py.
_DEIT = """
    --batch-size --epochs --bce-loss --unscale-lr --model --input-size --drop --drop-path
    --model-ema --model-ema-decay --model-ema-force-cpu --opt --opt-eps --opt-betas --clip-grad
    --momentum --weight-decay --sched --lr --lr-noise --lr-noise-pct --lr-noise-std --warmup-lr
    --min-lr --decay-epochs --warmup-epochs --cooldown-epochs --patience-epochs --decay-rate
    --color-jitter --aa --smoothing --train-interpolation --repeated-aug --ThreeAugment --src
    --reprob --remode --recount --resplit --mixup --cutmix --cutmix-minmax --mixup-prob
    --mixup-switch-prob --mixup-mode --teacher-model --teacher-path --distillation-type
    --distillation-alpha --distillation-tau --finetune --attn-only --data-path --data-set
    --inat-category --output_dir --device --seed --resume --start_epoch --eval --eval-crop-ratio
    --dist-eval --num_workers --pin-mem --distributed --world_size --dist_url
"""
# Source: huggingface/pytorch-image-models aa4b585, train.py: what its users change.
_TIMM = """
    --data-dir --dataset --train-split --val-split --class-map --model --pretrained
    --pretrained-path --initial-checkpoint --resume --no-resume-opt --num-classes --gp --img-size
    --in-chans --input-size --crop-pct --mean --std --interpolation -b -vb --grad-accum-steps
    --grad-checkpointing --model-kwargs --head-init-scale --head-init-bias --torchcompile --opt
    --opt-eps --opt-betas --momentum --weight-decay --clip-grad --clip-mode --layer-decay --sched
    --sched-on-updates --lr --lr-base --lr-base-size --lr-base-scale --lr-noise --lr-cycle-mul
    --lr-cycle-decay --lr-cycle-limit --lr-k-decay --warmup-lr --min-lr --epochs --warmup-epochs
    --warmup-prefix --cooldown-epochs --patience-epochs --decay-epochs --decay-rate --scale --ratio
    --hflip --vflip --color-jitter --aa --aug-repeats --aug-splits --jsd-loss --bce-loss
    --bce-target-thresh --reprob --remode --recount --mixup --cutmix --cutmix-minmax --mixup-prob
    --mixup-switch-prob --mixup-mode --mixup-off-epoch --smoothing --train-interpolation --drop
    --drop-path --bn-momentum --bn-eps --sync-bn --dist-bn --split-bn --model-ema --model-ema-decay
    --model-ema-warmup --model-ema-force-cpu --seed --log-interval --val-interval
    --recovery-interval --checkpoint-hist -j --amp --amp-dtype --pin-mem --no-prefetcher --output
    --experiment --eval-metric --tta --log-wandb --kd-model-name --kd-distill-type --kd-temperature
"""
# Source: MyrtleSoftware/myrtle-vision d5089bc and 2b3665d, train_configs and data_configs.
_TRAIN = """
    output_directory checkpoint_path epochs local_batch_size global_batch_size iters_per_checkpoint
    iters_per_val seed drop_last_batch optimizer opt_eps opt_betas momentum weight_decay clip_grad
    scheduler lr lr_noise lr_noise_pct lr_noise_std warmup_lr min_lr warmup_epochs decay_epochs
    cooldown_epochs patience_epochs decay_rate distributed pretrained_backbone
"""
_MODEL = "decoder image_size patch_size embed_dim depth heads mlp_dim dropout emb_dropout q_format"
_MYRTLE = [
    *(f"train_config.{key}" for key in _TRAIN.split()),
    *(f"vit_config.{key}" for key in _MODEL.split()),
    *(f"distiller_config.{key}" for key in ("temperature", "alpha", "teacher_weights_path")),
    *("dist_config.dist_backend", "dist_config.dist_url", "dataset_path", "train_files"),
    *("valid_files", "test_files", "label_map", "number_of_classes", "transform_ops_train"),
    "transform_ops_val",
]
_FLAGS = {
    "from_deit.md": _DEIT.split(),
    "from_myrtle.md": _MYRTLE,
    "from_timm.md": _TIMM.split(),
    "from_vit_pytorch.md": _VIT_PYTORCH.split(),
}
PAGES = pages(REPO)


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def page(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_is_a_page_for_each_program() -> None:
    assert sorted(_FLAGS) == [page.name for page in PAGES]


def test_every_flag_has_a_row(page: Path) -> None:
    written = {name for row in read_rows(page, REPO) for name in row.theirs}
    assert sorted(set(_FLAGS[page.name]) - written) == []


def test_every_row_says_what_to_write_or_that_there_is_nothing(page: Path) -> None:
    wrong = [
        row.where
        for row in read_rows(page, REPO)
        if not (row.overrides or row.commands or row.text == "none")
    ]
    assert not wrong


def test_every_key_of_a_row_exists_and_takes_the_value(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPO)
    base = base_config(page)
    rows = [row for row in read_rows(page, REPO) if row.overrides]
    assert len(rows) > 20
    problems = []
    for row in rows:
        try:
            load_config(base, row.overrides, mode="train")
        except Exception as error:
            problems.append(f"{row.where}: {error}")
    assert not problems, "\n".join(problems)


def test_what_explain_says_of_a_flag_is_what_the_page_says(page: Path) -> None:
    wrong, compared = [], 0
    for row in read_rows(page, REPO):
        for flag in row.theirs:
            name = flag.lstrip("-").replace("-", "_").rpartition(".")[2]
            if name in ("batch_size", "data_dir") or name not in FOREIGN or not row.overrides:
                continue  # the two mean other things in other programs
            compared += 1
            keys = [re.split(r"=", override)[0].lstrip("~+") for override in row.overrides]
            if not any(f"{key}.".startswith(f"{FOREIGN[name]}.") for key in keys):
                wrong.append(f"{row.where}: {flag}: {FOREIGN[name]}, on the page {keys}")
    assert compared > 10
    assert not wrong, "\n".join(wrong)


def test_a_row_that_adds_a_transform_takes_none_away(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPO)
    before = load_config(base_config(page), [], mode="train").DataLoader.Train
    for row in read_rows(page, REPO):
        added = [one for one in row.overrides if one.startswith("+DataLoader.Train.dataset.")]
        if not added:
            continue
        after = load_config(base_config(page), row.overrides, mode="train").DataLoader.Train
        number = len(before.dataset["transform_ops"]) + len(added)
        assert len(after.dataset["transform_ops"]) == number, row.where


def test_every_key_of_a_remark_exists(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    base = base_config(page)
    problems = []
    for row in read_rows(page, REPO):
        for key, value in row.remarked:
            try:
                load_config(base, [f"{key}={value or 'x'}"], mode="train")
            except ConfigError as error:
                unknown = "unknown key" in str(error) or "has no argument" in str(error)
                if unknown or value is not None:
                    problems.append(f"{row.where}: {key}: {error}")
    assert not problems, "\n".join(problems)


def test_every_command_of_a_row_exists_with_its_options(page: Path) -> None:
    for row in read_rows(page, REPO):
        for command in row.commands:
            name, *arguments = command.split()
            options = [word for word in arguments if word.startswith("-")]
            module = REPO / (
                name if name.startswith("tools/") else f"passl/cli/{name.split('-')[1]}.py"
            )
            assert module.is_file(), f"{row.where}: {name}"
            source = module.read_text() + (REPO / "passl/cli/common.py").read_text()
            known = set(re.findall(r'"(--?[a-z][a-z-]*)"', source))
            if module.stem != "data":  # its sub-commands declare theirs elsewhere
                assert set(options) <= known, f"{row.where}: {command}"


def test_a_key_that_does_not_exist_is_found(tmp_path: Path) -> None:
    page = tmp_path / "from_x.md"
    page.write_text(
        "`configs/a.yaml`\n\n| x | here |\n|---|---|\n| `--lr` | `Optimizer.rate=1` |\n"
    )
    (row,) = read_rows(page, tmp_path)
    assert row == Row("from_x.md:5", ["--lr"], ["Optimizer.rate=1"], [], "`Optimizer.rate=1`")
    with pytest.raises(Exception, match="rate"):
        load_config(str(REPO / "configs/DeiT_small_patch16_224.yaml"), row.overrides, mode="train")
    assert re.fullmatch(r"from_x\.md:\d+", row.where)
