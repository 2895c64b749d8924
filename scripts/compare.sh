#!/bin/sh
# Runs `u2seg bench` and the peers by turns on this machine and prints the table of ratios.
#
#   sh scripts/compare.sh [ROUNDS] [CONFIG...]        5 rounds of hippo and hippo-plain where nothing is given
#
# Peers: PyTorch, where PYTHON (default python3) has it; burn, where benches/peers/burn is built, and BURN=1 builds it
# (which takes long). A peer that fails is named and left out of that round.
#
#   U2SEG_DEVICE, TORCH_DEVICE   adapters (default auto)         BURN_DEVICES   default "wgpu flex"; "" leaves burn out
#   TORCH_FLAGS                  such as "--threads 2 --compiled --autocast"
#   REPEATS, BURN_REPEATS        timed runs of a round, of which the median counts (default 3 and 1)
#   BURN_ROUNDS                  rounds in which burn runs (default 1: it tunes its kernels anew each time)
#   RESULTS                      file to which every measurement is appended (default: none is kept)
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-5}
case $rounds in
'' | *[!0-9]* | 0) echo "error: found $rounds rounds; expected a number above 0" >&2; exit 1 ;;
esac
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- hippo hippo-plain
. scripts/setup.sh

say() {
    printf 'compare: %s\n' "$*" >&2
}

python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "error: found no $python, which makes the table; set PYTHON" >&2; exit 1; }
torch=1
"$python" -c 'import torch' 2>/dev/null || { say "$python has no torch (set PYTHON): PyTorch is left out"; torch=0; }
burn=benches/peers/burn/target/release/burn_u2net
if [ "${BURN:-0}" = 1 ]; then
    say "building burn"
    cargo build --release --locked --quiet --manifest-path benches/peers/burn/Cargo.toml
fi
[ -x "$burn" ] || { say "burn is not built (BURN=1 builds it): left out"; burn=; }
[ "$torch$burn" != 0 ] || { echo "error: found no peer to compare with" >&2; exit 1; }
cargo build --release --locked --quiet

results=$(mktemp)
trap 'rm -f "$results" "$results.run" "$results.json"' EXIT
trap 'exit 130' INT TERM

# Runs a peer, says what it measured and keeps its lines, if it succeeds.
measure() {
    what=$1
    shift
    if "$@" >"$results.run"; then
        "$python" scripts/compare.py show <"$results.run"
        "$python" scripts/compare.py round "$round" <"$results.run" >>"$results"
        [ -z "${RESULTS:-}" ] || "$python" scripts/compare.py round "$round" <"$results.run" >>"$RESULTS"
    else
        say "$what failed on $config in round $round"
    fi
}

ours() {
    target/release/u2seg bench --config "$config" --repeats "${REPEATS:-3}" --json --device "${U2SEG_DEVICE:-auto}" \
        >"$results.json" && "$python" scripts/compare.py ours <"$results.json"
}

round=0
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    for config in "$@"; do
        say "round $round of $rounds: $config"
        measure u2seg ours
        if [ "$torch" = 1 ]; then
            # shellcheck disable=SC2086
            measure PyTorch "$python" benches/peers/torch_u2net.py --config "$config" --repeats "${REPEATS:-3}" \
                --device "${TORCH_DEVICE:-auto}" ${TORCH_FLAGS:-}
        fi
        [ "$round" -le "${BURN_ROUNDS:-1}" ] || continue
        for device in ${burn:+${BURN_DEVICES-wgpu flex}}; do
            measure "burn on $device" "$burn" --config "$config" --repeats "${BURN_REPEATS:-1}" --device "$device"
        done
    done
done
"$python" scripts/compare.py table <"$results"
