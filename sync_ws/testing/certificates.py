"""A throwaway certificate authority and server certificates, good and bad, for tests of TLS.

Everything is made anew by `make_certificates` in some 0.1 s (EC keys on P-256), by the `openssl` command. Nothing of
it is secret or lives longer than a week.

Threading: a `Certificates` object is immutable, each call of a context method makes a new context.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Certificates", "make_certificates"]

_OPENSSL_TIMEOUT = 30.0  # seconds for one run of the command
_DAY = 24 * 3600.0  # seconds
_NAMES = ("localhost", "127.0.0.1", "::1")
_WRONG_NAMES = ("wrong.invalid",)


@dataclass(frozen=True)
class Certificates:
    """The files, all PEM. One private key, `server_key`, serves all four server certificates."""

    ca: Path
    """The authority's certificate, to be trusted."""
    server_cert: Path
    """Good: for localhost, 127.0.0.1 and ::1, signed by the authority, valid from yesterday for a week."""
    server_key: Path
    expired_cert: Path
    """As the good one, but its validity ended ten days ago."""
    wrong_host_cert: Path
    """As the good one, but for wrong.invalid alone."""
    self_signed: Path
    """For the right names, but signed by its own key."""

    def server_context(self, certificate: Path | None = None) -> ssl.SSLContext:
        """A new context for a server that shows this certificate, one of the above; None: the good one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate or self.server_cert, self.server_key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A new context for a client that trusts this authority alone and checks host names."""
        return ssl.create_default_context(cafile=self.ca)


def make_certificates(directory: str | os.PathLike[str]) -> Certificates:
    """Write new keys and certificates into an existing directory, over those of an earlier call there.

    RuntimeError when there is no `openssl` command, or when it fails (with its output).
    """
    folder = Path(directory)
    made = Certificates(
        ca=folder / "ca.pem",
        server_cert=folder / "server.pem",
        server_key=folder / "server.key",
        expired_cert=folder / "expired.pem",
        wrong_host_cert=folder / "wrong_host.pem",
        self_signed=folder / "self_signed.pem",
    )
    if shutil.which("openssl") is None:
        raise RuntimeError("making test certificates needs the openssl command on PATH")
    _make_with_openssl(made)
    return made


def _validity(made: Certificates, certificate: Path) -> tuple[float, float]:
    """When it begins and ends to be valid, in seconds since the epoch."""
    now = time.time()
    if certificate == made.expired_cert:
        return now - 20 * _DAY, now - 10 * _DAY
    return now - _DAY, now + 6 * _DAY


# The command's `ca` subcommand, awkward as it is, is the only one that takes a start and an
# end of validity in every version in use.

_OPENSSL_CONFIG = """
[req]
distinguished_name = subject
prompt = no
[subject]
CN = sync_ws test
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[good]
subjectAltName = {names}
{leaf}
[wrong_host]
subjectAltName = {wrong_names}
{leaf}
[ca]
default_ca = test
[test]
new_certs_dir = .
database = ca.index
serial = ca.serial
private_key = ca.key
default_md = sha256
unique_subject = no
policy = anything
[anything]
commonName = supplied
"""
_OPENSSL_LEAF = """
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def _make_with_openssl(made: Certificates) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)  # what `ca` keeps its books in, and the authority's key
        config = _OPENSSL_CONFIG.format(
            leaf=_OPENSSL_LEAF, names=_openssl_names(_NAMES), wrong_names=_openssl_names(_WRONG_NAMES)
        )
        (folder / "test.cnf").write_text(config, encoding="ascii")
        (folder / "ca.index").write_text("", encoding="ascii")
        (folder / "ca.serial").write_text("1000\n", encoding="ascii")

        def run(command: str, *arguments: str | Path) -> None:
            _openssl(folder, command, "-config", "test.cnf", *arguments)

        ca, key = made.ca.resolve(), made.server_key.resolve()
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256")
        run(
            "req",
            "-x509",
            *new_key,
            "-keyout",
            "ca.key",
            "-out",
            ca,
            "-days",
            "7",
            "-subj",
            "/CN=sync_ws test authority",
            "-extensions",
            "authority",
        )
        run("req", "-new", *new_key, "-keyout", key, "-out", "server.csr")
        run(
            "req",
            "-x509",
            "-key",
            key,
            "-sha256",
            "-out",
            made.self_signed.resolve(),
            "-days",
            "7",
            "-extensions",
            "good",
        )
        for certificate in (made.server_cert, made.expired_cert, made.wrong_host_cert):
            period = _validity(made, certificate)
            start, end = (time.strftime("%Y%m%d%H%M%SZ", time.gmtime(at)) for at in period)
            section = "wrong_host" if certificate == made.wrong_host_cert else "good"
            run(
                "ca",
                "-batch",
                "-notext",
                "-in",
                "server.csr",
                "-cert",
                ca,
                "-out",
                certificate.resolve(),
                "-startdate",
                start,
                "-enddate",
                end,
                "-extensions",
                section,
            )


def _openssl_names(names: tuple[str, ...]) -> str:
    return ", ".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in names)


def _openssl(folder: Path, *arguments: str | Path) -> None:
    command = ["openssl", *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_OPENSSL_TIMEOUT,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}{done.stderr}")


def _is_address(name: str) -> bool:
    return name[0].isdigit() or ":" in name
