"""The backend's own environment: made for real from small wheels, and every fault of pip, uv and Python explained."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from backend.errors import BackendError
from backend.install import detect, environments, installer, interpreters, plan
from backend.install.child import Child
from backend.install.commands import clean_environment
from backend.install.detect import Accelerator
from backend.install.installer import install, remove
from backend.install.plan import Plan
from backend.install.report import Report
from backend.install.steps import Steps, bytes_below

PATIENCE = 60.0  # seconds


def wheel(folder: Path, name: str, version: str) -> Path:
    """Write the smallest wheel there can be: one module that knows its version."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.py", f"__version__ = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return file


def tiny_plan(tmp_path: Path, pins: str = "grain==1.0", modules: tuple[str, ...] = ("grain",)) -> Plan:
    """Return a plan of small packages, from the Python that runs the tests, below an empty folder."""
    file = tmp_path / "requirements.txt"
    file.write_text(pins + "\n")
    return Plan(
        str(tmp_path / "python"), (str(file),), (), python=sys.executable, own_python=sys.executable, modules=modules
    )


def run(chosen: Plan) -> list[Report]:
    """Install in this process and return every report."""
    reports: list[Report] = []
    install(chosen, reports.append, lambda: False)
    return reports


@pytest.fixture(autouse=True)
def only_what_the_test_offers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without uv and without settings of pip; the folder of its programs is returned."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_")) or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(interpreters, "EXTRA_PLACES", ())
    return programs


def test_installs_from_wheels_updates_beside_rolls_back_and_removes_only_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PYTHONPATH": "/nowhere", "PIP_TARGET": str(tmp_path / "astray"), "PIP_USER": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "1")
    wheels = tmp_path / "wheels"
    wheel(wheels, "grain", "1.0")
    first = replace(tiny_plan(tmp_path), wheels=str(wheels))
    root = Path(first.root)
    reports = run(first)
    assert reports[-1].kind == "finished", reports[-1]
    assert reports[-1].versions["grain"] == "1.0"
    assert [report.progress for report in reports] == sorted(report.progress for report in reports)
    one = environments.current(root)
    assert one is not None and one.is_whole and one.name == "v1" and not environments.incomplete(root)
    asked = subprocess.run([one.python, "-c", "import grain; print(grain.__file__)"], capture_output=True, text=True)
    assert Path(asked.stdout.strip()).is_relative_to(root / "v1")
    assert not (tmp_path / "astray").exists()
    assert not (root / "cache").exists() and not (root / "temp").exists()
    assert "Successfully installed grain-1.0" in (root / environments.LOG).read_text()

    # An update that fails leaves the version in use as it was.
    second = replace(tiny_plan(tmp_path, "grain==2.0"), wheels=str(wheels))
    failed = run(second)[-1]
    assert failed.kind == "failed" and "grain==2.0" in failed.message and "folder of wheels" in failed.remedy
    assert environments.current(root) == one and environments.incomplete(root) == "v2" and one.is_whole

    wheel(wheels, "grain", "2.0")
    assert run(second)[-1].versions["grain"] == "2.0"
    two = environments.current(root)
    assert two is not None and two.name == "v2" and two.digest != one.digest
    assert one.is_whole, "the version before stays until it is pruned"
    remove(root, reports.append, everything=False)
    assert not one.is_whole and two.is_whole and reports[-1].kind == "finished"

    (root / "mine.txt").write_text("the artist's own")
    remove(root, reports.append, everything=True)
    assert reports[-1].kind == "finished"
    assert [path.name for path in root.iterdir()] == ["mine.txt"]


class _Index(http.server.BaseHTTPRequestHandler):
    """A package index over HTTP: a page of links a package, and the files; a file can be held back."""

    files: Path
    asked: ClassVar[list[str]]
    held: str = ""
    go_on: threading.Event
    wrong_hash: bool = False

    def do_GET(self) -> None:
        name = self.path.strip("/").partition("?")[0]
        if name.endswith(".whl"):
            self.asked.append(name)
            content, kind = (self.files / name).read_bytes(), "application/octet-stream"
        else:
            links = []
            for file in self.files.glob(f"{name}-*.whl"):
                value = hashlib.sha256(b"" if self.wrong_hash else file.read_bytes()).hexdigest()
                links.append(f'<a href="/{file.name}#sha256={value}">{file.name}</a>')
            content, kind = "".join(links).encode(), "text/html"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if name == self.held:
            self.wfile.write(content[:10])
            self.go_on.wait(PATIENCE)
        else:
            self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Index]]:
    """An index of two small packages on this machine, which pip is set to."""

    class Handler(_Index):
        files = tmp_path / "served"
        asked: ClassVar[list[str]] = []
        go_on = threading.Event()

    wheel(Handler.files, "grain", "1.0")
    wheel(Handler.files, "husk", "1.0")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}")
    yield Handler
    Handler.go_on.set()
    server.shutdown()


def follow(child: Child, until: str = "") -> Report:
    """Poll a child until its last report, or until one whose message has that in it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for report in child.poll():
            if report.is_last or (until and until in report.message):
                return report
        time.sleep(0.02)
    raise TimeoutError


def test_killed_half_way_is_incomplete_and_resumes_without_fetching_twice(tmp_path: Path, index: type[_Index]) -> None:
    chosen = tiny_plan(tmp_path, "grain==1.0\nhusk==1.0", ("grain", "husk"))
    root = Path(chosen.root)
    index.held = "husk-1.0-py3-none-any.whl"
    child = Child("install", chosen)
    assert follow(child, "Fetching husk").kind == "progress"
    child._child.process.kill()
    died = follow(child)
    assert died.kind == "failed" and "killed" in died.message and "Resume" in died.remedy
    assert environments.incomplete(root) == "v1" and environments.current(root) is None
    index.held = ""
    index.go_on.set()
    index.asked.clear()
    resumed = follow(Child("install", chosen))
    assert resumed.kind == "finished" and resumed.versions["husk"] == "1.0", resumed
    assert index.asked == ["husk-1.0-py3-none-any.whl"], "grain was there already"
    assert environments.incomplete(root) == "" and environments.current(root) is not None


@pytest.mark.parametrize("change", ["pin", "index", "python"])
def test_what_was_fetched_for_another_purpose_is_not_forced_on_this_one(tmp_path: Path, change: str) -> None:
    root = tmp_path / "root"
    environments.claim(root)
    wanted = {"pin": "1.0", "index": "", "python": "3.11"}
    environments.begin(root, str(wanted))
    kept = root / "cache" / environments.WHEELS / "grain-1.0-py3-none-any.whl"
    kept.parent.mkdir()
    with zipfile.ZipFile(kept, "w") as wheel:
        wheel.writestr("grain.py", "")
    environments.begin(root, str(wanted))
    assert environments.kept_wheels(root), "the same is gone on with"
    environments.begin(root, str(wanted | {change: "other"}))
    assert not kept.exists() and environments.kept_wheels(root) == []


def test_a_package_that_is_not_what_the_index_promises_is_refused(tmp_path: Path, index: type[_Index]) -> None:
    index.wrong_hash = True
    report = run(tiny_plan(tmp_path))[-1]
    assert report.kind == "failed" and "not the one that its index promises" in report.message


def test_no_network_is_one_sentence_and_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    report = run(tiny_plan(tmp_path))[-1]
    assert report.kind == "failed" and "could not be reached" in report.message and "Resume" in report.remedy


STUB = """#!{real}
import json, os, pathlib, shutil, signal, sys, time
stage, words, code, version, has_pip = json.loads({fault!r})
arguments = sys.argv[1:]
if "-c" in arguments:
    answer = {{"version": version, "wide": True, "free": False, "pip": has_pip, "path": sys.argv[0]}}
    print(json.dumps(answer))
    sys.exit()
here = next((name for name in ("venv", "pip", "backend.install.verify") if name in arguments), "")
if here == "venv":
    folder = pathlib.Path(arguments[-1])
    (folder / "bin").mkdir(parents=True)
    shutil.copy(sys.argv[0], folder / "bin" / "python")
if here == stage:
    print(words, flush=True)
    if code == "sleep":
        time.sleep(3)
    elif code < 0:
        os.kill(os.getpid(), -code)
    else:
        sys.exit(code)
if here == "backend.install.verify":
    print('VERIFIED {{"python": "3.11.9"}}')
"""


def stub(
    file: Path,
    stage: str = "",
    words: str = "",
    code: int | str = 1,
    version: tuple[int, int] = (3, 11),
    has_pip: bool = True,
) -> Path:
    """Write an interpreter that does nothing well but one thing: at a stage it says its words and ends with a code."""
    fault = json.dumps([stage, words, code, version, has_pip])
    file.write_text(STUB.format(real=sys.executable, fault=fault))
    file.chmod(0o755)
    return file


URL = "/simple/torch/"
NO_VERSION = "ERROR: No matching distribution found for torch==2.13.0"
FAULTS = {
    "disk full": (
        "pip",
        "ERROR: [Errno 28] No space left on device",
        1,
        "disk is full",
        "Make room",
    ),
    "quota": ("venv", "OSError: [Errno 122] Disk quota exceeded", 1, "disk is full", "Make room"),
    "name": (
        "pip",
        f"WARNING: Retrying: Temporary failure in name resolution: {URL}\n{NO_VERSION}",
        1,
        "could not be reached",
        "connection",
    ),
    "uv network": ("pip", "error: Failed to fetch\n  cause: dns error", 2, "could not be reached", "connection"),
    "broke off": (
        "pip",
        "IncompleteRead(5 bytes read, 9 more expected), Connection broken",
        2,
        "could not be reached",
        "Resume",
    ),
    "proxy": (
        "pip",
        f"ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 407')): {URL}\n{NO_VERSION}",
        1,
        "proxy",
        "HTTPS_PROXY",
    ),
    "certificate": (
        "pip",
        f"SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]')): {URL}\n{NO_VERSION}",
        1,
        "certificate",
        "SSL_CERT_FILE",
    ),
    "uv certificate": ("pip", "cause: invalid peer certificate: UnknownIssuer", 2, "certificate", "clock"),
    "password": ("pip", "ERROR: HTTP error 401 Client Error: Unauthorized for url", 1, "password", "Extra Index"),
    "hashes": (
        "pip",
        "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE",
        1,
        "index promises",
        "Resume",
    ),
    "permission": ("pip", "ERROR: [Errno 13] Permission denied: 'x'", 1, "can't be written", "permissions"),
    "read-only": ("venv", "OSError: [Errno 30] Read-only file system", 1, "can't be written", "permissions"),
    "virus scanner": (
        "pip",
        "[WinError 32] being used by another process",
        1,
        "open",
        "virus scanner",
    ),
    "Debian": (
        "venv",
        "The virtual environment was not created successfully because ensurepip is not available.",
        1,
        "venv and ensurepip",
        "python3-venv",
    ),
    "no pip": ("pip", "/x/python: No module named pip", 1, "ensurepip", "python3-venv"),
    "no wheel": ("pip", f"{NO_VERSION}", 1, "torch==2.13.0 doesn't exist", "3.11 or 3.12"),
    "none": (
        "pip",
        f"ERROR: Could not find: satisfies the requirement torch==2.13.0 (from versions: none)\n{NO_VERSION}",
        1,
        "could not be reached, or has no torch==2.13.0",
        "folder of wheels",
    ),
    "uv no wheel": (
        "pip",
        "  × No solution found when resolving dependencies:\n  Because torch==2.13.0 has no wheels with a matching tag",
        1,
        "doesn't exist for this Python",
        "3.11 or 3.12",
    ),
    "long path": (
        "pip",
        "HINT: no Windows Long Path support enabled",
        1,
        "too deep",
        "long paths",
    ),
    "memory": ("pip", "MemoryError", 1, "memory", "Close other programs"),
    "killed": ("pip", "Installing collected packages: torch", -9, "killed", "Resume"),
    "ended": ("pip", "", -15, "signal 15", "Resume"),
    "old processor": ("backend.install.verify", "", -4, "too old for torch", "older torch"),
    "old system": (
        "backend.install.verify",
        "ImportError: /lib/libm.so.6: version `GLIBC_2.28' not found",
        1,
        "too old for torch",
        "older torch",
    ),
    "Visual C++": (
        "backend.install.verify",
        "OSError: [WinError 126] DLL load failed: c10.dll",
        1,
        "library that torch needs",
        "Visual C++",
    ),
    "missing": (
        "backend.install.verify",
        "ModuleNotFoundError: No module named 'diffusers'",
        1,
        "diffusers is missing",
        "Resume",
    ),
    "unknown": ("pip", "something never seen", 7, "code 7). something never seen", "Copy the log"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_becomes_a_sentence_and_a_remedy_and_leaves_it_incomplete(tmp_path: Path, name: str) -> None:
    stage, words, code, sentence, remedy = FAULTS[name]
    chosen = replace(tiny_plan(tmp_path), python=str(stub(tmp_path / "python3.11", stage, words, code)))
    report = run(chosen)[-1]
    assert report.kind == "failed"
    assert sentence in report.message and remedy in report.remedy, report
    root = Path(chosen.root)
    assert environments.current(root) is None and environments.incomplete(root) == "v1"
    assert report.message in (root / environments.LOG).read_text()


def test_without_a_fault_the_stub_is_installed(tmp_path: Path) -> None:
    chosen = replace(tiny_plan(tmp_path), python=str(stub(tmp_path / "python3.11")))
    assert run(chosen)[-1].kind == "finished"


def test_cancel_and_the_parents_end_stop_pip_and_leave_it_incomplete(tmp_path: Path) -> None:
    python = stub(tmp_path / "python3.11", "pip", "Collecting torch", "sleep")
    chosen = replace(tiny_plan(tmp_path), python=str(python))
    child = Child("install", chosen)
    follow(child, "Looking for torch")
    child.cancel()
    assert follow(child).kind == "cancelled"
    assert not environments.is_locked(Path(chosen.root)), "pip has ended"
    child = Child("install", chosen)
    follow(child, "Looking for torch")
    child.close()  # as when Blender ends: the input of the process ends
    assert not environments.is_locked(Path(chosen.root))
    assert environments.incomplete(Path(chosen.root)) == "v1"


def test_resume_waits_for_what_a_killed_installation_has_left_at_work(tmp_path: Path) -> None:
    python = stub(tmp_path / "python3.11", "pip", "Collecting torch", "sleep")
    chosen = replace(tiny_plan(tmp_path), python=str(python))
    child = Child("install", chosen)
    follow(child, "Looking for torch")
    child._child.process.kill()
    follow(child)
    assert environments.is_locked(Path(chosen.root)), "pip is still at work"
    again = Child("install", replace(chosen, python=str(stub(tmp_path / "whole"))))
    assert "Waiting" in follow(again, "Waiting").message
    assert follow(again).kind == "finished"


def test_a_killed_installer_is_told_with_the_last_words_of_python(tmp_path: Path) -> None:
    chosen = replace(tiny_plan(tmp_path), own_python=str(tmp_path / "no such python"))
    with pytest.raises(BackendError, match="could not be started"):
        Child("install", chosen)


def test_links_and_foreign_files_are_refused_and_never_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    chosen = tiny_plan(tmp_path)
    root = Path(chosen.root)
    root.symlink_to(elsewhere, target_is_directory=True)
    assert "is a link" in run(chosen)[-1].message
    reports: list[Report] = []
    remove(root, reports.append, everything=True)
    assert reports[-1].kind == "failed"
    root.unlink()

    root.mkdir()
    (root / "holiday.png").write_text("x")
    assert "holds other files" in run(chosen)[-1].message
    remove(root, reports.append, everything=True)
    assert reports[-1].kind == "failed" and (root / "holiday.png").exists()
    (root / "holiday.png").unlink()

    environments.claim(root)
    for name in ("v3", "cache", environments.LOG):
        (root / name).symlink_to(elsewhere)
    assert "is a link" in run(chosen)[-1].message
    (root / environments.CURRENT).write_text(json.dumps({"name": "v3", "versions": {}, "digest": ""}))
    assert environments.current(root) is None
    (root / environments.CURRENT).write_text(json.dumps({"name": "../../etc", "versions": {}, "digest": ""}))
    assert environments.current(root) is None
    environments.uninstall(root)
    assert not root.exists() and (elsewhere / "precious").read_text() == "x"


def test_offline_nothing_of_pips_and_uvs_settings_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "x")
    monkeypatch.setenv("UV_PYTHON", "x")
    monkeypatch.setenv("PYTHONHOME", "x")
    online = clean_environment(tmp_path, offline=False)
    assert online["PIP_INDEX_URL"] == "x" and "UV_PYTHON" not in online and "PYTHONHOME" not in online
    offline = clean_environment(tmp_path, offline=True)
    assert "PIP_INDEX_URL" not in offline and offline["PIP_CONFIG_FILE"] == os.devnull
    assert offline["UV_PYTHON_DOWNLOADS"] == "never"
    for name in ("PIP_CACHE_DIR", "UV_CACHE_DIR", "UV_PYTHON_INSTALL_DIR", "TMPDIR"):
        assert Path(online[name]).parent == tmp_path


def test_extra_index_reaches_pip_and_its_password_stays_out_of_log_and_command_line(
    tmp_path: Path, index: type[_Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = os.environ["PIP_INDEX_URL"]
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    extra = address.replace("http://", "http://artist:hidden@")
    chosen = replace(tiny_plan(tmp_path), extra_index=extra)
    last = run(chosen)[-1]
    assert last.kind == "finished", last
    assert "hidden" not in (Path(chosen.root) / environments.LOG).read_text()


def test_index_file_is_for_this_user_alone(tmp_path: Path) -> None:
    (tmp_path / "temp").mkdir()
    flags = installer._source(replace(tiny_plan(tmp_path), extra_index="https://a:b@c/simple"), tmp_path)
    assert flags[0] == "-r" and stat.S_IMODE(Path(flags[1]).stat().st_mode) == 0o600


@pytest.mark.parametrize("index_address", ["--target=/", "ftp://x", "https://x y", "https://x\n-r /etc/passwd"])
def test_an_extra_index_that_is_no_address_is_refused(tmp_path: Path, index_address: str) -> None:
    assert "not an address" in run(replace(tiny_plan(tmp_path), extra_index=index_address))[-1].message


def test_a_folder_without_wheels_is_refused(tmp_path: Path) -> None:
    assert "no wheels" in run(replace(tiny_plan(tmp_path), wheels=str(tmp_path)))[-1].message


def test_too_small_a_disk_is_told_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plan.SIZES, "rocm", plan.Size(1e6, 1e6))
    report = run(replace(tiny_plan(tmp_path), build="rocm"))[-1]
    assert "2000000.0 GB" in report.message and "Make room" in report.remedy
    assert not environments.incomplete(tmp_path / "python")


def test_interpreter_is_chosen_by_what_the_machine_has(only_what_the_test_offers: Path) -> None:
    programs = only_what_the_test_offers
    path = str(programs)
    with pytest.raises(BackendError, match=r"No Python 3\.11 or 3\.12"):
        interpreters.choose(path=path)
    own = str(stub(programs / "blender-python", version=(3, 13)))
    assert interpreters.choose(own=own, path=path) == interpreters.Base("3.11", bootstrap=own)
    with pytest.raises(BackendError, match=r"No Python"):
        interpreters.choose(own=own, offline=True, path=path)
    own = str(stub(programs / "blender-python", version=(3, 11)))
    assert interpreters.choose(own=own, path=path) == interpreters.Base(own)
    debian = str(stub(programs / "python3.11", has_pip=False))
    assert interpreters.choose(own=own, path=path) == interpreters.Base(own), "Debian's lacks ensurepip"
    with pytest.raises(BackendError, match="venv and ensurepip are missing"):
        interpreters.choose(path=path)
    twelve = str(stub(programs / "python3.12", version=(3, 12)))
    assert interpreters.choose(own=own, path=path) == interpreters.Base(twelve)
    uv = str(stub(programs / "uv"))
    assert interpreters.choose(own=own, path=path) == interpreters.Base(debian, uv), "uv needs no ensurepip"
    for name in ("python3.11", "python3.12"):
        (programs / name).unlink()
    assert interpreters.choose(path=path) == interpreters.Base("3.11", uv)


def test_a_chosen_interpreter_that_can_not_serve_is_refused(only_what_the_test_offers: Path) -> None:
    programs = only_what_the_test_offers
    broken = programs / "broken"
    broken.write_text("no program")
    for file, sentence in (
        (broken, "is no Python"),
        (stub(programs / "old", version=(3, 9)), r"is Python 3\.9"),
        (stub(programs / "debian", has_pip=False), "ensurepip"),
    ):
        with pytest.raises(BackendError, match=sentence):
            interpreters.choose(str(file), path=str(programs))


def test_hardware_is_found_by_files_and_tools(tmp_path: Path, only_what_the_test_offers: Path) -> None:
    sysfs, path = tmp_path / "sys", str(only_what_the_test_offers)
    assert detect.look("Linux", sysfs, path) == []
    for number, (vendor, driver) in enumerate((("0x1002", "amdgpu"), ("0x8086", "xe"))):
        device = sysfs / "class" / "drm" / f"card{number}" / "device"
        device.mkdir(parents=True)
        (device / "vendor").write_text(vendor + "\n")
        (sysfs / "drivers" / driver).mkdir(parents=True)
        (device / "driver").symlink_to(sysfs / "drivers" / driver)
    assert [found.kind for found in detect.look("Linux", sysfs, path)] == ["rocm", "xpu"]
    tool = only_what_the_test_offers / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 4070'\n")
    tool.chmod(0o755)
    assert detect.look("Linux", sysfs, path)[0] == Accelerator("cuda", "NVIDIA GeForce RTX 4070")
    tool.write_text("#!/bin/sh\necho 'failed to talk to the driver'; exit 9\n")
    assert [found.kind for found in detect.look("Linux", sysfs, path)] == ["rocm", "xpu"]


def test_which_build_fits_is_said_in_words() -> None:
    nvidia, amd = [Accelerator("cuda", "RTX")], [Accelerator("rocm", "Radeon")]
    assert "uses it" in detect.fitting(nvidia, "Linux")
    assert "Extra Index for CUDA" in detect.fitting(nvidia, "Windows")
    assert "Extra Index for ROCm" in detect.fitting(amd, "Linux")
    assert "Extra Index for CPU" in detect.fitting([], "Linux")
    assert detect.planned_build(nvidia, "", "Linux") == "cuda"
    assert detect.planned_build(nvidia, "", "Windows") == "cpu"
    assert detect.planned_build([], "https://x/whl/cpu", "Linux") == "cpu"
    assert detect.planned_build(amd, "https://x/whl/rocm7.1/", "Linux") == "rocm"
    assert detect.planned_build(nvidia, "https://x/whl/cu130", "Windows") == "cuda"


def test_folders_that_vanish_while_bytes_are_counted_count_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "temp/x", "z"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_bytes(bytes(10))
    scandir = os.scandir

    def scandir_late(folder: str | Path) -> Any:
        if Path(folder).name == "x":
            Path(folder).rename(tmp_path.with_name("gone"))  # as pip's temporary folders do
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", scandir_late)
    assert bytes_below(tmp_path) == 20
    assert not (tmp_path / "temp/x").exists()


def test_steps_follow_the_bytes_and_name_what_is_whole() -> None:
    steps = Steps(2, 200e6)
    seen = []
    for line in (
        "Collecting torch==2.13.0 (from -r x (line 1))",
        "  Downloading https://x/torch-2.13.0%2Bcpu-cp311-cp311-linux.whl (180.0 MB)",
        "Progress 90000000 of 180000000",
        "Collecting numpy==1.26.4",
        "  Downloading numpy-1.26.4-cp311-cp311-linux.whl (18.0 MB)",
        "Installing collected packages: numpy, torch",
    ):
        steps.hear(line)
        seen.append(steps.progress)
    assert seen == pytest.approx([0.2, 0.2, 0.36, 0.72, 0.72, 0.8])
    assert steps.complete == ["torch-2.13.0+cpu-cp311-cp311-linux.whl", "numpy-1.26.4-cp311-cp311-linux.whl"]
    steps.measure(0, 1)
    assert steps.progress == pytest.approx(0.9)


def test_every_pin_is_exact_and_plan_survives_the_wire() -> None:
    for file in (*plan.REQUIREMENTS, *plan.ALONE, plan.UV_REQUIREMENTS):
        lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
        assert len(plan.pins((str(file),))) == len(lines) > 0
    chosen = Plan("/x", extra_index="y")
    assert Plan.from_wire(json.loads(json.dumps(chosen.to_wire()))) == chosen
    with pytest.raises(BackendError):
        Plan.from_wire({})
