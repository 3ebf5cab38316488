#!/usr/bin/env bash
# One node of eight GPUs, ViT-B/16 from scratch on ImageNet-1K.
# More options of passl-train may follow: -o Global.output_dir=runs/1
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../../../.."

export PADDLE_NNODES=${PADDLE_NNODES:-1}
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-0,1,2,3,4,5,6,7}
exec tools/launch_multinode.sh \
    -c tasks/classification/vit/configs/ViT_base_patch16_224_in1k_1n8c_dp_fp16o2.yaml "$@"
