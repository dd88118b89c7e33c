#!/usr/bin/env bash
# Everything that is measured on one kind of GPU, in one go or part by part; JSON files into a folder.
#
#   [MINUTES=25] bash calibration/measurements/gpu.sh OUT_FOLDER [PART...]
#   DEVICE=cpu bash calibration/measurements/gpu.sh OUT_FOLDER    tries every part out on a small model, without a GPU
#
# Parts are independent: one that fails or runs out of its time is told, and the others still run. Each has a limit, and nothing runs longer than
# MINUTES after the start. What a part should take on an H100 or H200 stands beside it: 14 minutes in all on one GPU, 23 on two.
set -uo pipefail
out=${1:?"give a folder for the results"}
shift
device=${DEVICE:-cuda}
here=$(dirname "$0")
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(where training losses measure kernels device tests two-gpus)
mkdir -p "$out"
failed=()
deadline=$((SECONDS + ${MINUTES:-25} * 60))

run() { # LIMIT_SECONDS NAME COMMAND...
    local limit=$1 name=$2 began=$SECONDS
    shift 2
    [ $((deadline - SECONDS)) -ge "$limit" ] || limit=$((deadline - SECONDS))
    [ "$limit" -gt 0 ] || { echo "== $name: left out, no time is left" >&2; failed+=("$name"); return; }
    echo "== $name: $*" >&2
    timeout "$limit" "$@" 2> >(tee "$out/$name.log" >&2) || { echo "== $name FAILED (exit $?)" >&2; failed+=("$name"); }
    echo "== $name: $((SECONDS - began)) s of at most $limit" >&2
}
bench() { # LIMIT_SECONDS NAME OPTIONS...
    local limit=$1 name=$2
    shift 2
    run "$limit" "$name" python -m trainer bench --device "$device" -o "$out/$name.json" "$@"
}
settings() { printf -- '--set\n%s\n' "$@"; }

if [ "$device" = cpu ]; then
    small=$here/small-moe.yaml
    shapes=("$small") measured=("$small") repeats=(--repeats 5)
    mapfile -t losses < <(settings shape.model="$small" shape.steps=20 shape.seeds=2 shape.micro_batch=2 shape.sequence=64)
    mapfile -t kernels < <(settings shape.tokens=64 shape.width=32 shape.expert_width=32 shape.vocabulary=128 shape.heads=2 shape.sequence=32)
else
    shapes=(moe-s1 moe-s2 moe-s3) measured=(tiny-moe moe-s1 moe-s2 moe-s3) repeats=() losses=()
    mapfile -t kernels < <(settings shape.tokens=4096,16384 shape.width=1024 shape.experts=32 shape.top_k=4 shape.vocabulary=50304 shape.heads=16 shape.sequence=2048)
fi

for part in "${parts[@]}"; do
    case $part in
    where) # 1 s: the machine, and how its GPUs are linked
        { date -u +%FT%TZ; lscpu | grep "Model name"; env | grep "^NCCL_"; } > "$out/where.txt"
        [ "$device" = cpu ] || { nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv; nvidia-smi topo -m; } >> "$out/where.txt" ;;
    training) # 8 min: speed of whole steps against the plain model, for the first shape against transformers too
        hugging_face=(--hugging-face)
        for shape in "${shapes[@]}"; do
            bench $([ ${#hugging_face[@]} -gt 0 ] && echo 420 || echo 240) "training-$(basename "$shape" .yaml)" --suite training --set shape.model="$shape" --repeats 5 "${hugging_face[@]}"
            hugging_face=()
        done ;;
    losses) # 1.5 min: 200 steps of every variant, three seeds
        bench 240 losses --suite losses "${losses[@]}" ;;
    measure) # 2 min: memory and time of a step, with a trace; for 'simulator predict --against'
        for model in "${measured[@]}"; do
            name=measure-$(basename "$model" .yaml)
            options=(--trace "$out/$name-trace.json.gz")
            [ "$device" = cpu ] || options+=(--memory-snapshot "$out/$name-snapshot.pickle")
            run 90 "$name" python -m trainer measure --model "$model" --device "$device" -o "$out/$name.json" "${options[@]}"
        done ;;
    kernels) # 1 min: every registered kernel against the roofline and float64
        bench 180 kernels "${kernels[@]}" --figure "$out/roofline.png" "${repeats[@]}" ;;
    device) # 2 min, with two GPUs 4: all that 'calibration fit' reads
        bench 300 device --suite device --probes "$out/device.jsonl" "${repeats[@]}" ;;
    tests) # 2 min
        run 240 tests python -m pytest -q -m gpu tests/trainer ;;
    two-gpus) # 9 min: one and two GPUs over each transport
        if [ "$device" = cpu ]; then
            run 400 two-gpus bash "$here/two-gpus/run.sh" "$out/two-gpus" cpu "$here/small-moe.yaml" mixed-precision
        elif [ "$(nvidia-smi -L | wc -l)" -ge 2 ]; then
            run 600 two-gpus bash "$here/two-gpus/run.sh" "$out/two-gpus"
        else
            echo "== two-gpus: left out, this machine has one" >&2
        fi ;;
    *)
        echo "error: part '$part' (legal: where, training, losses, measure, kernels, device, tests, two-gpus)" >&2
        exit 2 ;;
    esac
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
