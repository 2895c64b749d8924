#!/bin/sh
# What takes too long for every change: runs under Khronos' validation layer, with the limits that every adapter has, and on another
# Vulkan. Needs a Vulkan adapter (a software one will do) and Debian's packages that each part names.
#
#   sh scripts/nightly.sh [validation] [portable] [swiftshader]        all of them where nothing is given
#
#   U2SEG_SWIFTSHADER     libvk_swiftshader.so (default: Debian's chromium)
#   U2SEG_SWIFTSHADER_KIB kibibytes of address space that it may take (default 4194304, which is 4 GiB)
#   NIGHTLY_WORK          folder for data, models and messages (default: a temporary one, removed at the end)
set -eu
cd "$(dirname "$0")/.."
. scripts/setup.sh
[ $# -gt 0 ] || set -- validation portable swiftshader
cargo build --release --locked --quiet --bins --examples
program=$PWD/target/release/u2seg
if [ -n "${NIGHTLY_WORK:-}" ]; then
    work=$NIGHTLY_WORK
    mkdir -p "$work"
else
    work=$(mktemp -d)
    trap 'rm -r "$work"' EXIT
    trap 'exit 130' INT TERM
fi
failures=0

say() {
    printf 'nightly: %s\n' "$*" >&2
}

fail() {
    say "FAILED: $*"
    failures=$((failures + 1))
}

# Runs a step; what it says is shown where it fails, or where the validation layer watches it and finds something.
step() {
    name=$1
    shift
    if ! "$@" >"$work/out.txt" 2>&1; then
        tail -n 30 "$work/out.txt" >&2
        fail "$name"
    elif [ -n "${VK_LAYER_SETTINGS_PATH:-}" ] && ! unheard; then
        head -n 60 "$work/messages.txt" >&2
        fail "$name: the validation layer"
    else
        say "$name"
    fi
}

# Whether the layer was there, which it tells itself, and said nothing more.
unheard() {
    grep -q SYNCHRONIZATION_VALIDATION "$work/messages.txt" &&
        [ "$(grep -c msgNum "$work/messages.txt")" = "$(grep -c createinstance-status-message "$work/messages.txt")" ]
}

# Three domains: two to train, of one channel and of two, and one to adapt to.
cohorts() {
    for domain in First Second Third; do
        folder=$work/$domain
        [ ! -d "$folder" ] || continue
        channels=1
        [ "$domain" != Second ] || channels=2
        target/release/examples/synthetic_cohort --out "$folder" --cases 4 --shape 20,24,24 --classes 3 --channels "$channels" >&2
        sed "s/\"name\": *\"[^\"]*\"/\"name\": \"$domain\"/" "$folder/dataset.json" >"$folder/dataset.json.new"
        mv "$folder/dataset.json.new" "$folder/dataset.json"
    done
}

# Trains, adapts and predicts in one way; further arguments are those of `train`.
journey() {
    way=$1
    out=$work/$2-$way
    shift 2
    small="--cache none --steps 6 --patch 16,16,16 --batch 2 --tune off --augment default"
    rm -rf "$out"
    # shellcheck disable=SC2086
    step "$way: a training of two domains" "$program" train --data "$work/First" "$work/Second" --out "$out/run" --base 8 \
        --fold 0 $small "$@"
    # shellcheck disable=SC2086
    step "$way: an adaptation" "$program" adapt -m "$out/run/model.safetensors" --data "$work/Third" --out "$out/adapted" $small "$@"
    precision=f32
    case " $* " in *" f16 "*) precision=f16 ;; esac
    step "$way: a prediction" "$program" predict -m "$out/adapted/model.safetensors" --domain Third -i "$work/Third/imagesTr" \
        -o "$out/masks" --mirror w --save-probabilities --precision "$precision" --tune off
}

# Khronos' layer, with synchronisation validation, finds nothing in any mode (vulkan-validationlayers).
validation() {
    cohorts
    cat >"$work/vk_layer_settings.txt" <<SETTINGS
khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.report_flags = error,warn,info
khronos_validation.enables = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT
khronos_validation.log_filename = $work/messages.txt
SETTINGS
    export VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation VK_LAYER_SETTINGS_PATH="$work"
    # the layer makes a cache of its own, and says so where it finds none yet
    "$program" doctor --quick --only additions >/dev/null 2>&1 || true
    journey f32 validation
    journey f16 validation --precision f16
    journey vram validation --vram "${NIGHTLY_VRAM:-12MiB}"
    journey u2net validation --recipe u2net
    step "every kernel" "$program" doctor --quick
    unset VK_INSTANCE_LAYERS VK_LAYER_SETTINGS_PATH
}

# The limits that every WebGPU adapter has, and no feature.
portable() {
    step "every kernel with the limits that every adapter has" "$program" doctor --portable
}

# A Vulkan that shares no code with Mesa: every kernel, the published numbers, and a training (chromium).
swiftshader() {
    library=${U2SEG_SWIFTSHADER:-/usr/lib/chromium/libvk_swiftshader.so}
    if [ ! -e "$library" ]; then
        fail "swiftshader: found no $library; install chromium or set U2SEG_SWIFTSHADER"
        return
    fi
    cohorts
    printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "%s", "api_version": "1.1.0"}}\n' "$library" >"$work/icd.json"
    (
        ulimit -v "${U2SEG_SWIFTSHADER_KIB:-4194304}"
        export VK_ICD_FILENAMES="$work/icd.json" VK_DRIVER_FILES="$work/icd.json"
        failures=0
        journey f32 swiftshader
        step "every kernel" "$program" doctor
        exit "$failures"
    ) || failures=$((failures + $?))
    VK_ICD_FILENAMES="$work/icd.json" VK_DRIVER_FILES="$work/icd.json" step "the published numbers" cargo test --release --locked \
        --test golden
}

for what in "$@"; do
    case $what in
    validation | portable | swiftshader) "$what" ;;
    *) say "found $what; expected validation, portable or swiftshader"; exit 2 ;;
    esac
done
[ "$failures" = 0 ] || { say "$failures failures"; exit 1; }
say "all passed"
