#!/usr/bin/env bash
# recipe.sh PRESET SOURCE SPLIT DIRECTORY [OPTION...]
#
# From clips to run.json by the recipe of docs/results.md: the teacher where the preset has one, the student, for small its
# training as the network of its file of 8 bits, the file, and its run on the held-out clips. The same on a CPU and on a
# GPU; each OPTION goes to every mksgn-train, such as --device cuda. It may be stopped at any time, and goes on where it was
# when it is given again: timeout 600 scripts/recipe.sh … runs a piece of ten minutes. The programs are those on PATH.
# PROCESSES=2 trains by two processes; CLIPS=10 verifies and runs ten held-out clips instead of all.
#
#   PROCESSES=2 scripts/recipe.sh small nw-ucla:PATH/nw_ucla view1-2 runs/small
#   BACKEND=lava scripts/recipe.sh demo synthetic - runs/recipe
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
preset=$1 source=$2 out=$4 split=()
[ "$3" = - ] || split=(--split "$3")
shift 4
data=(--data "$source" "${split[@]}")

# Says what a step is and when it began, and runs it.
step() {
    echo "$(date +%H:%M:%S) ${*:1:6}"
    "$@"
}

train=(mksgn-train)
[ "${PROCESSES:-1}" = 1 ] || train=(torchrun --nproc-per-node "$PROCESSES" -m mksgn.train)

distill=()
case $preset in
base | paper)
    step "${train[@]}" "$preset" --teacher --epochs 120 "${data[@]}" --out "$out/teacher" --resume "$@"
    distill=(--distill "$out/teacher/teacher.pt")
    ;;
esac

step "${train[@]}" "$preset" "${distill[@]}" "${data[@]}" --out "$out" --resume "$@"
model=$out/model.pt

if [ "$preset" = small ]; then
    step "${train[@]}" "$model" --quantization-aware 8 --set learning_rate=3e-4 "${data[@]}" --out "$out/8bit" --resume "$@"
    model=$out/8bit/model.pt
fi

step mksgn-export "$model" --to nir --quantize 8 --calibration "$source" "${split[@]}" --verify "${CLIPS:-100}" -o "$out/model.nir"
step mksgn-bench run "$out/model.nir" "${data[@]}" --backend "${BACKEND:-emulator}" ${CLIPS:+--limit "$CLIPS"} -o "$out/run" --resume
step mksgn-bench check "$out/run"
