"""Install the system libraries that Blender needs to draw without a window, where any of them is missing (Debian)."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys

# Library → the Debian package that has it.
LIBRARIES = {
    "libX11.so.6": "libx11-6",
    "libXrender.so.1": "libxrender1",
    "libXfixes.so.3": "libxfixes3",
    "libXi.so.6": "libxi6",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libSM.so.6": "libsm6",
    "libICE.so.6": "libice6",
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libEGL_mesa.so.0": "libegl-mesa0",
    "libgbm.so.1": "libgbm1",
}
DRIVERS = "libgl1-mesa-dri"  # software rendering; always asked for together with the others


def is_missing(library: str) -> bool:
    """Whether the dynamic loader can't find a library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return True
    return False


def main() -> int:
    """Install what is missing, or say what to install; returns an exit code."""
    missing = [package for library, package in LIBRARIES.items() if is_missing(library)]
    if not missing:
        return 0
    packages = [*missing, DRIVERS]
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        print(f"Blender needs system libraries that are missing here. Run: sudo {' '.join(install)}", file=sys.stderr)
        return 1
    print(f"Installing what Blender needs to draw: {' '.join(packages)}")
    subprocess.run(["apt-get", "update", "-q"], check=True)
    subprocess.run(install, check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
