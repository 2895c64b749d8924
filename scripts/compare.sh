#!/bin/sh
# Runs `u2seg bench` and the PyTorch peer by turns on this machine and prints the table of ratios.
#
#   sh scripts/compare.sh [ROUNDS] [CONFIG...]
#
# PYTHON names an interpreter with torch (default python3); U2SEG_DEVICE and TORCH_DEVICE choose the adapters.
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-5}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- hippo hippo-plain
. scripts/setup.sh
python=${PYTHON:-python3}
"$python" -c 'import torch' || { echo "error: $python has no torch; set PYTHON" >&2; exit 1; }
cargo build --release --quiet
results=$(mktemp)
trap 'rm -f "$results"' EXIT
round=0
while [ "$round" -lt "$rounds" ]; do
  for config in "$@"; do
    echo "round $((round + 1)) of $rounds: $config" >&2
    target/release/u2seg bench --config "$config" --repeats 3 --json --device "${U2SEG_DEVICE:-auto}" \
      | "$python" scripts/compare.py ours >> "$results"
    "$python" benches/peers/torch_u2net.py --config "$config" --repeats 3 --device "${TORCH_DEVICE:-auto}" \
      ${TORCH_FLAGS:-} >> "$results"
  done
  round=$((round + 1))
done
"$python" scripts/compare.py table < "$results"
