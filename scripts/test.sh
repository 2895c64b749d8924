#!/bin/sh
# Builds u2seg and runs its tests. Arguments go to `cargo test`; without any, the kernels that GPUs run are held to what a GPU's
# compiler makes of them, too, where Mesa's driver for AMD is there (no GPU is needed).
set -eu
cd "$(dirname "$0")/.."
. scripts/setup.sh
. scripts/python.sh
cargo test --release --locked "$@"
[ $# -gt 0 ] || cargo run --release --locked --example kernel_gate
