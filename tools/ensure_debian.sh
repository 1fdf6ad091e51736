#!/usr/bin/env bash
# Installs the Debian packages that a target needs, only where they are absent and only as root.
# Usage: ensure_debian.sh python-venv|mosquitto|strace|zstd ...
set -euo pipefail

absent=()
for need in "$@"; do
  case "$need" in
    python-venv)
      "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || absent+=(python3-venv) ;;
    mosquitto)
      PATH="$PATH:/usr/sbin" command -v mosquitto >/dev/null || absent+=(mosquitto) ;;
    strace)
      command -v strace >/dev/null || absent+=(strace) ;;
    zstd)
      command -v zstd >/dev/null || absent+=(zstd) ;;
    *)
      echo "ensure_debian.sh: unknown need '$need'" >&2; exit 2 ;;
  esac
done
[ ${#absent[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed: ${absent[*]}. Install with: sudo apt-get install ${absent[*]}" >&2
  # The tests that need them skip and say so; without venv nothing works.
  case " ${absent[*]} " in *" python3-venv "*) exit 1 ;; *) exit 0 ;; esac
fi
echo "installing Debian packages: ${absent[*]}"
export DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes
apt-get update -qq >/dev/null
apt-get install -y -qq --no-install-recommends "${absent[@]}" >/dev/null
# Debian starts mosquitto as a service; the tests start their own, on their own ports.
