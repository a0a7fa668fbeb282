#!/usr/bin/env bash
# setup.sh DIRECTORY EXTRA,EXTRA [PYTHON]
#
# Has mksgn and these extras installed in the environment DIRECTORY, with uv if it is there and with pip if not. Returns at
# once if they are. A new environment is made from PYTHON, or else from the newest Python that is there.
set -euo pipefail
cd "$(dirname "$0")/.."
directory=$1 extras=$2 wanted=${3:-python3.13 python3.12 python3.11 python3.10}
interpreter=$directory/bin/python
stamp=$directory/.mksgn-installed # the checkout that it was installed from, and its extras

# Prints the path of the first of these interpreters that runs. pyenv hides one that it was not told to use.
find_python() {
    local name version
    for name in $wanted; do
        version=${name##*python}
        "$name" -c 'import sys; print(sys.executable)' 2>/dev/null && return
        PYENV_VERSION=$version "$name" -c 'import sys; print(sys.executable)' 2>/dev/null && return
    done
    echo "set-up: none of these runs: $wanted; install one, or name yours: make setup PYTHON=..." >&2
    return 1
}

# Python writes bytecode for what it imports, unless it is told not to, as in many containers: then it is written now.
bytecode=(--no-compile) uv_bytecode=()
if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then bytecode=(--compile) uv_bytecode=(--compile-bytecode); fi

with_uv() {
    command -v uv >/dev/null || return
    uv pip install --quiet "${uv_bytecode[@]}" --python "$interpreter" "$@" || { echo "set-up: uv failed, trying pip" >&2 && return 1; }
}

# Without warnings that Lava's needs are relaxed.
with_pip() { "$interpreter" -m pip install --quiet --disable-pip-version-check "${bytecode[@]}" --no-warn-conflicts "$@"; }

is_installed() {
    local checkout installed extra
    { read -r checkout && read -r installed; } 2>/dev/null <"$stamp" || return
    [ "$checkout" = "$PWD" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt constraints.txt ] || return
    for extra in ${extras//,/ }; do [[ ,$installed, == *,$extra,* ]] || return; done
}

if [ -x "$interpreter" ] && is_installed; then exit; fi
start=$SECONDS
if [ ! -x "$interpreter" ]; then
    python=$(find_python)
    echo "setting up $directory with $python (one to four minutes; nothing is printed while packages are downloaded and unpacked)"
    { command -v uv >/dev/null && uv venv --quiet --seed --python "$python" "$directory"; } || "$python" -m venv "$directory"
else
    echo "setting up $directory"
fi

# uv does not read pip's settings. Where pip has no folder of builds to look in, uv takes torch's builds for the CPU from
# torch's own index; UV_TORCH_BACKEND=auto takes those for the accelerator. With pip: docs/index.md.
if [ -n "${PIP_FIND_LINKS:-}" ]; then torch=(--find-links "$PIP_FIND_LINKS"); else torch=(--torch-backend "${UV_TORCH_BACKEND:-cpu}"); fi
packages=(-c constraints.txt -e ".[$extras]")
with_uv "${torch[@]}" "${packages[@]}" || with_pip "${packages[@]}"

# lava-nc names Python 3.10 and NumPy 1 as its needs. mksgn/deploy/lava/patch.py lets it run on later ones; the extra has
# installed what it imports.
if [[ ,$extras, == *,lava,* ]] && "$interpreter" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    lava=(-c constraints.txt --no-deps lava-nc)
    with_uv --python-version 3.10 "${lava[@]}" || with_pip --ignore-requires-python "${lava[@]}"
fi

# sinabs runs with nir 1.0.8, but asks for an older one.
if [[ ,$extras, == *,interop,* ]]; then
    sinabs=(-c constraints.txt --no-deps sinabs)
    with_uv "${sinabs[@]}" || with_pip "${sinabs[@]}"
fi
printf '%s\n' "$PWD" "$extras" >"$stamp"
echo "set up in $((SECONDS - start)) s"
