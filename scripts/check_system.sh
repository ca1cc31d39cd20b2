#!/bin/sh
# What pip cannot install: Python itself, and what libp2p's `fastecdsa`, which comes as C source, is built with.
# Names every missing package at once, for Debian, Fedora and macOS, with the command that installs it; exits 1 then.
# Reads PYTHON (default python3) and the compiler's usual CC, CPPFLAGS, CFLAGS and LDFLAGS.
set -u

python=${PYTHON:-python3}
missing=0 debian="" fedora="" macos="" no_gmp=0
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# lack WHAT DEBIAN FEDORA MACOS: note one missing thing and the packages that bring it.
lack() {
    [ "$missing" -eq 1 ] || printf 'cyxnode cannot be set up yet. Missing:\n' >&2
    missing=1 debian="$debian $2" fedora="$fedora $3" macos="$macos $4"
    printf '  - %s\n      Debian/Ubuntu: %s   Fedora: %s   macOS: %s\n' "$1" "$2" "$3" "$4" >&2
}

# Packages are named after the interpreter: python3.12 -> python3.12-dev, anything else -> python3-dev.
case ${python##*/} in
python3.[0-9]*) name=${python##*/} ;;
*) name=python3 ;;
esac
brew_python=python@3.12
[ "$name" = python3 ] || brew_python=python@${name#python}

have_python=0
if ! command -v "$python" >/dev/null 2>&1; then
    lack "Python 3.11 or newer: there is no '$python' on the PATH" "$name $name-venv $name-dev" \
        "$name $name-devel" "$brew_python"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    found=$("$python" -c 'import platform; print(platform.python_version())' 2>/dev/null)
    lack "Python 3.11 or newer: '$python' is ${found:-broken}" "python3.11 python3.11-venv python3.11-dev" \
        "python3.11 python3.11-devel" python@3.12
    for other in python3.14 python3.13 python3.12 python3.11; do
        if command -v "$other" >/dev/null 2>&1; then
            printf '      or use the %s that is here: make PYTHON=%s\n' "$other" "$other" >&2
            break
        fi
    done
else
    have_python=1
fi

if [ "$have_python" -eq 1 ]; then
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        lack "venv and pip of $python (modules venv, ensurepip)" "$name-venv" "$name-libs $name-pip" "$brew_python"
    "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null ||
        lack "headers of $python (Python.h)" "$name-dev" "$name-devel" "$brew_python"
fi

# The compiler that a build would use: CC, else the one that Python itself was built with.
compiler=${CC:-}
if [ -z "$compiler" ] && [ "$have_python" -eq 1 ]; then
    compiler=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("CC") or "cc")' 2>/dev/null)
fi
compiler=${compiler:-cc}

printf 'int main(void) { return 0; }\n' >"$scratch/plain.c"
printf '#include <gmp.h>\nint main(void) { mpz_t n; mpz_init(n); mpz_clear(n); return 0; }\n' >"$scratch/gmp.c"
# compiles NAME [LIBRARY]: whether the program can be compiled and linked. Flags are split on purpose.
compiles() {
    # shellcheck disable=SC2086
    $compiler ${CPPFLAGS:-} ${CFLAGS:-} "$scratch/$1.c" -o "$scratch/$1" ${LDFLAGS:-} ${2:-} >/dev/null 2>&1
}

if compiles plain; then
    compiles gmp -lgmp || no_gmp=1
else
    lack "a C compiler that works: tried '$compiler'" "gcc libc6-dev" gcc "the command line tools: xcode-select --install"
    # Without a compiler only the usual places of the header can be looked at.
    set -- /usr/include/gmp*.h /usr/include/*/gmp.h /usr/local/include/gmp.h /opt/homebrew/include/gmp.h
    found=0
    for header in "$@"; do [ ! -e "$header" ] || found=1; done
    [ "$found" -eq 1 ] || no_gmp=1
fi
[ "$no_gmp" -eq 0 ] || lack "headers and library of GMP (gmp.h)" libgmp-dev gmp-devel gmp

# plyvel has wheels for Linux on x86-64 up to Python 3.12; elsewhere pip compiles it against LevelDB.
if [ "$have_python" -eq 1 ] && "$python" -c 'import platform, sys
sys.exit((sys.platform, platform.machine()) == ("linux", "x86_64") and sys.version_info < (3, 13))'; then
    printf '#include <leveldb/c.h>\nint main(void) { return leveldb_major_version() == 0; }\n' >"$scratch/leveldb.c"
    if ! compiles leveldb -lleveldb; then
        lack "headers and library of LevelDB, and C++ (no ready-made plyvel for this Python)" "libleveldb-dev g++" \
            "leveldb-devel gcc-c++" leveldb
    fi
fi

if [ "$(uname -s)" = Linux ] && ! command -v bwrap >/dev/null 2>&1; then
    printf '%s\n' "note: bubblewrap (bwrap) is not here. Jobs would run with resource limits only, and the node says so to" \
        "      the network. Debian/Ubuntu: apt-get install bubblewrap   Fedora: dnf install bubblewrap" >&2
fi

[ "$missing" -eq 1 ] || exit 0

as_root="sudo "
[ "$(id -u)" -ne 0 ] || as_root=""
printf 'Install it with:\n' >&2
if command -v apt-get >/dev/null 2>&1; then
    printf '  %sapt-get install -y%s\n' "$as_root" "$debian" >&2
elif command -v dnf >/dev/null 2>&1; then
    printf '  %sdnf install -y%s\n' "$as_root" "$fedora" >&2
elif [ "$(uname -s)" = Darwin ]; then
    case $macos in *xcode-select*) printf '  xcode-select --install\n' >&2 ;; esac
    packages=$(printf '%s' "$macos" | sed 's/the command line tools: xcode-select --install//')
    [ -z "$(printf '%s' "$packages" | tr -d ' ')" ] || printf '  brew install%s\n' "$packages" >&2
    [ "$no_gmp" -eq 0 ] ||
        printf '  export CFLAGS="-I$(brew --prefix)/include" LDFLAGS="-L$(brew --prefix)/lib"\n' >&2
else
    printf '  Debian/Ubuntu: %sapt-get install -y%s\n' "$as_root" "$debian" >&2
    printf '  Fedora:        %sdnf install -y%s\n' "$as_root" "$fedora" >&2
    printf '  macOS:         brew install%s\n' "$macos" >&2
fi
printf 'Then run make again.\n' >&2
exit 1
