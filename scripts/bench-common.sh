# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2154 # assigned by those who source this
# What scripts/bench and scripts/bench-native share. Sourced, never run; after lib.sh, with $kernel, $root and
# $work set.

# A commit whose module is measured as well.
before=

# build_twin OUT ARGS...: the modules of tests/twin, of the same sources for each compiler, in a directory of
# its own; with further arguments for make.
build_twin() {
    local out=$1 tree
    shift
    mkdir -p "$out"
    tree=$(LINUX_SOURCE=$kernel/source.tar.xz scripts/enter "$root" scripts/prepare-tree "$kernel/headers")
    # shellcheck disable=SC2086 # a directory, and arguments for make
    scripts/enter "$root" make --no-print-directory -C $tree M="$top/tests/twin" MO="$out" "$@" modules >&2
}

# build_mp1 ARGS...: mp1.ko, with further arguments for make; and the one of the commit $before, if that is
# given, built in the same way, to be measured beside it.
build_mp1() {
    local checkout=$work/before
    rm -rf "$work"/mp1*.ko "$checkout"
    cp "$(scripts/build-module "$kernel" "$@")" "$work/mp1.ko"
    [ -n "$before" ] || return 0
    mkdir "$checkout"
    git archive "$before" | tar -C "$checkout" -x
    cp "$("$checkout/scripts/build-module" "$kernel" "$@")" "$work/mp1_before.ko"
}

# Print the path of the bench's program.
build_bench() {
    scripts/enter "$root" cargo bench --locked --no-run --bench bench 2>&1 | tee /dev/stderr |
        sed -n 's/.*Executable .*(\(.*\))$/\1/p'
}

# How busy the machine was just before times were measured.
load=

# Print what the figures hold for, as comments at the head of a file of them. ARGS: of the run.
header() {
    local release
    release=$(cat "$kernel/release" 2>/dev/null || cat "$kernel/include/config/kernel.release")
    echo '# SPDX-License-Identifier: GPL-2.0'
    echo "# made by: ${*% }"
    echo "# commit: $(git describe --always --dirty --exclude='*' 2>/dev/null || echo unknown)"
    [ -z "$before" ] || echo "# before: $(git rev-parse --short "$before")"
    echo "# date: $(date -u +%F)"
    echo "# kernel: $release"
    echo "# rustc: $(scripts/enter "$root" rustc --version)"
    echo "# gcc: $(scripts/enter "$root" gcc --version | head -n 1)"
    echo "# clang: $(scripts/enter "$root" clang --version | head -n 1)"
    if [ -x "$kernel/linux" ]; then
        echo "# processor: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
        echo "# load average before it: $load"
    else
        echo "# QEMU: $(scripts/enter "$root" "qemu-system-$(machine_of "$(own_arch)")" --version | head -n 1)"
    fi
}
