#!/usr/bin/env bash
# Four nodes of eight GPUs, ViT-L/16 from scratch on ImageNet-21K.
# Run it on every node, with PADDLE_MASTER=HOST:PORT set to the same text.
# More options of passl-train may follow: -o Global.output_dir=runs/1
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../../../.."

export PADDLE_NNODES=${PADDLE_NNODES:-4}
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-0,1,2,3,4,5,6,7}
exec tools/launch_multinode.sh \
    -c tasks/classification/vit/configs/ViT_large_patch16_224_in21k_4n32c_dp_fp16o2.yaml "$@"
