#!/bin/sh
# Tries what scripts/Containerfile makes, without docker: Debian's base system and the packages that the file names, unpacked into a
# folder, the program copied in, and run inside by chroot. As root, on Debian or Ubuntu, with a network:
#
#   sh scripts/container.sh [PROGRAM]      # by default target/release/u2seg
set -eu
cd "$(dirname "$0")/.."
program=${1:-target/release/u2seg}
packages=$(sed -n 's/.*--no-install-recommends \(ca-certificates .*\) && rm.*/\1/p' scripts/Containerfile)
[ -n "$packages" ] || { echo "container: scripts/Containerfile names no packages" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "container: needs root for chroot" >&2; exit 1; }

root=$(mktemp -d)
trap 'umount "$root/system/proc" 2>/dev/null || :; rm -rf --one-file-system "$root"' EXIT INT TERM
lists=$root/apt
mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial" "$lists/debs"
: >"$lists/status"

# apt as on a machine where nothing is installed
bare() {
    tool=$1
    shift
    "$tool" -o "Dir::State::lists=$lists/lists" -o "Dir::Cache=$lists/cache" -o "Dir::State::status=$lists/status" \
        -o APT::Get::List-Cleanup=0 -o APT::Sandbox::User=root "$@"
}
bare apt-get -qq update
# what debian:slim has that a program run there can meet
base="base-files libc6 libc-bin dash coreutils"
# shellcheck disable=SC2086
names=$(bare apt-get install -qq -y --no-install-recommends --print-uris $base $packages | cut -d"'" -f2)
(cd "$lists/debs" && printf '%s\n' "$names" | xargs -n 1 curl -fsSLO)
for deb in "$lists"/debs/*.deb; do
    dpkg-deb -x "$deb" "$root/system"
done
mkdir -p "$root/system/data" "$root/system/tmp" "$root/system/usr/local/bin" "$root/system/proc"
mount -t proc proc "$root/system/proc"
# what ca-certificates' own script joins
find "$root/system/usr/share/ca-certificates" -name '*.crt' -exec cat {} + >"$root/system/etc/ssl/certs/ca-certificates.crt"
cp "$program" "$root/system/usr/local/bin/u2seg"
if [ -n "${IMAGE:-}" ]; then
    cp "$IMAGE" "$root/system/data/scan.nii.gz"
fi

inside() {
    chroot "$root/system" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/root NODEVICE_SELECT=1 U2SEG_CACHE=/tmp/u2seg \
        sh -c "cd /data && $*"
}
inside u2seg --version
inside u2seg models
inside u2seg devices
if [ -n "${IMAGE:-}" ]; then
    inside u2seg predict -m hippocampus -i scan.nii.gz -o mask.nii.gz
    [ -s "$root/system/data/mask.nii.gz" ]
fi
echo "container: $(du -smx --exclude="$root/system/proc" "$root/system" | cut -f1) MB" >&2
