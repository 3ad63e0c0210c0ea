"""Why a worker died: its exit code and its last words, told as a sentence with a remedy."""

from __future__ import annotations

from pathlib import Path

AGAIN = "Generate again: the backend starts anew."
INSTALL = "Install the backend's packages there."
SMALLER = "Choose a smaller size and generate again."
LAST_LINES = 20  # of the last words that are looked at

# A piece of the last words → what to tell and what to do; {line} is what follows the error's name. The first that fits.
CAUSES = (
    ("No module named 'torch'", "The chosen Python has no torch.", INSTALL),
    ("No module named backend", "The extension's own files are incomplete.", "Install the extension again."),
    ("No module named", "The chosen Python lacks a package: {line}.", INSTALL),
    ("SyntaxError", "The chosen Python is too old for the backend.", "Choose Python 3.11 or newer."),
    ("No space left on device", "The disk is full.", "Make room and generate again."),
    ("no kernel image is available", "The graphics card is not one that the installed torch knows.", "Choose CPU."),
    ("CUDA driver", "The graphics driver does not fit the installed torch.", "Update the driver, or choose CPU."),
    ("NVIDIA driver", "The graphics driver does not fit the installed torch.", "Update the driver, or choose CPU."),
    ("libcuda", "The graphics driver is missing or damaged.", "Install the driver, or choose CPU."),
    ("out of memory", "The device ran out of memory.", SMALLER),
    ("not enough memory", "There was not enough memory.", SMALLER),
    ("can't allocate memory", "There was not enough memory.", SMALLER),
    ("failed to map segment", "There was not enough memory.", SMALLER),
    ("annot allocate memory", "There was not enough memory.", SMALLER),
    ("bad_alloc", "There was not enough memory.", SMALLER),
    ("MemoryError", "There was not enough memory.", SMALLER),
    ("paging file is too small", "There was not enough memory.", "Let Windows make its paging file larger."),
    ("DLL load failed", "A library of the chosen Python could not be loaded: {line}.", INSTALL),
    ("cannot open shared object file", "A system library is missing: {line}.", "Install it."),
    ("cannot import name", "Packages of the chosen Python do not fit together: {line}.", INSTALL),
    ("Permission denied", "The backend was denied access: {line}.", "Allow it, or choose another folder."),
)

# Exit codes that say it all → the same. POSIX says a signal as its negative number, a shell as 128 above it.
KILLED = "The backend's process was killed"
KILLED_FOR_MEMORY = (f"{KILLED}, perhaps because the machine ran out of memory.", SMALLER)
CRASHED = (
    "The backend's process crashed, as it does with a driver or packages that are damaged or do not fit.",
    f"{AGAIN} If it crashes again, update the graphics driver, or choose CPU.",
)
CODES = {
    -9: KILLED_FOR_MEMORY,
    137: KILLED_FOR_MEMORY,
    -4: ("The processor lacks instructions that the installed torch needs.", "Install a torch that fits it."),
    -7: ("The backend's process lost a file that it was reading, or the disk is full.", "Make room and try again."),
    -11: CRASHED,
    139: CRASHED,
    0xC0000005: CRASHED,  # Windows' access violation
    0xC000012D: KILLED_FOR_MEMORY,  # Windows' commitment limit
}


def cause_of_death(code: int, log: Path, *, greeted: bool = True) -> tuple[str, str]:
    """Return a sentence and a remedy for a worker that ended with that code, from its last words.

    greeted: whether it ever said hello; a program that leaves in peace without one is no Python.
    """
    words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    known = CODES.get(code if code < 0 else code & 0xFFFFFFFF)
    if known is KILLED_FOR_MEMORY:
        return known
    for sign, sentence, remedy in CAUSES:
        for line in reversed(words[-LAST_LINES:]):
            if sign in line:
                return sentence.format(line=(line.partition(": ")[2] or line).rstrip(".")), remedy
    if known is not None:
        return known
    if code < 0:
        return f"{KILLED} by signal {-code}.", AGAIN
    if not greeted and code == 0:
        return "The chosen program ended without a word: it is no Python.", "Choose the Python that has torch."
    last = words[-1].strip() if words else ""
    return f"The backend's process stopped (code {code}). {last}".strip(), f"{AGAIN} The whole story is in {log}."
