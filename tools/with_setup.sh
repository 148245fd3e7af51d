#!/usr/bin/env bash
# Runs a command in the project's own environment, and first installs what is missing there: uv, the Python packages of uv.lock, Java.
# The machine needs Python 3.11 or newer, git and make.
#
#     bash tools/with_setup.sh spark-kfp run
#
# uv is installed into .tools/ and the packages into .venv/. Only Java is installed for the whole machine, by the package manager, and only as
# root or if sudo asks for no password. Otherwise the script says in one sentence what to install and exits with code 2.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

MIN_PYTHON="3.11"
MIN_JAVA=17

say() { printf 'setup: %s\n' "$*" >&2; }

stop() {
    say "$*; then run this again"
    exit 2
}

has() { command -v "$1" >/dev/null; }

# Runs a command as root; fails if that needs a password.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else has sudo && sudo -n true 2>/dev/null && sudo -n "$@"; fi
}

apt_install() { as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1" >&2; }

find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$name" -c "import sys; sys.exit(sys.version_info < (${MIN_PYTHON/./, }))" 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    stop "no Python $MIN_PYTHON or newer is on PATH; install one"
}

make_venv() { "$1" -m venv --clear .tools/uv >&2; }

install_uv() {
    local python
    python=$(find_python)
    say "installing uv into .tools/uv"
    make_venv "$python" ||
        { has apt-get && as_root apt-get update >&2 && apt_install python3-venv && make_venv "$python"; } ||
        stop "$python cannot make a virtual environment; install its venv module (Debian, Ubuntu: python3-venv) or install uv"
    .tools/uv/bin/python -m pip install --quiet uv >&2 || stop "uv could not be installed, see above; install uv"
}

# Installs the packages of uv.lock and of the dependency groups in SETUP_GROUPS into .venv; takes a moment if they are installed already.
# The packages are compiled to bytecode here, so that no step has to do it.
sync_packages() {
    local new=() group
    export UV_COMPILE_BYTECODE=1
    for group in ${SETUP_GROUPS:-}; do new+=(--group "$group"); done
    if [ ! -d .venv ]; then
        new+=(--python "$(find_python)")
        say "installing the packages of uv.lock into .venv"
    fi
    uv sync --frozen --extra spark --extra serving --quiet ${new[@]+"${new[@]}"} >&2 ||
        stop "the packages of uv.lock could not be installed, see above; put that right"
}

is_new_enough() {
    local version
    version=$("$1/bin/java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
    [ "${version:-0}" -ge "$MIN_JAVA" ]
}

# Prints the home of a Java that is new enough: JAVA_HOME, the one on PATH, or Homebrew's, which is not on PATH.
find_java() {
    local homes=("${JAVA_HOME:-}") home
    if has java; then homes+=("$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")"); fi
    if has brew; then homes+=("$(brew --prefix openjdk@21)/libexec/openjdk.jdk/Contents/Home"); fi
    for home in "${homes[@]}"; do
        if [ -n "$home" ] && [ -x "$home/bin/java" ] && is_new_enough "$home"; then
            printf '%s\n' "$home"
            return
        fi
    done
    return 1
}

install_java() {
    say "neither JAVA_HOME nor PATH has Java $MIN_JAVA or newer; installing one"
    if has brew; then
        brew install openjdk@21 >&2
    elif has apt-get; then
        as_root apt-get update >&2 && { apt_install openjdk-21-jre-headless || apt_install openjdk-17-jre-headless; }
    elif has dnf; then
        as_root dnf install -y java-21-openjdk-headless >&2
    else
        return 1
    fi
}

export PATH="$PWD/.venv/bin:$PWD/.tools/uv/bin:$PATH"
has uv || install_uv
sync_packages
java_home=$(find_java || { install_java && find_java; }) ||
    stop "Java $MIN_JAVA or newer is missing and cannot be installed from here; install OpenJDK 21 (Debian, Ubuntu: openjdk-21-jre-headless;" \
        "Fedora: java-21-openjdk-headless; macOS: brew install openjdk@21) or set JAVA_HOME"
export JAVA_HOME="$java_home"
exec "$@"
