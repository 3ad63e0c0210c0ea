#!/bin/bash
# enter.sh CHROOT FOLDER... -- COMMAND...: run a command in the chroot, with each FOLDER at its own path inside.
#
# The host's root is at /host inside, so that a script there can run the host's Python on the same files. Mounts and
# processes live in namespaces of their own: both are gone when the command ends, however it ends.
set -euo pipefail

export CHROOT=$1
shift

exec unshare --mount --propagation private --pid --fork --kill-child bash -c '
    set -euo pipefail
    mkdir -p "$CHROOT/host"
    mount --rbind / "$CHROOT/host"
    mount -t proc proc "$CHROOT/proc"
    mount --rbind /dev "$CHROOT/dev"
    while [ "$1" != -- ]; do
        mkdir -p "$CHROOT$1"
        mount --rbind "$1" "$CHROOT$1"
        shift
    done
    shift
    exec chroot "$CHROOT" env -i PATH=/usr/bin:/bin HOME=/root LANG=C.UTF-8 LIBGL_ALWAYS_SOFTWARE=1 "$@"
' bash "$@"
