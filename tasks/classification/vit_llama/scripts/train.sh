#!/usr/bin/env bash
# One node of four GPUs: tasks/classification/vit_llama/scripts/train.sh ViT_LLaMA_small_patch16_224
# More options of passl-train may follow: -o Global.output_dir=runs/1
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../../../.."

recipes=(configs/ViT_LLaMA_*.yaml configs/ViT_*_lm4.yaml)
config=configs/${1-}.yaml
if [[ " ${recipes[*]} " != *" $config "* ]]; then
    printf 'usage: %s RECIPE [OPTIONS OF PASSL-TRAIN]; RECIPE is one of\n' "$0" >&2
    for recipe in "${recipes[@]}"; do printf '  %s\n' "$(basename "$recipe" .yaml)" >&2; done
    exit 2
fi
shift

export PADDLE_NNODES=${PADDLE_NNODES:-1}
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-0,1,2,3}
exec tools/launch_multinode.sh -c "$config" "$@"
