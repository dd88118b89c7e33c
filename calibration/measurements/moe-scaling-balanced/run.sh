#!/usr/bin/env bash
# Real MoE runs over parameters, tokens and experts: cooldown branches off one trunk a size, trunks dealt to all GPUs in turn. Resumable: call it again.
# With a process a trunk (30) all trunks go on side by side, the short branches first: a cut in time takes the runs of most compute and nothing else.
# usage: run.sh CORPUS_FOLDER OUTPUT_FOLDER MINUTES [PROCESSES [TABLE...]]; runs that are in a TABLE are left out
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
corpus="$1" out="$2" minutes="$3" processes="${4:-30}"
plan=()
if python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    # The kernels of the fast plan, whole steps replayed; compiling blocks would take longer than it saves.
    plan=(--plan fast --set plan.implementation.compile=none --set plan.implementation.norm=recompute)
fi
common=(--threads 1 --processes "$processes" --data text-files "${plan[@]}"
    --set "data.sources=[{kind: text-files, paths: ['$corpus'], document: file}]" --set data.tokenizer="$here/tokenizer.json" --set "data.end_token=<|end|>"
    --set data.validation_fraction=0.008 --set model.vocabulary=2048 --set model.selection_bias_rate=0.01 --set "plan.sequence=${SEQUENCE:-256}" --set "plan.micro_batch=${SEQUENCES:-32}"
    --set "training.schedule={kind: constant, warmup_steps: ${WARMUP:-128}, cooldown_fraction: 0.2, final_fraction: 0.0}" --set "training.adam_betas=[0.9, 0.99]"
    --set training.evaluation.interval_steps=1000000 --set training.checkpoints.interval_steps=1000000)
mkdir -p "$out"
python "$here/balanced_grids.py" "${@:5}" >"$out/losses.yaml"
left="$(python -c "print(max(0, $minutes - $SECONDS / 60))")"
python -m trainer sweep --runs "$out/losses.csv" --grid "$out/losses.yaml" --folder "$out/runs" --minutes "$left" "${common[@]}" >/dev/null
