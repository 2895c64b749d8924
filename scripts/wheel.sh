#!/bin/sh
# Builds the wheel, installs it into a clean virtual environment and runs the program from there, in an empty folder:
#
#   sh scripts/wheel.sh [OUT]      # the wheel goes to OUT, by default target/wheels
#   sh scripts/wheel.sh --try WHEEL
set -eu
cd "$(dirname "$0")/.."

say() {
    printf 'wheel: %s\n' "$*" >&2
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

# A virtual environment, with pip's own folders inside it.
venv() {
    python3 -m venv "$work/$1"
}

build() {
    venv build
    "$work/build/bin/pip" install --quiet --disable-pip-version-check 'maturin>=1.9,<2'
    PATH="$work/build/bin:${CARGO_HOME:-$HOME/.cargo}/bin:$PATH" maturin build --release --locked --strip --out "$1" >&2
}

# What a user's first minute needs: the version, the models, a folder of images that is told, and, where there is a device, a mask.
try() {
    venv clean
    "$work/clean/bin/pip" install --quiet --disable-pip-version-check --no-index "$1"
    program=$work/clean/bin/u2seg
    mkdir "$work/empty"
    cd "$work/empty"
    export HOME="$work/empty" XDG_CACHE_HOME="$work/empty/cache" NODEVICE_SELECT=1
    version=$("$program" --version)
    say "$version"
    "$program" models | grep -q '^hippocampus: ' || { say "the shipped model is not listed"; exit 1; }
    "$program" export -m hippocampus --domain Hippocampus -o out.safetensors >/dev/null
    "$program" info out.safetensors | grep -q Hippocampus || { say "the shipped model cannot be written"; exit 1; }
    "$program" fetch --list | grep -q Task09_Spleen || { say "no list of tasks"; exit 1; }
    if [ -n "${IMAGE:-}" ]; then
        "$program" predict -m hippocampus -i "$IMAGE" -o mask.nii.gz
        [ -s mask.nii.gz ] || { say "no mask of $IMAGE"; exit 1; }
    fi
    say "installed and run: $(basename "$1"), $(du -k "$1" | cut -f1) KiB, unpacked $(du -kL "$program" | cut -f1) KiB"
}

absolute() {
    case $1 in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s/%s\n' "$PWD" "$1" ;;
    esac
}

if [ "${1:-}" = --try ]; then
    try "$(absolute "$2")"
    exit
fi
out=$(absolute "${1:-target/wheels}")
build "$out"
# the newest one, where several lie there
# shellcheck disable=SC2012
try "$(ls -t "$out"/u2seg-*.whl | head -n 1)"
