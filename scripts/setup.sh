# Sourced by test.sh and demo.sh: makes sure that there is a Rust toolchain and, on Linux, a Vulkan driver.
# Without a GPU driver it installs Mesa's software rasteriser (Debian and Ubuntu): system-wide where that needs no
# password, otherwise into the user's cache folder. Messages go to standard error.

u2seg_say() {
    printf '%s\n' "u2seg: $*" >&2
}

# Debian's names: the Vulkan loader and Mesa's drivers, among them the software one (lavapipe).
u2seg_packages="libvulkan1 mesa-vulkan-drivers"
u2seg_cache="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/u2seg/vulkan"

u2seg_need_rust() {
    if ! command -v cargo >/dev/null 2>&1 && [ -x "${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
        export PATH
    fi
    if ! command -v cargo >/dev/null 2>&1; then
        u2seg_say "found no cargo; this needs Rust 1.91 or newer. Install it from https://rustup.rs :"
        u2seg_say "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
        return 1
    fi
}

# The Vulkan loader, which the program opens at run time.
u2seg_has_loader() {
    for u2seg_ldconfig in ldconfig /sbin/ldconfig /usr/sbin/ldconfig; do
        if command -v "$u2seg_ldconfig" >/dev/null 2>&1 &&
            "$u2seg_ldconfig" -p 2>/dev/null | grep -q 'libvulkan\.so\.1'; then
            return 0
        fi
    done
    u2seg_dirs=$(printf '%s' "${LD_LIBRARY_PATH:-}" | tr ':' ' ')
    for u2seg_dir in $u2seg_dirs /usr/lib /usr/lib64 /usr/local/lib /run/opengl-driver/lib; do
        [ -e "$u2seg_dir/libvulkan.so.1" ] && return 0
    done
    return 1
}

# A driver manifest: named by the environment or in one of the loader's usual folders.
u2seg_has_driver() {
    u2seg_named=$(printf '%s' "${VK_DRIVER_FILES:-}:${VK_ICD_FILENAMES:-}" | tr ':' ' ')
    for u2seg_file in $u2seg_named; do
        [ -e "$u2seg_file" ] && return 0
    done
    for u2seg_dir in /usr/share /etc /usr/local/share /usr/local/etc /run/opengl-driver/share \
        "${XDG_DATA_HOME:-${HOME:-}/.local/share}"; do
        for u2seg_file in "$u2seg_dir"/vulkan/icd.d/*.json; do
            [ -e "$u2seg_file" ] && return 0
        done
    done
    return 1
}

# Runs a command as root where that asks for no password.
u2seg_as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

u2seg_may_root() {
    [ "$(id -u)" -eq 0 ] || { command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; }
}

u2seg_install_system() {
    u2seg_say "no Vulkan driver found: installing $u2seg_packages"
    u2seg_as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2 || :
    # shellcheck disable=SC2086
    u2seg_as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
        $u2seg_packages >&2
}

# apt with lists and caches of our own, so that no root is needed.
u2seg_apt() {
    u2seg_tool=$1
    shift
    "$u2seg_tool" -o "Dir::State::lists=$u2seg_cache/apt/lists" -o "Dir::Cache=$u2seg_cache/apt/cache" \
        -o "Dir::State::status=/var/lib/dpkg/status" "$@"
}

# The driver's packages and those they depend on that the system lacks.
u2seg_wanted() {
    printf '%s\n' $u2seg_packages
    # shellcheck disable=SC2086
    u2seg_apt apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances $u2seg_packages |
        grep '^[a-z0-9]' | sort -u | while read -r u2seg_package; do
        case "$(dpkg-query -W -f '${Status}' "$u2seg_package" 2>/dev/null)" in
        *" installed") ;;
        *)
            # Names without a version of their own are virtual.
            u2seg_apt apt-cache show "$u2seg_package" >/dev/null 2>&1 && printf '%s\n' "$u2seg_package"
            ;;
        esac
    done
}

# Downloads and unpacks the driver into the user's cache folder; nothing outside it changes.
u2seg_install_user() {
    u2seg_say "no Vulkan driver found and no root: unpacking $u2seg_packages into $u2seg_cache"
    mkdir -p "$u2seg_cache/apt/lists/partial" "$u2seg_cache/apt/cache/archives/partial" "$u2seg_cache/debs" ||
        return 1
    # Hooks of the system may complain here; what matters is whether the download works.
    u2seg_apt apt-get -qq update >/dev/null 2>&1 || :
    u2seg_list=$(u2seg_wanted | sort -u)
    # shellcheck disable=SC2086
    (cd "$u2seg_cache/debs" && u2seg_apt apt-get -qq download $u2seg_list >&2) || return 1
    for u2seg_deb in "$u2seg_cache"/debs/*.deb; do
        dpkg -x "$u2seg_deb" "$u2seg_cache/root" || return 1
    done
    u2seg_driver=$(find "$u2seg_cache/root" -name 'libvulkan_lvp.so' | head -n 1)
    u2seg_manifest=$(find "$u2seg_cache/root/usr/share/vulkan/icd.d" -name 'lvp_icd*.json' | head -n 1)
    [ -n "$u2seg_driver" ] && [ -n "$u2seg_manifest" ] || return 1
    sed "s|\"library_path\"[^,}]*|\"library_path\": \"$u2seg_driver\"|" "$u2seg_manifest" \
        >"$u2seg_cache/lvp_icd.json.part" || return 1
    rm -rf "$u2seg_cache/debs" "$u2seg_cache/apt"
    mv "$u2seg_cache/lvp_icd.json.part" "$u2seg_cache/lvp_icd.json"
}

# Points the loader at the unpacked driver; the manifest is written last, so that it marks a complete copy.
u2seg_use_user() {
    [ -e "$u2seg_cache/lvp_icd.json" ] || return 1
    u2seg_libraries=$(find "$u2seg_cache/root" -name '*.so*' -exec dirname {} \; | sort -u | tr '\n' ':')
    LD_LIBRARY_PATH="$u2seg_libraries${LD_LIBRARY_PATH:-}"
    LD_LIBRARY_PATH="${LD_LIBRARY_PATH%:}"
    VK_DRIVER_FILES="$u2seg_cache/lvp_icd.json"
    VK_ICD_FILENAMES="$VK_DRIVER_FILES"
    export LD_LIBRARY_PATH VK_DRIVER_FILES VK_ICD_FILENAMES
    u2seg_say "using the software Vulkan driver in $u2seg_cache"
}

u2seg_need_vulkan() {
    [ "$(uname -s)" = Linux ] || return 0
    # Mesa's device-select layer complains about a missing XDG_RUNTIME_DIR; u2seg chooses its adapter itself.
    NODEVICE_SELECT=1
    export NODEVICE_SELECT
    u2seg_has_loader && u2seg_has_driver && return 0
    u2seg_use_user && return 0
    if command -v apt-get >/dev/null 2>&1; then
        if u2seg_may_root; then
            u2seg_install_system && u2seg_has_driver && return 0
        elif u2seg_install_user && u2seg_use_user; then
            return 0
        fi
    fi
    u2seg_say "found no Vulkan driver. Install the one of your GPU, or Mesa's software driver:"
    u2seg_say "    Debian, Ubuntu: apt-get install mesa-vulkan-drivers libvulkan1"
    u2seg_say "    Fedora:         dnf install mesa-vulkan-drivers vulkan-loader"
    u2seg_say "    Arch:           pacman -S vulkan-swrast vulkan-icd-loader"
    u2seg_say "    Alpine:         apk add mesa-vulkan-swrast vulkan-loader"
    u2seg_say "going on without one: whatever needs a GPU will fail"
}

u2seg_need_rust || exit 1
u2seg_need_vulkan
