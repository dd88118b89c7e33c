#!/usr/bin/env bash
# A grid of real MoE runs over parameters and tokens, for two numbers of experts, on the King James text in bytes; resumable: call it again.
set -euo pipefail
cd "$(dirname "$0")/../../.."
tokens="131072,262144,524288"
[ "${LONG:-}" ] && tokens="$tokens,1048576"
for experts in ${EXPERTS:-4 16}; do
    for size in "32 2 8" "48 3 12" "64 4 16" "96 5 24"; do
        read -r width layers head <<<"$size"
        python -m trainer sweep --runs "calibration/measurements/moe-scaling-cpu/experts-$experts.csv" --threads 1 \
            --set data.tokenizer=bytes --set model.vocabulary=260 \
            --set "model.width=$width" --set "model.blocks.0.mixer.head_width=$head" --set "model.blocks.0.feed_forward.expert_width=$((2 * width))" \
            --set "model.blocks.0.count=$layers" --set model.blocks.0.feed_forward.top_k=1 \
            --set "model.blocks.0.feed_forward.experts=$experts" --set "training.tokens=$tokens"
    done
done
