#!/bin/sh
# Builds u2seg and runs the spleen example. Arguments go to the example.
set -eu
cd "$(dirname "$0")/.."
. scripts/setup.sh
exec cargo run --release --locked --example segment_spleen -- "$@"
