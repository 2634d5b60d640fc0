"""Jars, and one zip of them, that PyPI lacks: resolved once by Maven coordinates and checked against ``jars.lock``.

The resolver is the Ivy inside pyspark's wheel, with its built-in default repository: no host name, mirror
or credential is configured here. A bundle appears in the cache by one rename, so a folder that exists is
complete; it bites to edit one by hand, as only a download is checked, not every start.
"""

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import quoteattr

from headway.errors import ContractViolation, PermanentFailure, TransientFailure

LOCK_FILE = Path(__file__).with_name("jars.lock")

# A cold resolve of 50 jars took 30 s on two cores; ten times that is a dead network, not a slow one.
RESOLVE_TIMEOUT_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A named set of files: the coordinates asked for, ``group:artifact:version``, and all they depend on.

    ``packing`` ``zip`` is a distribution: its archive is checked, then unpacked, and what it holds is the bundle.
    """

    name: str
    version: str
    coordinates: tuple[str, ...]
    packing: Literal["jar", "zip"] = "jar"

    @property
    def folder(self) -> str:
        """Name of the bundle's folder in the cache, as it stands in ``jars.lock``."""
        return f"{self.name}-{self.version}"


# Kafka's own artifacts name no slf4j binding (the tarball adds one): without it every log line is dropped.
# The layout writes the broker's log as JSON lines, which the log shipper reads as it is.
# Not 4.3 or 4.4: a lone broker that is killed just after a commit can lose that commit's markers (ADR 0002).
KAFKA = Bundle(
    name="kafka",
    version="4.2.2",
    coordinates=(
        "org.apache.kafka:kafka_2.13:4.2.2",
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5",
        "org.apache.logging.log4j:log4j-layout-template-json:2.25.5",
    ),
)

# The distribution that OpenSearch's own integration tests run: the server without plugins, security included.
OPENSEARCH = Bundle(
    name="opensearch",
    version="2.19.6",
    coordinates=("org.opensearch.distribution.integ-test-zip:opensearch:2.19.6",),
    packing="zip",
)
# In the order of the lock.
BUNDLES = (KAFKA, OPENSEARCH)


def default_cache() -> Path:
    """Folder that holds every bundle of this user, whether or not it exists yet."""
    return Path.home() / ".cache" / "headway" / "jars"


def java_binary() -> str:
    """Path of the ``java`` on PATH.

    Raises:
        PermanentFailure: there is none.
    """
    found = shutil.which("java")
    if found is None:
        raise PermanentFailure(
            "java: not found on PATH, wanted Java 17 or 21. Install a JRE (Debian: apt-get install "
            "openjdk-17-jre-headless) and run the command again; `headway doctor` checks it."
        )
    return found


def ensure_bundle(bundle: Bundle, *, cache: Path | None = None) -> Path:
    """Folder with the bundle's verified files, downloaded now if this is the first time.

    Costs a file lookup when present, about half a minute and a network the first time. Safe to call from
    several processes at once: the second waits for the first.

    Raises:
        PermanentFailure: no Java, or no pyspark to borrow Ivy from.
        TransientFailure: the download failed; most often there is no network.
        ContractViolation: what was downloaded is not what ``jars.lock`` promises.
    """
    root = cache if cache is not None else default_cache()
    target = root / bundle.folder
    if target.is_dir():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with _exclusive(root / f".{bundle.folder}.lock"):
        if not target.is_dir():
            _install(bundle, target=target)
    return target


def locked_digests(bundle: Bundle, *, lock_text: str) -> dict[str, str]:
    """Jar name to SHA-256 (hex) of one bundle, from lines ``<sha256>  <bundle folder>/<jar name>``."""
    digests: dict[str, str] = {}
    for line in lock_text.splitlines():
        digest, _, path = line.partition("  ")
        folder, _, jar = path.partition("/")
        if folder == bundle.folder:
            digests[jar] = digest
    return digests


def check_digests(bundle: Bundle, *, wanted: Mapping[str, str], got: Mapping[str, str]) -> None:
    """Return when the jars are exactly those of the lock.

    Raises:
        ContractViolation: a jar is missing, surplus or has other bytes; the message names each.
    """
    problems = [f"{jar}: missing" for jar in sorted(wanted.keys() - got.keys())]
    problems += [f"{jar}: not in the lock" for jar in sorted(got.keys() - wanted.keys())]
    problems += [
        f"{jar}: sha256 {got[jar]}, wanted {wanted[jar]}"
        for jar in sorted(wanted.keys() & got.keys())
        if wanted[jar] != got[jar]
    ]
    if problems:
        raise ContractViolation(
            f"jars of {bundle.folder} differ from {LOCK_FILE.name}: {'; '.join(problems)}. Nothing was installed. "
            "If you changed the bundle on purpose, write its new digests with `python -m headway.local.jars`; "
            "otherwise do not use this download, and ask whoever runs your package mirror."
        )


def file_digests(folder: Path) -> dict[str, str]:
    """File name to SHA-256 (hex) of every file in a folder, in name order."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def write_lock(*bundles: Bundle) -> None:
    """Download the bundles and rewrite ``jars.lock`` from what came: for whoever changes a version, then reviews."""
    lines: list[str] = []
    for bundle in bundles:
        with tempfile.TemporaryDirectory() as scratch:
            jars = Path(scratch) / "jars"
            _resolve(bundle, jars=jars, scratch=Path(scratch))
            lines += [f"{digest}  {bundle.folder}/{jar}\n" for jar, digest in file_digests(jars).items()]
    LOCK_FILE.write_text("".join(lines), encoding="utf-8")


def _install(bundle: Bundle, *, target: Path) -> None:
    wanted = locked_digests(bundle, lock_text=LOCK_FILE.read_text(encoding="utf-8"))
    # Beside the target, so that the rename stays on one file system and is atomic.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{bundle.folder}.") as scratch:
        jars = Path(scratch) / "jars"
        _resolve(bundle, jars=jars, scratch=Path(scratch))
        check_digests(bundle, wanted=wanted, got=file_digests(jars))
        (jars if bundle.packing == "jar" else _unpacked(jars)).rename(target)


def _resolve(bundle: Bundle, *, jars: Path, scratch: Path) -> None:
    descriptor = scratch / "ivy.xml"
    descriptor.write_text(_ivy_descriptor(bundle), encoding="utf-8")
    command = [
        java_binary(),
        # The user's own ~/.ivy2 may hold other bytes under the same coordinates.
        f"-Divy.default.ivy.user.dir={scratch / 'ivy-home'}",
        *("-jar", str(_ivy_jar())),
        *("-cache", str(scratch / "ivy-cache")),
        *("-ivy", str(descriptor)),
        *("-retrieve", f"{jars}/[artifact]-[revision](-[classifier]).[ext]"),
        *("-types", *(("jar", "bundle") if bundle.packing == "jar" else ("zip",))),
    ]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=RESOLVE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise TransientFailure(_download_failed(bundle, f"no end after {RESOLVE_TIMEOUT_S:.0f} s")) from error
    if run.returncode != 0 or not jars.is_dir():
        raise TransientFailure(_download_failed(bundle, _first_cause(run.stdout + run.stderr)))


def _unpacked(folder: Path) -> Path:
    """Unpack the one archive of a folder; return what it holds, which is one folder."""
    (archive,) = folder.iterdir()
    unpacked = folder / "unpacked"
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(unpacked)
    (top,) = unpacked.iterdir()
    return top


def _ivy_descriptor(bundle: Bundle) -> str:
    dependencies = []
    for coordinate in bundle.coordinates:
        group, artifact, version = (quoteattr(part) for part in coordinate.split(":"))
        # Such a zip is published without a pom that names it, so it is named here.
        named = "" if bundle.packing == "jar" else f'<artifact name={artifact} type="zip" ext="zip"/>'
        dependencies.append(
            f'    <dependency org={group} name={artifact} rev={version} conf="default->default">{named}</dependency>'
        )
    return "\n".join(
        [
            '<ivy-module version="2.0">',
            f'  <info organisation="headway" module={quoteattr(bundle.name)}/>',
            '  <configurations><conf name="default"/></configurations>',
            "  <dependencies>",
            *dependencies,
            "  </dependencies>",
            "</ivy-module>",
        ]
    )


def _ivy_jar() -> Path:
    # find_spec, as importing pyspark costs half a second and none of it is needed.
    spec = find_spec("pyspark")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = [jar for folder in folders for jar in Path(folder, "jars").glob("ivy-*.jar")]
    if not found:
        raise PermanentFailure(
            "pyspark: its jars/ivy-*.jar was not found in this environment, and Maven artifacts are fetched with it. "
            "Install the project's `local` dependencies (make setup)."
        )
    return found[0]


def _first_cause(output: str) -> str:
    for line in output.splitlines():
        if any(word in line for word in ("UNRESOLVED", "not found", "FAILED", "Exception", "unresolved", "refused")):
            return line.strip(" \t:")
    return "Ivy said nothing useful"


def _download_failed(bundle: Bundle, cause: str) -> str:
    return (
        f"jars of {bundle.folder}: could not be downloaded from Maven Central ({cause}). Connect this machine to the "
        f"network once and run the command again, or copy the folder {default_cache() / bundle.folder} from a "
        "machine that has it."
    )


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    write_lock(*BUNDLES)
