#!/bin/bash
# make_chroot.sh FOLDER: make a Debian trixie in FOLDER with Blender 4.3, a software X server and what drives it.
#
# Does nothing where FOLDER holds just that already. Needs root and Debian's package mirror: the machine's own, or the
# one in VIEWPORT_DIFFUSION_DEBIAN_MIRROR. Exit code 77: this machine can't make one, and the last line says why.
set -euo pipefail

readonly SUITE=trixie
readonly PACKAGES=blender,xvfb,xauth,libgl1-mesa-dri,libegl-mesa0,libegl1,libgl1,libglx-mesa0,xdotool,imagemagick,\
python3-numpy,python3-requests
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
readonly CANNOT=77

cannot() {
    echo "The window test can't make its Debian here: $1" >&2
    exit "$CANNOT"
}

# The first mirror in the machine's own package sources, in either of the two formats they are written in.
machine_mirror() {
    cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
        awk '/^URIs:/ { print $2; exit }
             /^deb / { for (i = 2; i <= NF; i++) if ($i ~ /^[a-z+]+:\//) { print $i; exit } }' || true # a format that the machine doesn't use is no error
}

target=$(readlink -m "${1:?usage: make_chroot.sh FOLDER}")
stamp="$SUITE $PACKAGES"
if [ -f "$target/.ready" ] && [ "$(cat "$target/.ready")" = "$stamp" ]; then
    exit 0
fi

[ "$(id -u)" -eq 0 ] || cannot "it takes root to make and enter one."
command -v apt-get >/dev/null || cannot "the machine has no apt-get."
unshare --mount --pid --fork true || cannot "the machine gives no private mounts."
if ! command -v mmdebstrap >/dev/null || [ ! -f "$KEYRING" ]; then
    echo "Installing mmdebstrap"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        mmdebstrap debian-archive-keyring; } >/dev/null || cannot "mmdebstrap could not be installed."
fi
mirror=${VIEWPORT_DIFFUSION_DEBIAN_MIRROR:-$(machine_mirror)}
[ -n "$mirror" ] || cannot "no package mirror is known; name one in VIEWPORT_DIFFUSION_DEBIAN_MIRROR."

options=()
# A machine that accepts an old mirror for itself wants the same inside.
case $(apt-config dump Acquire::Check-Valid-Until) in
*false*) options+=(--aptopt='Acquire::Check-Valid-Until "false"') ;;
esac

echo "Making a Debian $SUITE with Blender in $target (one to three minutes, 1.2 GB)"
rm -rf --one-file-system "$target"
mkdir -p "$(dirname "$target")"
mmdebstrap --mode=root --variant=apt --quiet "${options[@]}" \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
    --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include="$PACKAGES" "$SUITE" "$target" "deb [signed-by=$KEYRING] $mirror $SUITE main" ||
    cannot "the packages could not be fetched or installed."
ln -sf ../proc/self/mounts "$target/etc/mtab" # without it Blender complains that it can't list the mounts
mkdir -p "$target/host"
printf '%s' "$stamp" >"$target/.ready"
echo "Made: $(du -sm "$target" | cut -f1) MB"
