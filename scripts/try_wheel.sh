#!/usr/bin/env bash
# try_wheel.sh WHEEL [PYTHON...]
#
# Installs the wheel with each Python into an empty environment, as a stranger would, with Lava and without the versions of
# constraints.txt, and goes from clips to a checked run of Lava in an empty folder and an empty home.
set -euo pipefail
if [ $# -lt 1 ]; then
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
wheel=$(realpath "$1")
shift
for name in "${@:-python3.10 python3.11 python3.12 python3.13}"; do
    for python in $name; do
        start=$SECONDS
        folder=$(mktemp -d)
        trap 'rm -rf "$folder"' EXIT
        # pyenv's programs run only a version that they are told; others do not read the variable
        PYENV_VERSION=${python#python} "$python" -m venv "$folder/venv"
        pip=("$folder/venv/bin/python" -m pip --disable-pip-version-check install --quiet)
        "${pip[@]}" "$wheel[report,lava]"
        # docs/LAVA.md: lava-nc names Python 3.10 and NumPy 1 as its needs
        [ "$python" = python3.10 ] || "${pip[@]}" --no-deps --ignore-requires-python lava-nc==0.10.0
        installed=$((SECONDS - start))
        mkdir "$folder/home" "$folder/work"
        (
            cd "$folder/work"
            export HOME=$folder/home PATH=$folder/venv/bin:$PATH
            unset PYTHONPATH
            mksgn --version
            mksgn-train demo --data synthetic --limit 24 --epochs 1 --out run >log 2>&1
            mksgn-export run/model.pt --to nir --quantize 8 --calibration synthetic --verify 2 >>log 2>&1
            mksgn-bench run run/model.nir --data synthetic --limit 2 --backend lava --precision fixed -o run/bench >>log 2>&1
            mksgn-bench check run/bench >>log 2>&1
            test -s run/bench/report.html
        ) || { tail -20 "$folder/work/log" >&2 && echo "$python: failed" >&2 && exit 1; }
        echo "$python: installed in $installed s, from clips to a checked run of Lava in $((SECONDS - start - installed)) s"
        rm -rf "$folder"
    done
done
