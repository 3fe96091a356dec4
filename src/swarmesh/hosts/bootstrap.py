"""The program that runs on another host before Swarmesh is there: looks, installs, and starts what was installed.

It is sent as text each time (see `swarmesh.hosts.remote_command`) and runs under whatever Python 3.11 or newer the host
has; so it is one file and imports nothing but the standard library. It reads one line of JSON, its order, from standard
input; what follows there is the order's business. It answers in lines of JSON: ``{"step": ...}`` on the way, at the end
``{"done": ...}`` or ``{"error": ...}``.

Everything it puts on the host lies in ``~/.swarmesh``: ``envs/DIGEST`` is one version of the software, whole when it
has a ``.ready``; ``hives/HIVE`` belongs to the workers of one hive; ``bin`` has the commands to type there. It is built
in its final place, for environments cannot be moved, and one process at a time changes anything: the lock passes to
pip, so that a pip whose parent died is waited for as well.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import RawIOBase
from pathlib import Path
from typing import Any, Final

MIB: Final = 1024 * 1024
ENV_MIB: Final = 256
"""What an environment needs, with room to spare: the whole of a home took 172 MiB on Linux x86-64."""
DOWNLOADS_MIB: Final = 64
"""What the wheels need until they are installed when the host fetches them itself: they took 48 MiB."""
CHUNK_BYTES: Final = 256 * 1024
REGISTRY_TRY_LIMIT_S: Final = 15
"""A registry that has not sent one small file by then counts as out of reach."""
PIP_LIMIT_S: Final = 1800
CHECK_LIMIT_S: Final = 60
LOCK_LIMIT_S: Final = 1800
LOCK_POLL_S: Final = 0.2
WAITING_TOLD_S: Final = 10.0
"""So often a wait for another process is told: the queen gives up what says nothing for too long."""
START_TOLERANCE_S: Final = 2.0
"""As in `swarmesh.hosts.process_identity`."""
PIP_LINES_KEPT: Final = 40
PIP_LINES_TOLD: Final = 4
PATHS: Final = ("/usr/local/bin", "/opt/homebrew/bin", "/usr/bin")
KEPT_VARIABLES: Final = re.compile(
    r"(HOME|USER|LOGNAME|SHELL|PATH|TZ|TMPDIR|LANG|LC_\w+|XDG_\w+|LD_LIBRARY_PATH|DYLD_\w+|SSL_CERT_\w+|OLLAMA_MODELS"
    r"|(CUDA|NVIDIA|HIP|ROCR|ROCM|HSA|GGML|LLAMA|OMP|HF)_\w+|(?i:https?|all|no)_proxy)\Z"
)
"""What a session keeps of its login's environment: no session outlives the agent socket of the ssh that began it."""
NO_SPACE: Final = re.compile(r"No space left on device|Disk quota exceeded")
NO_WHEEL: Final = re.compile(r"No matching distribution found for ([\w.-]+)|(\S+) is not a supported wheel")
SOFTWARE: Final = "SWARMESH_SOFTWARE"
"""Tells a session which version it is, as `swarmesh.remote.session` says it in its hello."""
IMPORTS: Final = "import swarmesh, apsw, httptools, msgspec, psutil, uvloop"
COMMANDS: Final = ("swarmesh", "llorch-pool")
MODELS: Final = ("models", "models.json")
HOST_NAME: Final = "host.name"
"""As `swarmesh.config.home.Home.host_name_file` has it."""
Json = dict[str, Any]


class HostError(Exception):
    """What went wrong, as the queen will show it."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.body = {"code": code, "message": message, "hint": hint}


class QueenGoneError(Exception):
    """Nobody reads what is said."""


def say(kind: str, what: Json) -> None:
    """One line to the queen.

    Raises:
        QueenGoneError: She does not listen any more.
    """
    try:
        os.write(1, json.dumps({kind: what}).encode() + b"\n")
    except ConnectionError as error:
        raise QueenGoneError from error


def step(name: str, text: str = "", *, done: bool = False) -> None:
    """Tell how far it is; with nobody to tell it to, what was begun ends here."""
    say("step", {"step": name, "state": "done" if done else "running", "text": text})


def check_heard() -> None:
    """See that the queen still reads, without a word.

    Raises:
        QueenGoneError: She does not.
    """
    poll = select.poll()
    poll.register(1, 0)  # An end that was closed is told unasked.
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        raise QueenGoneError


class Place:
    """Where things lie on this host."""

    def __init__(self) -> None:
        self.user_home = Path.home()
        self.root = self.user_home / ".swarmesh"
        self.envs, self.hives, self.bin = self.root / "envs", self.root / "hives", self.root / "bin"
        self.incoming = self.root / "incoming"

    def env(self, digest: str) -> Path:
        """One version of the software."""
        return self.envs / _word(digest)

    def python(self, digest: str) -> Path:
        """What runs it."""
        return self.env(digest) / "bin" / "python"

    def hive(self, hive: str) -> Path:
        """The home of one hive's workers."""
        return self.hives / _word(hive)

    def ready(self, digest: str) -> bool:
        """Whether it was installed to the end, and with the Python that is behind its name now."""
        try:
            return (self.env(digest) / ".ready").read_text() == str(self.python(digest).resolve(strict=True))
        except OSError:
            return False

    def newest(self) -> str:
        """The version that was installed last; empty when none is whole."""
        ready = [env for env in self.envs.glob("*") if self.ready(env.name)]
        return max(ready, key=lambda env: (env / ".ready").stat().st_mtime).name if ready else ""

    def starts(self, digest: str) -> bool:
        """Whether it is installed and can be imported."""
        return self.ready(digest) and run_python(self.python(digest), IMPORTS)[0] == 0

    @contextlib.contextmanager
    def locked(self, waiting: Callable[[], None]) -> Iterator[int]:
        """Keep every other process from changing anything here; ``waiting`` is called while one still does."""
        until = time.monotonic() + LOCK_LIMIT_S
        told_s = time.monotonic()
        while True:
            self.root.mkdir(mode=0o700, exist_ok=True)
            self.root.chmod(0o700)
            handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if self._try_lock(handle):
                    try:
                        yield handle
                    finally:
                        self._remove_bare()
                    return
            finally:
                os.close(handle)
            if time.monotonic() > until:
                raise HostError("host_install_failed", f"another process has been changing {self.root} for too long")
            if time.monotonic() > told_s + WAITING_TOLD_S:
                waiting()
                told_s = time.monotonic()
            time.sleep(LOCK_POLL_S)

    def _remove_bare(self) -> None:
        """Leave no empty directories where nothing was installed, or nothing is any more."""
        with contextlib.suppress(OSError):
            self.envs.rmdir()
        with contextlib.suppress(OSError):
            if {path.name for path in self.root.iterdir()} <= {".lock"}:
                _remove(self.root / ".lock")
                self.root.rmdir()

    def _try_lock(self, handle: int) -> bool:
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have uninstalled everything, the lock's file included.
            return os.path.samestat(os.fstat(handle), (self.root / ".lock").stat())
        return False


def main(orders: RawIOBase) -> int:
    """Do what the order says; the exit status."""
    os.umask(0o077)
    with contextlib.suppress(QueenGoneError):
        try:
            order = json.loads(orders.readline() or b"{}")
            say("done", ACTIONS.get(order.get("action", ""), refuse)(order, orders))
        except HostError as error:
            say("error", error.body)
        except OSError as error:
            say("error", _os_error(error).body)
        else:
            return 0
    return 1


def refuse(order: Json, _: RawIOBase) -> Json:
    """Say that this is no order: another version of this program may know it."""
    raise HostError("unknown_order", f"this is no order: {str(order)[:200]}")


def probe(order: Json, _: RawIOBase) -> Json:
    """Facts about this machine, see `swarmesh.hosts.install.MachineFacts`."""
    place = Place()
    return {
        "python": sys.executable,
        "python_version": list(sys.version_info[:3]),
        "system": platform.system(),
        "machine": _machine(),
        "libc": _libc(),
        "macos": platform.mac_ver()[0],
        "user_home": str(place.user_home),
        "root": str(place.root),
        "disk_free_mib": shutil.disk_usage(place.user_home).free // MIB,
        "ready": place.starts(order["digest"]),
        "known_as": _read(place.hive(order["hive"]) / HOST_NAME).strip() if order.get("hive") else "",
    }


def install(order: Json, orders: RawIOBase) -> Json:
    """Make the environment of this digest from the files that follow; nothing is done, or sent, when it is there."""
    place = Place()
    digest, files = order["digest"], order["files"]
    with place.locked(_say_waiting) as lock:
        step("look", _described())
        ready = place.starts(digest)
        if not ready:
            _remove(place.incoming)
            _remove(place.env(digest))
            _check_space(place, sum(file["size_bytes"] for file in files), registry=order["registry"])
        step("look", _described(), done=True)
        if not ready:
            try:
                _install(place, order, orders, lock)
            except BaseException:
                _remove(place.env(digest))
                raise
            finally:
                _remove(place.incoming)
        step("tidy", "looking for old versions")
        _write_commands(place, digest, order.get("hive", ""))
        removed = _remove_unused(place, digest)
        step("tidy", f"{removed or 'no'} old versions removed", done=True)
    return probe(order, orders)


def run(order: Json, _: RawIOBase) -> Json:
    """Become the session; the rest of standard input is its own.

    With ``or_other`` another version will do until this one is installed: the queen's next life finds her workers.
    """
    place, digest = Place(), order["digest"]
    if not place.ready(digest) and order.get("or_other"):
        digest = place.newest() or digest
    if not place.ready(digest):
        raise HostError("host_not_installed", f"version {digest} of Swarmesh is not in {place.envs}")
    python = str(place.python(digest))
    argv = [python, "-I", "-m", "swarmesh.remote"]
    os.execve(python, argv, {**session_environment(os.environ), SOFTWARE: digest})  # noqa: S606 - without a shell is how it should be


def uninstall(order: Json, _: RawIOBase) -> Json:
    """Remove one hive's home, and with the last hive everything else; to its end also when the queen is gone."""
    place = Place()
    home = place.hive(order["hive"])
    if not place.root.exists():
        return {}
    with place.locked(_mention_waiting):
        if alive := _workers_alive(home):
            raise HostError(
                "host_in_use",
                f"rustbees of this hive still live on the host: {', '.join(alive)}",
                "'swarmesh rustbees list' shows them, 'swarmesh rustbees stop ID' ends one.",
            )
        _remove_hive(home, keep_models=order["keep_models"])
        others = [other for other in _hives(place) if other != home]
        if others:
            _point_commands(place, home, others[-1])
            return {}
        for path in (place.envs, place.bin, place.incoming, place.root / ".lock"):
            _remove(path)
        with contextlib.suppress(OSError):
            place.hives.rmdir()  # Models that were to be kept stay.
    return {}


ACTIONS: Final[Mapping[str, Callable[[Json, RawIOBase], Json]]] = {
    "probe": probe,
    "install": install,
    "run": run,
    "uninstall": uninstall,
}


def session_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a session gets: what is needed, and the usual places of programs, which a login by ssh often lacks."""
    kept = {name: value for name, value in environ.items() if KEPT_VARIABLES.match(name)}
    paths = [path for path in kept.get("PATH", "").split(os.pathsep) if path]
    kept["PATH"] = os.pathsep.join(dict.fromkeys([*paths, *PATHS]))
    return kept


def run_python(python: Path, code: str) -> tuple[int, str]:
    """Exit status, and what it said last; an environment that cannot be started at all is 127."""
    argv = [str(python), "-I", "-c", code]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=CHECK_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
    return done.returncode, said.splitlines()[-1] if said else f"ended with {done.returncode}"


def _say_waiting() -> None:
    step("look", "another process changes what is installed here; waiting for it")


def _mention_waiting() -> None:
    with contextlib.suppress(QueenGoneError):
        _say_waiting()


def _install(place: Place, order: Json, orders: RawIOBase, lock: int) -> None:
    env, python = place.env(order["digest"]), place.python(order["digest"])
    place.incoming.mkdir(mode=0o700)
    # From here on the queen sends; she waits for this word, so that nothing is sent in vain.
    step("send")
    for file in order["files"]:
        _receive(orders, place.incoming / _word(file["name"]), file)
    step("send", "what has to be installed has arrived", done=True)
    step("environment", f"making an environment of its own: {env}")
    # Without pip: Debian's Python brings none along, and a pip was sent.
    venv.EnvBuilder(symlinks=True, with_pip=False).create(env)
    step("environment", f"an environment of its own: {env}", done=True)
    step("packages", "asking the package registry" if order["registry"] else "installing the packages")
    _install_packages(Pip(python, place.incoming, lock), place.incoming, order)
    step("packages", "the packages are installed", done=True)
    step("check", "trying what was installed")
    step("check", _check(python), done=True)
    os.sync()  # The mark must not outlive, in a power cut, what it vouches for.
    (env / ".ready").write_text(str(python.resolve(strict=True)))


def _receive(orders: RawIOBase, path: Path, file: Json) -> None:
    digest, left = hashlib.sha256(), file["size_bytes"]
    with path.open("xb") as out:
        while left:
            data = orders.read(min(left, CHUNK_BYTES))
            if not data:
                raise HostError(
                    "host_install_failed", f"the connection ended {left} bytes before the end of {path.name}"
                )
            out.write(data)
            digest.update(data)
            left -= len(data)
    if digest.hexdigest() != file["sha256"]:
        raise HostError("host_install_failed", f"{path.name} did not arrive as it was sent: its SHA-256 is another")


class Pip:
    """The pip that was sent, for one environment; it need not be installed to run."""

    def __init__(self, python: Path, files: Path, lock: int) -> None:
        # Out of its wheel, for Python compiles what it runs from there anew each time.
        unpacked = files / "unpacked"
        shutil.unpack_archive(files / "pip.zip", unpacked, "zip")
        self._argv = [str(python), "-I", str(unpacked / "pip")]
        self._lock = lock
        # Its temporary files lie on the disk that was looked at, and nothing of them stays.
        self._environ = {**os.environ, "TMPDIR": str(files), "PIP_NO_CACHE_DIR": "1"}

    def __call__(self, *args: str, limit_s: float) -> tuple[int, list[str]]:
        """Exit status and last lines; what it does meanwhile is told as it goes."""
        argv = [*self._argv, "--disable-pip-version-check", "--no-input", *args, "--progress-bar", "off"]
        said: deque[str] = deque(maxlen=PIP_LINES_KEPT)
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environ,
            pass_fds=(self._lock,),
        ) as process:
            limit = threading.Timer(limit_s, process.kill)
            limit.start()
            try:
                for line in process.stdout or ():
                    said.append(line.decode("utf-8", "replace").strip())
                    check_heard()
                    if said[-1].startswith(("Downloading ", "Installing ")):
                        step("packages", said[-1][:120])
            except QueenGoneError:
                process.kill()
                raise
            finally:
                limit.cancel()
        if NO_SPACE.search("\n".join(said)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return process.returncode, [line for line in said if line]


def _install_packages(pip: Pip, incoming: Path, order: Json) -> None:
    lock = incoming / "requirements.lock"
    if order["registry"]:
        _fetch(pip, incoming, lock)
    ours = next(file for file in order["files"] if file["name"].startswith("rustbee-"))
    wanted = incoming / "all.lock"
    wanted.write_text(f"{lock.read_text()}\n{(incoming / ours['name']).as_uri()} --hash=sha256:{ours['sha256']}\n")
    local = ("--isolated", "install", "--no-index", "--find-links", str(incoming), "--no-deps", "--require-hashes")
    code, said = pip(*local, "--only-binary=:all:", "--requirement", str(wanted), limit_s=PIP_LIMIT_S)
    if code and (match := NO_WHEEL.search("\n".join(said))):
        name = (match[1] or match[2]).partition("=")[0]
        there = ", ".join(path.name for path in incoming.glob("*.whl") if path.name.startswith(name.replace("-", "_")))
        raise HostError(
            "host_wheel_unsupported",
            f"no wheel of {name} that was sent fits this host ({_described()}): {there or 'there is none'}",
            "A Python of another version or build on the host may help; every dependency needs a wheel for it.",
        )
    if code:
        raise HostError("host_install_failed", _pip_failed(code, said))


def _fetch(pip: Pip, incoming: Path, lock: Path) -> None:
    """Download what the lock names, as the host's own pip settings say; the first one shows whether that works."""
    first = incoming / "first.lock"
    first.write_text(re.split(r"(?<!\\)\n", lock.read_text(), maxsplit=1)[0] + "\n")
    args = (
        "download",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--dest",
        str(incoming),
        "--retries",
        "1",
    )
    for wanted, timeout_s, limit_s in ((first, 3, REGISTRY_TRY_LIMIT_S), (lock, 15, PIP_LIMIT_S)):
        code, said = pip(*args, "--timeout", str(timeout_s), "--requirement", str(wanted), limit_s=limit_s)
        if code:
            raise HostError("host_no_registry", f"no package registry served this host: {_pip_failed(code, said)}")


def _pip_failed(code: int, said: Sequence[str]) -> str:
    return f"pip ended with {code}: " + " / ".join(said[-PIP_LINES_TOLD:])


def _check(python: Path) -> str:
    code, said = run_python(python, IMPORTS)
    if code:
        raise HostError("host_install_failed", f"what was installed does not start: {said}")
    code, said = run_python(python, "import xllamacpp")
    if code:
        return f"the built-in engine does not start here ({said}); the host's own llama-server may be used"
    return "it starts, and so does the built-in engine"


def _check_space(place: Place, coming_bytes: int, *, registry: bool) -> None:
    need = coming_bytes // MIB + 1 + ENV_MIB + (DOWNLOADS_MIB if registry else 0)
    have = shutil.disk_usage(place.root).free // MIB
    if have < need:
        raise _disk_full(f"installing needs {need} MiB below {place.root}, and {have} MiB are free")


def _os_error(error: OSError) -> HostError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        place = Place()
        have = shutil.disk_usage(place.user_home).free // MIB
        return _disk_full(f"the disk of {place.root} became full (need {ENV_MIB} MiB, have {have} MiB free now)")
    return HostError("host_install_failed", f"{error.filename or 'a system call'}: {error.strerror or error}")


def _disk_full(message: str) -> HostError:
    return HostError(
        "host_disk_full", message, "Free space on the host's disk; nothing of what was begun is left there."
    )


def _workers_alive(home: Path) -> list[str]:
    return [file.parent.name for file in sorted(home.glob("rustbees/*/agent.json")) if _lives(_read_json(file))]


def _lives(agent: Json) -> bool:
    boot, now = agent.get("boot_id", ""), _read("/proc/sys/kernel/random/boot_id").strip()
    if boot and now and boot != now:
        return False
    of_agent = process_lives(agent.get("pid", 0), agent.get("started_at", 0.0))
    return of_agent or process_lives(agent.get("engine_pid", 0), agent.get("engine_started_at", 0.0))


def process_lives(pid: int, started_at: float) -> bool:
    """Whether the process that started then (Unix seconds) still runs; yes where that cannot be told."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False  # A process of somebody else is none of this user's rustbees.
    stat = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if stat:
        boot_s = int(_read("/proc/stat").partition("btime ")[2].split()[0])
        started = boot_s + int(stat[19]) / os.sysconf("SC_CLK_TCK")
        return stat[0] not in {"Z", "X"} and abs(started - started_at) <= START_TOLERANCE_S
    try:
        said = _output("ps", "-o", "lstart=", "-p", str(pid)).strip()
        return abs(time.mktime(time.strptime(said, "%a %b %d %H:%M:%S %Y")) - started_at) <= START_TOLERANCE_S
    except ValueError:
        return True


def _remove_unused(place: Place, digest: str) -> int:
    if Path("/proc/self/cmdline").exists():
        running = "\n".join(_read(path).replace("\0", " ") for path in Path("/proc").glob("[0-9]*/cmdline"))
    else:
        running = _output("ps", "-A", "-ww", "-o", "command=")
    unused = [env for env in place.envs.iterdir() if env.name != digest and f"{env}/" not in running]
    for env in unused:
        _remove(env)
    return len(unused)


def _write_commands(place: Place, digest: str, hive: str) -> None:
    if not hive:
        return
    place.bin.mkdir(mode=0o700, exist_ok=True)
    for name in COMMANDS:
        new = place.bin / f".{name}"
        new.write_text(
            "#!/bin/sh\n# For use by hand: the version of Swarmesh, and the hive, that were added here last.\n"
            f'[ -n "$SWARMESH_HOME" ] || SWARMESH_HOME={shlex.quote(str(place.hive(hive)))}\nexport SWARMESH_HOME\n'
            f'exec {shlex.quote(str(place.env(digest) / "bin" / name))} "$@"\n'
        )
        new.chmod(0o700)
        new.replace(place.bin / name)


def _point_commands(place: Place, old: Path, new: Path) -> None:
    for path in (place.bin / name for name in COMMANDS):
        if path.exists():
            path.write_text(path.read_text().replace(str(old), str(new)))


def _hives(place: Place) -> list[Path]:
    """Those that use this host, the one that was added last at the end; kept models alone are no use of it."""
    hives = [home for home in place.hives.glob("*/") if {path.name for path in home.iterdir()} - set(MODELS)]
    return sorted(hives, key=lambda home: home.stat().st_mtime)


def _remove_hive(home: Path, *, keep_models: bool) -> None:
    for path in home.glob("*"):
        if not (keep_models and path.name in MODELS):
            _remove(path)
    with contextlib.suppress(OSError):
        home.rmdir()
    # As `swarmesh.config.home.Home.sockets_dir` has it where the home's own path is too long for a socket.
    word = hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:12]
    _remove(Path(tempfile.gettempdir()) / f"swarmesh-{os.getuid()}-{word}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _word(name: str) -> str:
    """A name that is one plain file name, whoever chose it."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        raise HostError("unknown_order", f"{name[:100]!r} is no plain name")
    return name


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def _read_json(path: Path) -> Json:
    try:
        read: Json = json.loads(_read(path))
    except ValueError:
        return {}
    return read


def _output(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    return done.stdout or done.stderr


def _described() -> str:
    libc = " ".join(_libc()).strip() or f"macOS {platform.mac_ver()[0]}"
    return f"{platform.system()} {_machine()}, {libc}, Python {platform.python_version()}"


def _machine() -> str:
    """What programs of this Python's kind run on: an interpreter of 32 bits may run on a kernel of 64."""
    machine = platform.machine()
    return machine if sys.maxsize > 2**32 else {"x86_64": "i686", "aarch64": "armv7l"}.get(machine, machine)


def _libc() -> list[str]:
    with contextlib.suppress(ValueError, OSError):
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        if name:
            return [name, version]
    for loader in Path("/lib").glob("ld-musl-*.so.1"):
        return ["musl", _output(str(loader)).partition("Version ")[2].split()[0]]
    return ["", ""]


if __name__ == "__main__":
    sys.exit(main(globals()["f"]))
