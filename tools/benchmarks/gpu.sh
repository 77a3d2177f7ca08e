#!/usr/bin/env bash
# All that there is to measure on one GPU, in at most nine minutes and with
# nothing beside this package: models of the sizes of Stable Diffusion 1.x and
# XL are made on the spot, with random weights.
#
#     bash tools/benchmarks/gpu.sh [--out FOLDER] [--minutes 9]
#     bash tools/benchmarks/gpu.sh --tiny     # on any machine, in a minute or two
#
# Leaves report.txt, report.json and profile.txt, which are written anew after
# each part: what does not fit into the time is named there.
set -euo pipefail
exec python "$(dirname "$0")/gpu.py" "$@"
