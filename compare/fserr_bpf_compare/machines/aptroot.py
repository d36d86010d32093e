"""A private apt root: other suites from this machine's own Debian mirrors, signatures checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fserr_bpf.errors import LabError
from fserr_bpf_compare.machines.tools import output_of

ETC_APT = Path("/etc/apt")
# Debian 12 installs the first name, later releases the second one.
KEYRINGS = tuple(
    Path(f"/usr/share/keyrings/debian-archive-keyring.{ending}") for ending in ("gpg", "pgp")
)
_DEBIAN_SUITE = re.compile(
    r"(?P<base>bullseye|bookworm|trixie|forky|duke|sid|(?:old)*stable|testing|unstable)"
    r"(?P<pocket>-security|/updates|-updates|-backports|-proposed-updates)?"
)


@dataclass(frozen=True)
class Source:
    """One (URI, suite) pair that the machine's apt is configured for.

    ``signed_by`` is the key option as written, or empty for apt's default keys.
    """

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str


@dataclass(frozen=True)
class Package:
    """One binary package in the lists; ``depends`` is the raw field."""

    name: str
    version: str
    depends: str


def parse_list(text: str) -> Iterator[Source]:
    """The ``deb`` lines of a sources.list(5) file in one-line style."""
    line_form = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<rest>[^#]+)")
    for line in text.splitlines():
        if match := line_form.match(line.strip()):
            suite, *components = match["rest"].split()
            key = re.search(r"signed-by=(\S+)", match["options"] or "")
            yield Source(match["uri"], suite, tuple(components), key[1] if key else "")


def parse_deb822(text: str) -> Iterator[Source]:
    """The ``deb`` stanzas of a sources.list(5) file in deb822 style."""
    for stanza in re.split(r"\n\s*\n", text):
        lines = [line for line in stanza.splitlines() if not line.startswith("#")]
        fields = dict(re.findall(r"^([\w-]+):\s*(.*(?:\n[ \t].*)*)", "\n".join(lines), re.M))
        fields = {name.lower(): value for name, value in fields.items()}
        if "deb" not in fields.get("types", "").split() or fields.get("enabled") == "no":
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                components = tuple(fields.get("components", "").split())
                yield Source(uri, suite, components, fields.get("signed-by", ""))


def debian_mirrors(sources: Iterable[Source]) -> dict[str, str]:
    """URI of the first Debian ``main`` and ``security`` archive among ``sources``.

    Third-party archives reuse suite names, so an entry counts only with a Debian
    suite, the component main and no foreign key.
    """
    mirrors: dict[str, str] = {}
    for source in sources:
        suite = _DEBIAN_SUITE.fullmatch(source.suite)
        own_key = not source.signed_by or "debian-archive" in source.signed_by
        if suite and own_key and "main" in source.components:
            kind = "security" if suite["pocket"] in ("-security", "/updates") else "main"
            mirrors.setdefault(kind, source.uri)
    return mirrors


def configured_sources(etc: Path = ETC_APT) -> Iterator[Source]:
    """Every source that apt on this machine reads, in its order."""
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if path.is_file() and path.suffix == ".list":
            yield from parse_list(path.read_text())
        elif path.is_file() and path.suffix == ".sources":
            yield from parse_deb822(path.read_text())


class AptRoot:
    """apt with its own lists and sources under ``folder``; the machine's apt is untouched.

    ``sources``: it has the source packages of ``suites``, else the binary ones.
    """

    def __init__(self, folder: Path, suites: Sequence[str], *, sources: bool = False) -> None:
        self._folder = folder
        self._suites = suites
        self._kind = "deb-src" if sources else "deb"

    def packages(self) -> list[Package]:
        """Fetch the lists and return the newest version of every package in them.

        Raises `LabError` in one line without network, mirror or valid signature.
        """
        self._update()
        found = []
        for stanza in self._apt("apt-cache", "dumpavail").split("\n\n"):
            fields = dict(re.findall(r"^(Package|Version|Depends): (.*)$", stanza, re.M))
            if fields:
                found.append(
                    Package(fields["Package"], fields["Version"], fields.get("Depends", ""))
                )
        return found

    def download(self, packages: Sequence[Package], folder: Path) -> list[Path]:
        """The ``.deb`` files of ``packages``, verified by apt, put into ``folder``."""
        wanted = [f"{package.name}={package.version}" for package in packages]
        self._apt("apt-get", "-qq", "download", *wanted, folder=folder)
        return sorted(folder.glob("*.deb"))

    def upstream(self, source: str, folder: Path) -> Path:
        """The newest upstream tarball of a source package, verified by apt, put into ``folder``.

        Raises `LabError` as ``packages()`` does.
        """
        self._update()
        only = ("--download-only", "--tar-only")
        self._apt("apt-get", "-qq", "source", *only, source, folder=folder)
        tarballs = sorted(folder.glob(f"{source}_*.orig.tar.*"))
        if len(tarballs) != 1:
            raise LabError(f"the source package {source} has {len(tarballs)} upstream tarballs")
        return tarballs[0]

    def _update(self) -> None:
        self._configure()
        self._apt("apt-get", "-qq", "-o", "APT::Update::Error-Mode=any", "update")

    def _configure(self) -> None:
        mirrors = debian_mirrors(configured_sources())
        keyring = next((path for path in KEYRINGS if path.exists()), None)
        if keyring is None:
            raise LabError(
                "no Debian keyring is here", "run apt-get install debian-archive-keyring"
            )
        lines = []
        for suite in self._suites:
            kind = "security" if suite.endswith("-security") else "main"
            if kind in mirrors:  # a small machine may have no security mirror
                options = f"[arch=amd64 signed-by={keyring}]"
                lines.append(f"{self._kind} {options} {mirrors[kind]} {suite} main\n")
        if not lines:
            raise LabError(
                f"{ETC_APT} has no Debian mirror for {', '.join(self._suites)}",
                "add your mirror to sources.list",
            )
        for part in ("lists/partial", "cache/archives/partial"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)
        (self._folder / "sources.list").write_text("".join(lines))
        # Proxy, timeouts and the like come from the machine; its hooks do not.
        acquire = output_of("apt-config", "dump", "Acquire", "--format", '%F "%v";%n').decode()
        settings = {
            "Dir::Etc::Main": "/dev/null",
            "Dir::Etc::Parts": "/dev/null",
            "Dir::Etc::SourceList": self._folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State::Lists": self._folder / "lists",
            "Dir::State::Status": "/dev/null",
            "Dir::Cache": self._folder / "cache",
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::AllowInsecureRepositories": "false",
        }
        own = "".join(f'{name} "{value}";\n' for name, value in settings.items())
        (self._folder / "apt.conf").write_text(acquire + own)

    def _apt(self, *command: str, folder: Path | None = None) -> str:
        try:
            output = output_of(*command, folder=folder, APT_CONFIG=str(self._folder / "apt.conf"))
        except LabError as error:
            raise LabError(error.cause, "check the network and the mirror") from error
        return output.decode()
