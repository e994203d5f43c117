"""A real Elasticsearch, from Maven Central: the distribution that Elastic's own integration tests run.

It has ``_bulk``, ``_index_template``, ``_search`` and ``_cluster/health``. It has no data streams, no lifecycles, no
ingest processors, and neither ``match_only_text`` nor ``constant_keyword``: :func:`plain_template` replaces them.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.netns import Namespace

sys.path.append(str(Path(__file__).parents[2]))  # behind everything else: fixer stays the one that is installed

from deploy import elastic

VERSION = "8.19.8"
ARTIFACT = f"org.elasticsearch.distribution.integ-test-zip:elasticsearch:{VERSION}:zip"
CACHE = Path(__file__).parents[2] / "build" / "elk"
USER = "nobody"  # Elasticsearch does not run as root
UP_SECONDS = 400.0  # 15 where nobody else is at work
REPLACED = {"match_only_text": "text", "constant_keyword": "keyword"}
SETTINGS = """discovery.type: single-node
xpack.security.enabled: false
xpack.security.transport.ssl.enabled: false
xpack.ml.enabled: false
http.port: {port}
transport.port: {transport}
cluster.routing.allocation.disk.threshold_enabled: false
path.data: {home}/data
path.logs: {home}/logs
"""


def archive() -> Path:
    """The distribution; fetched once. Skips the test by the name of what is missing."""
    path = CACHE / f"elasticsearch-{VERSION}.zip"
    if shutil.which("java") is None:
        pytest.skip("needs Java (default-jre-headless)")
    if path.exists():
        return path
    if shutil.which("mvn") is None:
        pytest.skip(f"needs {path.name} in build/elk, or Maven to fetch it")
    CACHE.mkdir(parents=True, exist_ok=True)
    plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
    command = ["mvn", "-q", "-B", plugin, f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={CACHE}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode or not path.exists():
        pytest.skip(f"needs {ARTIFACT}, which Maven could not fetch: {(done.stdout + done.stderr).strip()[-200:]}")
    return path


def plain_template() -> dict[str, Any]:
    """Our index template, as strict as it is, for plain indices: what this server lacks is replaced or left out."""
    mappings: dict[str, Any] = {"dynamic": True}
    for part in (elastic.component_ecs(), elastic.component_fixer()):
        ours = json.loads(json.dumps(part["template"]["mappings"]))
        mappings["properties"] = mappings.get("properties", {}) | ours.pop("properties")
        mappings |= ours
    settings = elastic.component_settings()["template"]["settings"]
    del settings["index.lifecycle.name"]
    template = {"mappings": _plain(mappings), "settings": settings | {"index.number_of_replicas": 0}}
    return {"index_patterns": [elastic.PATTERN], "priority": elastic.PRIORITY, "template": template}


def _plain(found: Any) -> Any:
    if isinstance(found, dict):
        return {
            key: REPLACED.get(value, value) if key == "type" and isinstance(value, str) else _plain(value)
            for key, value in found.items()
        }
    return found


class Server:
    """One node, on the loopback of a namespace."""

    def __init__(self, home: Path, port: int, namespace: Namespace) -> None:
        self.home, self.port, self._namespace = home, port, namespace
        self._process: subprocess.Popen[str] | None = None
        with zipfile.ZipFile(archive()) as packed:
            packed.extractall(home)
        (self._root,) = home.glob("elasticsearch-*")
        for program in (self._root / "bin").iterdir():
            program.chmod(0o755)
        settings = SETTINGS.format(port=port, transport=port + 100, home=home)
        (self._root / "config" / "elasticsearch.yml").write_text(settings)
        who = pwd.getpwnam(USER)
        for path in [home, *home.rglob("*")]:
            os.chown(path, who.pw_uid, who.pw_gid)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        who = pwd.getpwnam(USER)
        become = ["setpriv", "--pdeathsig=KILL", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups"]
        java = ["env", "ES_JAVA_OPTS=-Xms512m -Xmx512m", f"ES_JAVA_HOME={_java_home()}"]
        with (self.home / "out").open("a") as out:
            self._process = self._namespace.start(*become, *java, str(self._root / "bin/elasticsearch"), stdout=out)
        deadline = time.monotonic() + UP_SECONDS
        while True:
            with contextlib.suppress(OSError, AssertionError):  # not there yet, or not yet of one mind with itself
                if self.ask("GET", "/_cluster/health")["status"] != "red":
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Elasticsearch is not up:\n{(self.home / 'out').read_text()[-3000:]}")
            time.sleep(0.5)

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Its answer. Raises :class:`AssertionError` with its words if it refuses, :class:`OSError` without one."""
        done = subprocess.run(
            [
                "ip",
                "netns",
                "exec",
                self._namespace.name,
                "curl",
                "-sS",
                "-m",
                "60",
                "-X",
                method,
                f"http://127.0.0.1:{self.port}{path}",
            ]
            + ["-H", "Content-Type: application/json", "-w", "\n%{http_code}"]
            + (["--data-binary", "@-"] if body is not None else []),
            input=None if body is None else body if isinstance(body, str) else json.dumps(body),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ConnectionError(done.stderr)
        text, _, status = done.stdout.rpartition("\n")
        assert status.startswith("2"), text
        return json.loads(text)

    def count(self) -> int:
        """Documents that a search finds now."""
        self.ask("POST", "/logs-fixer.*/_refresh")
        return int(self.ask("GET", "/logs-fixer.*/_count")["count"])

    def search(self, body: dict[str, Any]) -> Any:
        return self.ask("POST", "/logs-fixer.*/_search", body)

    def identities(self) -> Iterator[str]:
        """The id of every document."""
        body: dict[str, Any] = {"size": 10_000, "_source": False, "sort": [{"event.id": "asc"}]}
        while hits := self.search(body)["hits"]["hits"]:
            yield from (hit["_id"] for hit in hits)
            body["search_after"] = hits[-1]["sort"]


def _java_home() -> str:
    java = shutil.which("java")
    assert java is not None
    return str(Path(java).resolve().parents[1])
