"""Get and start Autobahn's wstest, which runs on Python 2.7 only.

It lives in a directory of its own, apart from every virtual environment, and is installed there once, by
name, with the pip of Python 2.7. `Unavailable` means this machine cannot run it (no Python 2.7, no pip, the
install failed): a reason to skip.

wstest is started through `LAUNCHER`, because
- only `site.addsitedir` reads the .pth file that makes the `zope` namespace package importable;
- wstest's own server listens on every interface, on a port given before; here: loopback, any free port,
  printed;
- it must not outlive this process, however that ends: it watches its standard input, which then ends too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["REQUIREMENT", "Unavailable", "default_directory", "ensure", "environment", "find_python2"]

# The last release; it pins Twisted and cryptography itself, and Python 2.7 gets no new releases of the rest.
REQUIREMENT = "autobahntestsuite==25.10.1"

# Arguments: the directory it is installed in, then those of wstest.
LAUNCHER = """
import os, site, sys, threading
site.addsitedir(sys.argv.pop(1))
from autobahntestsuite import wstest, fuzzing
from autobahn.twisted.websocket import listenWS

def listen(factory, context=None):
    listener = listenWS(factory, context, interface="127.0.0.1")
    factory.port = factory.externalPort = listener.getHost().port
    print("LISTENING %d" % factory.port)
    return listener

def end_with_parent():
    sys.stdin.read()
    os._exit(0)

fuzzing.listenWS = listen
watch = threading.Thread(target=end_with_parent)
watch.daemon = True
watch.start()
wstest.run()
"""


class Unavailable(Exception):
    """wstest cannot run on this machine; the message says why."""


def default_directory() -> Path:
    """Where wstest is kept between runs: under the system's temporary directory, one for each user."""
    return Path(tempfile.gettempdir()) / f"sync_ws-{REQUIREMENT.replace('==', '-')}-{os.getuid()}"


def environment() -> dict[str, str]:
    """The environment for Python 2.7: without what is meant for the Python that runs this."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def find_python2(given: str | None = None) -> str:
    """The path of a Python 2.7: the given one, one on PATH, or one of pyenv's. Raises Unavailable."""
    # pyenv puts a `python2.7` on PATH that only prints an error unless it is selected: all are tried.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = (
        [given]
        if given
        else [
            *filter(None, map(shutil.which, ("python2.7", "python2", "python"))),
            *map(str, sorted(pyenv.glob("versions/2.7*/bin/python2.7"), reverse=True)),
        ]
    )
    probe = "import sys; print(sys.version_info[:2] == (2, 7) and sys.executable)"
    for candidate in candidates:
        try:
            found = _run([candidate, "-c", probe], environment()).stdout.strip()
        except OSError:
            continue
        if found not in ("", "False"):
            return found
    tried = ", ".join(candidates) or "PATH and pyenv"
    raise Unavailable(f"wstest needs Python 2.7, and there is none (tried: {tried})")


def ensure(python2: str, directory: Path) -> list[str]:
    """Install wstest in the directory unless it is there; the command that starts it. Raises Unavailable.

    The finished installation is moved into place in one step: an interrupted or concurrent one does no harm.
    """
    if not (directory / "autobahntestsuite").is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{directory.name}.", dir=directory.parent) as work:
            target = Path(work) / "packages"
            print(f"installing {REQUIREMENT} with {python2}", flush=True)
            _pip_install(python2, target)
            try:
                target.rename(directory)
            except OSError:  # another run was faster, or something else is in the way
                if not (directory / "autobahntestsuite").is_dir():
                    raise Unavailable(f"{directory} is in the way: neither empty nor wstest") from None
    if directory.stat().st_uid != os.getuid():  # a name in a shared directory is not proof of who wrote it
        raise Unavailable(f"{directory} belongs to another user")
    return [python2, "-u", "-c", LAUNCHER, str(directory)]


def _run(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, env=env, capture_output=True, text=True, errors="replace")


def _pip_install(python2: str, target: Path) -> None:
    env = environment() | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_PYTHON_VERSION_WARNING": "1"}
    if _run([python2, "-m", "pip", "--version"], env).returncode != 0:
        # pip runs from the wheels that Python brings for ensurepip: nothing has to be installed for it.
        find = "import ensurepip, glob; print(':'.join(glob.glob(ensurepip.__path__[0] + '/_bundled/*.whl')))"
        env["PYTHONPATH"] = _run([python2, "-c", find], env).stdout.strip()
        if not env["PYTHONPATH"]:
            raise Unavailable(f"{python2} has neither pip nor ensurepip")
    run = _run([python2, "-m", "pip", "install", "--target", str(target), REQUIREMENT], env)
    if run.returncode != 0:
        last_lines = (run.stdout + run.stderr).splitlines()[-15:]
        raise Unavailable("\n".join(["the install of wstest failed:", *last_lines]))
