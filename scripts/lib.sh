# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What the scripts share. Sourced, never run.

# shellcheck disable=SC2034 # used by those who source this
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# HOME is unset outside of a login; ~ is then the home directory of the user database.
[ -n "${HOME:-}" ] || HOME=~
# shellcheck disable=SC2034
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mp1
export LC_ALL=C.UTF-8

# A short name for some text, to key a cache entry by what it was made from.
hash_of() { sha256sum | cut -c 1-12; }

# Where Cargo builds: one directory for each checkout, since two of them would overwrite each other's programs.
# shellcheck disable=SC2034
target=$cache/target/$(hash_of <<<"$top")

# The architecture of this machine, by Debian's name, as all of them are named here.
own_arch() { dpkg --print-architecture; }

# What compilers, QEMU and `uname -m` call an architecture.
machine_of() {
    case $1 in
    amd64) echo x86_64 ;;
    arm64) echo aarch64 ;;
    loong64) echo loongarch64 ;;
    *) die "mp1 is not tested on '$1'" ;;
    esac
}

# The suite whose build root has what tests kernels of an architecture. Debian got loong64 after trixie.
tools_suite() {
    case $1 in
    loong64) echo sid ;;
    *) echo trixie ;;
    esac
}

# The architecture of a kernel in a directory of scripts/kernel.
arch_of() { cat "$1/arch" 2>/dev/null || own_arch; }

say() { printf '== %s\n' "$*" >&2; }

die() {
    printf 'mp1: %s\n' "$*" >&2
    exit 1
}

# make_once DIR FUNCTION ARGS...: DIR, made by `FUNCTION PART ARGS...` if it is not there yet.
# Half a DIR can never be taken for a whole one: the function fills PART, a neighbour, which is
# renamed at the end, and thrown away by the next attempt when that end was never reached.
# The function's output goes to DIR.log, of which the end is shown if it fails.
make_once() {
    local dir=$1 make=$2
    shift 2
    [ -e "$dir" ] && return
    mkdir -p "$(dirname "$dir")"
    (
        flock -n 9 || { say "waiting for another run that makes $dir" && flock 9; }
        [ -e "$dir" ] && exit
        discard "$dir.part"
        # A subshell of its own: `set -e` does not reach into a function that is part of a condition.
        set +e
        (set -e && "$make" "$dir.part" "$@") >"$dir.log" 2>&1 9>&-
        status=$?
        set -e
        if [ $status -ne 0 ]; then
            tail -n 40 "$dir.log" >&2
            die "failed, see $dir.log"
        fi
        mv "$dir.part" "$dir"
    ) 9>"$dir.lock"
}

# Some directories of a build root are read-only, which stops everybody but root from deleting in them.
discard() {
    [ -e "$1" ] || return 0
    chmod -R u+w "$1" 2>/dev/null || true
    rm -rf "$1"
}

# patched_copy DIR PATCH: make DIR a copy of the checkout with PATCH applied. make goes by the times of files, so the
# sources are new in each copy.
patched_copy() {
    discard "$1"
    mkdir -p "$1"
    tar -C "$top" --exclude=./.git --exclude=./target -cf - . | tar -C "$1" -xf -
    touch "$1"/*.rs
    # With fuzz, a patch of older sources could end up anywhere.
    patch -s -F0 -p1 -d "$1" <"$2" >&2 || die "$2 does not apply to these sources"
}

# patch_value PATCH KEY: what the head of a patch of tests/faults or tests/exercises says after `KEY: `.
patch_value() { sed -n "1,/^--- /s/^$2: //p" "$1"; }

# inside_root ARGS...: run the calling script inside the build root that has the tools, if it is not there yet.
inside_root() { inside_root_for "$(own_arch)" "$@"; }

# inside_root_for ARCH ARGS...: the same, in the one that has what boots kernels of that architecture.
inside_root_for() {
    [ -z "${MP1_INSIDE_ROOT:-}" ] || return 0
    local root
    root=$("$top/scripts/buildroot" "$(tools_suite "$1")" "$1")
    exec "$top/scripts/enter" "$root" "$0" "${@:2}"
}

# set_apt_options SUITE ARCH: set $apt_options to what has APT in the build root of SUITE ask its archive about
# ARCH, and keep what it changes in the cache.
set_apt_options() {
    local state=$cache/apt/$1-$2
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    apt_options=(-o Dir::State::lists="$state/lists" -o Dir::Cache="$state/cache" -o APT::Sandbox::User=root
        -o APT::Architecture="$2" -o APT::Architectures="$2")
}
