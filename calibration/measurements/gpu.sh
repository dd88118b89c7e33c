#!/bin/sh
# Everything that is measured on one GPU, in one go: sh calibration/measurements/gpu.sh OUT_FOLDER
# The parts are independent: one that fails is told and does not stop the others.
set -u
out=${1:?"give a folder"}
mkdir -p "$out"
run() { echo "$*" >&2; "$@" || echo "FAILED: $*" >&2; }

run python -m pytest -m gpu tests/trainer
run python -m trainer bench --suite device -o "$out/device.json" --probes "$out/device.jsonl"
run python -m trainer bench --set shape.tokens=4096,16384 --set shape.width=1024 --set shape.experts=32 --set shape.top_k=4 --set shape.vocabulary=50304 \
    -o "$out/kernels.json" --figure "$out/roofline.png"
run python -m trainer bench --suite training --hugging-face -o "$out/training.json"
for model in tiny-moe moe-s1 moe-s2 moe-s3; do
    run python -m trainer measure --model "$model" --device cuda -o "$out/$model.json"
done
