# Sourced by test.sh after setup.sh: names a Python with numpy and safetensors in U2SEG_PYTHON, for tests/it/interop.rs. Makes
# one in the user's cache folder where python3 lacks them; without it the tests are ignored by name.

u2seg_has_packages() {
    "$1" -c 'import numpy, safetensors' >/dev/null 2>&1
}

u2seg_need_python() {
    [ -z "${U2SEG_PYTHON:-}" ] || return 0
    command -v python3 >/dev/null 2>&1 || return 0
    u2seg_has_packages python3 && return 0
    u2seg_venv="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/u2seg/python"
    if ! u2seg_has_packages "$u2seg_venv/bin/python"; then
        u2seg_say "python3 has no numpy and safetensors, which a test wants: installing them in $u2seg_venv"
        rm -rf "$u2seg_venv"
        # One short try: a machine without a network goes on at once.
        if ! { python3 -m venv "$u2seg_venv" && "$u2seg_venv/bin/python" -m pip install --quiet \
            --disable-pip-version-check --retries 0 --timeout 5 numpy safetensors; } >/dev/null 2>&1; then
            u2seg_say "could not install them: the test of weights in Python is ignored"
            return 0
        fi
    fi
    U2SEG_PYTHON="$u2seg_venv/bin/python"
    export U2SEG_PYTHON
}

u2seg_need_python
