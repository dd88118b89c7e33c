#!/usr/bin/env bash
# One and two GPUs of one machine on moe-s1: data parallel, expert parallel, fully sharded, over NVLink, shared memory and sockets.
# usage: [TRANSPORTS="nvlink shm socket"] run.sh OUTPUT_FOLDER [DEVICE] [MODEL] [PLAN]; ends with 1 when one of them failed
set -uo pipefail
out="$1" device="${2:-cuda}" model="${3:-moe-s1}" plan="${4:-fast}"
mkdir -p "$out"
failed=0
steps() { # NAME PROCESSES ARGUMENTS...
    local name="$1" processes="$2"
    shift 2
    timeout 80 torchrun --nproc-per-node "$processes" --master-port 29512 -m trainer.bench.parallel_steps "$out/$name.json" --device "$device" --model "$model" --set plan.routing=uniform "$@" \
        2>"$out/$name.err" && rm "$out/$name.err" || { failed=1; echo "$name failed"; tail -5 "$out/$name.err"; }
}
issued=(--plan "$plan" --set plan.implementation.launch=eager)
# What a plan that cuts blocks can neither compile nor record, without both; and with fp32 weights, where states are sharded.
eager=(--plan "$plan" --set plan.implementation.compile=none --set plan.implementation.norm=recompute --set plan.implementation.launch=eager)
sharded=("${eager[@]}" --set plan.precision=bf16-mixed)
steps one-replayed 1 --plan "$plan"
steps one-issued 1 "${issued[@]}"
steps one-eager 1 "${eager[@]}"
steps one-mixed 1 "${sharded[@]}"
transports=${TRANSPORTS:-nvlink shm socket}
[ "$device" = cpu ] && transports=gloo
for transport in $transports; do
    export NCCL_P2P_DISABLE=$([ "$transport" = nvlink ] && echo 0 || echo 1) NCCL_SHM_DISABLE=$([ "$transport" = socket ] && echo 1 || echo 0)
    few=()
    [ "$transport" = socket ] && few=(--timed 3)
    # Else NCCL takes an InfiniBand card for its network, where there is one.
    [ "$transport" = socket ] && export NCCL_NET=Socket || unset NCCL_NET
    steps "$transport-data-replayed" 2 --plan "$plan" --set plan.ep=1 "${few[@]}"
    # What replaying saves shows where the network holds nothing up.
    [ "$transport" = nvlink ] && steps nvlink-data-issued 2 "${issued[@]}" --set plan.ep=1
    steps "$transport-expert" 2 "${eager[@]}" --set plan.ep=2 "${few[@]}"
    # Where the network holds nothing up the host does; its trace says with what.
    trace=()
    [ "$transport" = nvlink ] || [ "$transport" = gloo ] && trace=(--trace "$out/$transport-sharded.trace.json.gz")
    steps "$transport-sharded" 2 "${sharded[@]}" --set plan.ep=1 --set plan.zero_stage=3 "${few[@]}" "${trace[@]}"
done
exit $failed
