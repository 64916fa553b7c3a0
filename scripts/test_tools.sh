#!/usr/bin/env bash
# Installs what the tests run besides Python, where Debian's apt-get is at hand; says what is missing where it is not.
set -euo pipefail
cd "$(dirname "$0")/.."

# Tests whose tool is missing are skipped, naming it. About 380 MB to fetch and 2.7 GB on disk, without the browser.
wanted=(
    gcc g++ libc6-dev make clang                                                 # the C target on this computer, ExecuTorch's C++
    gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm                    # Cortex-M
    gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc        # RISC-V
    gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user                        # 64-bit Arm Linux
    openssh-server openssh-client rsync                                          # `nestling push` to a device
)
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
[ -n "$browser" ] || wanted+=(chromium fonts-dejavu-core)                        # the report's page

missing=()
for package in "${wanted[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        echo "tools: installing ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        { apt-get update -qq && apt-get install -qq -y --no-install-recommends "${missing[@]}"; } >/dev/null 2>&1 ||
            echo "tools: that failed, so some tests will be skipped. Try:  apt-get install ${missing[*]}" >&2
    else
        echo "tools: some tests will be skipped. Install what they need:  sudo apt-get install ${missing[*]}"
    fi
fi
touch .venv/tools
