"""What the last words of pip, uv and Python mean: a sentence on what is wrong, and one on what to do."""

from __future__ import annotations

import re

TAIL = 200  # lines of the log that are searched
KILLED = (-9, 137)
ILLEGAL_INSTRUCTION = (-4, 132, -1073741795, 3221225501)  # the latter two are Windows' STATUS_ILLEGAL_INSTRUCTION

AGAIN = "press Resume: what was fetched is kept."

# A pattern of the log → a sentence, a remedy. The first that is found counts: the particular before the general, for
# a network that fails ends in pip's "no matching distribution" as well. {0} is the pattern's first group.
CAUSES = (
    (
        r"No space left on device|Errno 28\b|os error 28\b|WinError 112\b|not enough space on the disk|quota exceeded",
        "The disk is full.",
        f"Make room, and {AGAIN}",
    ),
    (
        r"DO NOT MATCH THE HASHES|Hash mismatch for",
        "A package that was fetched is not the one that its index promises.",
        f"A broken connection or a proxy may have changed it: {AGAIN}",
    ),
    (
        r"ProxyError|Cannot connect to proxy|407 Proxy Authentication|proxy authentication required|tunnel error|"
        r"unsuccessful tunnel",
        "The proxy did not let the installation through.",
        f"Set HTTPS_PROXY to the right address and start Blender again, then {AGAIN}",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError|SSLError|invalid peer certificate|UnknownIssuer",
        "The server's certificate is not trusted.",
        f"Check the clock; behind a company's proxy set SSL_CERT_FILE and PIP_CERT to its certificate, then {AGAIN}",
    ),
    (
        r"\b401 (?:Client )?Error|\b403 (?:Client )?Error|401 Unauthorized|403 Forbidden|status code 40[13]",
        "The index asks for a name and a password, or refuses them.",
        "Check the Extra Index and pip's own settings.",
    ),
    (
        r"Temporary failure in name resolution|Name or service not known|getaddrinfo failed|nodename nor servname|"
        r"Failed to establish a new connection|Network is unreachable|Connection refused|Connection reset|"
        r"Read timed out|ConnectTimeoutError|ReadTimeoutError|IncompleteRead|Connection broken|RemoteDisconnected|"
        r"dns error|error sending request|Request failed after|operation timed out|Failed to fetch",
        "The package index could not be reached.",
        f"Check the connection to the internet, and {AGAIN}",
    ),
    (
        r"ensurepip is not available|No module named '?(?:ensurepip|venv|pip)\b|No module named pip",
        "The Python that was found can't make environments: its packages venv and ensurepip are missing.",
        "On Debian and Ubuntu install python3-venv, or install uv; then install again.",
    ),
    (
        r"Long Path support|filename or extension is too long|WinError 206\b|File name too long",
        "The folder of the extension is too deep for this system.",
        "Switch on long paths in Windows, and install again.",
    ),
    (
        r"WinError 32\b|being used by another process",
        "Another program has a file of the environment open.",
        "Close it, perhaps a virus scanner or a second Blender, and press Resume.",
    ),
    (
        r"Permission denied|Errno 13\b|os error 13\b|WinError 5\b|Access is denied|Read-only file system|"
        r"Operation not permitted",
        "The extension's folder can't be written to, or a file there may not be run.",
        "Allow it in the folder's permissions or in the virus scanner, and press Resume.",
    ),
    (
        r"MemoryError|out of memory|Cannot allocate memory",
        "There was not enough memory.",
        f"Close other programs, and {AGAIN}",
    ),
    (
        r"requirement (\S+) \(from versions: none\)",
        "The index could not be reached, or has no {0} for this Python on this system.",
        f"Check the connection, the Extra Index and the folder of wheels, and {AGAIN}",
    ),
    (
        r"No matching distribution found for (\S+)|satisfies the requirement (\S+)|Because (?:there is no version of )?"
        r"(\S+?) (?:has no wheels|was not found|and you require)|has no wheels with a matching|No solution found",
        "The package {0} doesn't exist for this Python on this system, or the index doesn't have it.",
        "Choose a 64-bit Python 3.11 or 3.12, and check the Extra Index or the folder of wheels.",
    ),
    (
        r"No interpreter found|No download found",
        "No Python 3.11 could be found or fetched.",
        "Install Python 3.11, and install again.",
    ),
    (
        r"GLIBC_\S+' not found|GLIBCXX_\S+' not found",
        "This system is too old for torch.",
        "Choose an interpreter with an older torch of your own.",
    ),
    (
        r"DLL load failed|WinError 126\b|WinError 1114\b",
        "A library that torch needs is missing on this system.",
        "Install Microsoft's Visual C++ Redistributable, and press Resume.",
    ),
    (
        r"ModuleNotFoundError: No module named '([^']+)'",
        "The package {0} is missing after the installation.",
        "Press Resume; if it happens again, copy the log.",
    ),
)


def explain(code: int, lines: list[str]) -> tuple[str, str]:
    """Return a sentence and a remedy for a command that ended with that code after those last words."""
    if code in KILLED:
        return "The installation was killed, perhaps for lack of memory.", f"Close other programs, and {AGAIN}"
    if code in ILLEGAL_INSTRUCTION:
        return "This processor is too old for torch.", "Choose an interpreter with an older torch of your own."
    tail = "\n".join(lines[-TAIL:])
    for pattern, sentence, remedy in CAUSES:
        match = re.search(pattern, tail, re.IGNORECASE)
        if match:
            name = next((group for group in match.groups() if group), "that is needed")
            return sentence.format(name.rstrip(".,;:")), remedy
    if code < 0:
        return f"The installation was ended by signal {-code}.", f"Then {AGAIN}".replace("Then p", "P")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"The installation stopped (code {code}). {last}".strip(), "Copy the log: it has the whole story."
