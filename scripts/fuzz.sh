#!/bin/sh
# Hostile input, more of it than the usual tests take: every target of tests/it/hostile with U2SEG_HOSTILE_CASES cases
# (20,000), in processes whose memory and time are bounded. With U2SEG_FUZZ_SECONDS each target also runs that long under
# libFuzzer, which takes cargo-fuzz and a nightly toolchain; what it finds stays in fuzz/artifacts. Arguments name targets.
set -eu
cd "$(dirname "$0")/.."
. scripts/setup.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
export U2SEG_HOSTILE_CASES="${U2SEG_HOSTILE_CASES:-20000}"
cargo test --release --locked --test it -- hostile --nocapture --test-threads 2
seconds=${U2SEG_FUZZ_SECONDS:-0}
if [ "$seconds" = 0 ]; then
    exit 0
fi
if [ $# = 0 ]; then
    set -- nifti packed pair nrrd metaimage dicom dataset splits plan config model metadata checkpoint import records prepared
fi
for target; do
    echo "$target: $seconds s under libFuzzer"
    mkdir -p "fuzz/corpus/$target"
    cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -malloc_limit_mb=512 -rss_limit_mb=4096 -max_len=65536
done
