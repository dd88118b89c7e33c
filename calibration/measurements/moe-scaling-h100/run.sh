#!/usr/bin/env bash
# Real MoE runs over parameters, tokens and experts: cooldown branches off one trunk a size, all trunks at once on one GPU. Resumable: call it again.
# usage: run.sh CORPUS_FOLDER OUTPUT_FOLDER MINUTES [PROCESSES]
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
corpus="$1" out="$2" minutes="$3" processes="${4:-24}"
common=(--threads 1 --processes "$processes" --data text-files
    --set "data.sources=[{kind: text-files, paths: ['$corpus'], document: file}]" --set data.tokenizer=bytes --set data.validation_fraction=0.008
    --set model.vocabulary=260 --set "plan.sequence=${SEQUENCE:-256}" --set "plan.micro_batch=${SEQUENCES:-64}"
    --set "training.schedule={kind: constant, warmup_steps: ${WARMUP:-24}, cooldown_fraction: 0.2, final_fraction: 0.0}"
    --set training.evaluation.interval_steps=1000000 --set training.checkpoints.interval_steps=1000000)
mkdir -p "$out"
python "$here/grids.py" learning-rates >"$out/learning-rates.yaml"
# A rate that diverges leaves no row, and the rule does without it.
python -m trainer sweep --runs "$out/learning-rates.csv" --grid "$out/learning-rates.yaml" --folder "$out/runs" "${common[@]}" >/dev/null || true
python "$here/grids.py" losses "$out/learning-rates.csv" >"$out/losses.yaml"
left="$(python -c "print(max(0, $minutes - $SECONDS / 60))")"
python -m trainer sweep --runs "$out/losses.csv" --grid "$out/losses.yaml" --folder "$out/runs" --minutes "$left" "${common[@]}" >/dev/null
