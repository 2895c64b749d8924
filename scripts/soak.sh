#!/bin/sh
# Runs for an hour what people leave running for days: two domains train, predictions and evaluations go on beside it, and all of
# them are killed, stopped and lose their device at random. Needs python3, `cc` and a Vulkan adapter. Arguments as `--help` says.
set -eu
cd "$(dirname "$0")/.."
. scripts/setup.sh
# a program whose calls to the driver can be made to fail
cargo build --release --locked --features faults --target-dir target/faults
U2SEG="${U2SEG:-$PWD/target/faults/release/u2seg}" exec python3 scripts/soak.py "$@"
