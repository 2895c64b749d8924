#!/bin/sh
# Builds u2seg and runs its tests. Arguments go to `cargo test`.
set -eu
cd "$(dirname "$0")/.."
. scripts/setup.sh
. scripts/python.sh
exec cargo test --release --locked "$@"
