#!/bin/sh
# Loses the device at every call to the driver that a short training and a short prediction make, and refuses the memory of every
# buffer, one after another: half an hour on two cores. U2SEG_FAULT_CASES=N tries N of each.
set -eu
cd "$(dirname "$0")/.."
export U2SEG_FAULT_CASES="${U2SEG_FAULT_CASES:-all}"
cargo test --release --lib run::recovery -- --nocapture --test-threads 1
