#!/usr/bin/env bash
# Where the package works: the lowest and the newest versions of what it needs,
# and processors that round otherwise. Ends with a table for docs/en/install.md.
#
#   bash tools/compat.sh                    all of it
#   bash tools/compat.sh lowest newest      environments alone
#   bash tools/compat.sh machines           processors alone
#
# PYTHON_LOWEST, PYTHON_NEWEST  interpreters of the environments (python3)
# TORCH_LOWEST, TORCH_NEWEST    what to install of PyTorch: 'torch==2.13.0'
#                               (the lowest of requirements/, and the newest)
# PIP_OPTIONS                   such as '--extra-index-url URL' of CPU builds
# WHERE                         folder of the environments, kept between runs
#                               (a temporary one)
set -uo pipefail
cd "$(dirname "$0")/.."
REPO=$PWD
export PYTHONPATH=$REPO
REQUIREMENTS=requirements/runtime.txt
# What a user does: import, train, resume, save, load, draw, exchange files;
# and all places that lean on how diffusers and transformers are made.
SMOKE=(tests/test_models/test_editors/test_contract.py
    tests/test_models/test_stable_diffusion.py
    tests/test_models/test_pipelines.py
    tests/test_models/test_attention.py
    tests/test_io tests/test_registry.py)
# Everything that computes.
NUMERIC=(tests/test_models tests/test_apis.py tests/test_inferencer.py)
# Each line is another processor, as far as rounding is concerned.
MACHINES=('OMP_NUM_THREADS=1'
    'OMP_NUM_THREADS=2'
    'ATEN_CPU_CAPABILITY=default'
    'ATEN_CPU_CAPABILITY=avx2'
    'MKL_CBWR=COMPATIBLE'
    'ONEDNN_MAX_CPU_ISA=AVX2'
    'ONEDNN_MAX_CPU_ISA=SSE41')

where=${WHERE:-$(mktemp -d)}
[ -n "${WHERE:-}" ] || trap 'rm -rf "$where"' EXIT
mkdir -p "$where"
failed=0
rows=()

# versions PYTHON: a cell of the table for each that matters
versions() {
    "$1" - <<'PYTHON'
import platform
from importlib.metadata import version

names = ('torch', 'diffusers', 'transformers', 'mmengine', 'mmcv-lite')
numbers = [platform.python_version(), *map(version, (*names, 'numpy'))]
print(' | '.join(numbers))
PYTHON
}

# check NAME PYTHON VARIABLE=VALUE TEST...: runs tests, adds a row
check() {
    local name=$1 python=$2 setting=$3 log words
    shift 3
    log=$where/$name.log
    echo "== $name: $setting"
    env "$setting" "$python" -m pytest -p no:cacheprovider "$@" >"$log" 2>&1
    local code=$?
    words=$(tail -n 1 "$log")
    if [ $code -ne 0 ]; then
        failed=1
        tail -n 40 "$log"
    fi
    rows+=("| $name | $(versions "$python") | $words |")
    echo "$words"
}

# environment NAME PYTHON TORCH CONSTRAINTS: builds it and runs the smoke set
environment() {
    local name=$1 base=$2 torch=$3 constraints=$4 venv=$where/$1
    echo "== $name: $torch"
    [ -x "$venv/bin/python" ] || "$base" -m venv "$venv"
    # shellcheck disable=SC2086
    if ! "$venv/bin/python" -m pip install --quiet ${PIP_OPTIONS:-} "$torch" ||
        ! "$venv/bin/python" -m pip install --quiet --upgrade \
            ${PIP_OPTIONS:-} -c "$constraints" -r "$REQUIREMENTS" \
            -r requirements/tests.txt; then
        failed=1
        rows+=("| $name | | | | | | | | cannot be installed |")
        return
    fi
    check "$name" "$venv/bin/python" OMP_NUM_THREADS=1 "${SMOKE[@]}"
}

lowest() {
    local constraints=$where/lowest.txt torch
    # a bound is the lowest that is promised; what has none may be any
    sed -n 's/>=/==/p' "$REQUIREMENTS" | grep -v '^torch=' >"$constraints"
    torch=$(sed -n 's/^torch>=\(.*\)/torch==\1.*/p' "$REQUIREMENTS")
    torch=${TORCH_LOWEST:-$torch}
    echo "$torch" >>"$constraints"
    environment lowest "${PYTHON_LOWEST:-python3}" "$torch" "$constraints"
}

newest() {
    local constraints=$where/newest.txt torch=${TORCH_NEWEST:-torch}
    echo "$torch" >"$constraints"
    environment newest "${PYTHON_NEWEST:-python3}" "$torch" "$constraints"
}

machines() {
    local setting
    for setting in "${MACHINES[@]}"; do
        check "${setting//=/-}" python3 "$setting" "${NUMERIC[@]}"
    done
}

for part in "${@:-lowest newest machines}"; do
    for each in $part; do
        case $each in
            lowest | newest | machines) "$each" ;;
            *) echo "error: no '$each': lowest, newest or machines" >&2; exit 2 ;;
        esac
    done
done

echo
echo '| | Python | torch | diffusers | transformers | mmengine | mmcv-lite | numpy | tests |'
echo '| --- | --- | --- | --- | --- | --- | --- | --- | --- |'
printf '%s\n' "${rows[@]}"
exit $failed
