#!/usr/bin/env python3
"""Measures deltaport beside its peers on loopback, in one run, and prints a table of ratios.

    cargo build --release && python3 bench/registry.py [--rounds N] [--seconds S] [--json FILE]

It installs nothing. It wants these Debian packages: docker-registry nginx-light (or nginx) wrk curl.
Every measure runs all its servers in turn, round by round, so that a change in the machine's speed meets all of them;
the ratio is taken round by round and its median is shown. Everything lives in a temporary directory (--dir) and every
process that is started is ended.
"""

import argparse
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGES = {"docker-registry": "docker-registry", "nginx": "nginx-light", "wrk": "wrk", "curl": "curl", "dd": "coreutils"}
MIB = 1 << 20
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port, process, log):
    for _ in range(200):
        if process.poll() is not None:
            sys.exit(f"the server ended at once; its log:\n{open(log).read()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}; log: {log}")


class Server:
    """A server process on loopback."""

    def __init__(self, name, command, port, directory):
        self.name, self.port = name, port
        log = os.path.join(directory, f"{name}.log")
        env = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
        self.process = subprocess.Popen(command, stdout=open(log, "wb"), stderr=subprocess.STDOUT, env=env)
        wait_for(port, self.process, log)

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def status(self, key):
        """A figure in KiB from the process's status, summed over it and its children."""
        total = 0
        for pid in [self.process.pid, *children(self.process.pid)]:
            for line in open(f"/proc/{pid}/status"):
                if line.startswith(key + ":"):
                    total += int(line.split()[1])
        return total

    def reset_peak(self):
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as file:
            file.write("5")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def children(pid):
    try:
        return [int(child) for child in open(f"/proc/{pid}/task/{pid}/children").read().split()]
    except OSError:
        return []


def start_deltaport(binary, directory):
    port, config = free_port(), os.path.join(directory, "deltaport.toml")
    with open(config, "w") as file:
        # Nobody's access log is measured: the peers' are off too.
        file.write(f"listen = '127.0.0.1:{port}'\ndata = '{directory}/deltaport'\n[log]\nlevel = 'warn'\n")
    return Server("deltaport", [binary, "serve", "--config", config], port, directory)


def start_docker_registry(directory):
    port, config = free_port(), os.path.join(directory, "docker-registry.yml")
    with open(config, "w") as file:
        file.write(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {directory}/docker-registry}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '127.0.0.1:{port}', secret: bench}}\n"
        )
    return Server("docker-registry", ["docker-registry", "serve", config], port, directory)


def start_nginx(directory):
    port, config, files = free_port(), os.path.join(directory, "nginx.conf"), os.path.join(directory, "files")
    os.makedirs(files, exist_ok=True)
    os.chmod(directory, 0o755)
    user = "user root;" if os.geteuid() == 0 else ""
    with open(config, "w") as file:
        file.write(
            f"{user} daemon off; worker_processes 2; pid {directory}/nginx.pid; error_log {directory}/nginx-error.log;\n"
            "events { worker_connections 1024; }\n"
            "http { access_log off; sendfile off; output_buffers 2 256k; keepalive_requests 1000000;\n"
            f"  server {{ listen 127.0.0.1:{port}; root {files}; }} }}\n"
        )
    return Server("nginx", ["nginx", "-p", directory, "-c", config], port, directory)


def request(server, method, url, body=b"", headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request(method, url, body=body, headers=headers or {})
    response = connection.getresponse()
    content = response.read()
    location = response.getheader("Location") or ""
    connection.close()
    return response.status, re.sub(r"^https?://[^/]+", "", location), content


def upload(server, repository, content):
    """POST, then PUT with the bytes; returns the digest."""
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    status, location, _ = request(server, "POST", f"/v2/{repository}/blobs/uploads/")
    assert status == 202, (server.name, status)
    sign = "&" if "?" in location else "?"
    status, _, answer = request(server, "PUT", f"{location}{sign}digest={digest}", content,
                                {"Content-Type": "application/octet-stream"})
    assert status == 201, (server.name, status, answer)
    return digest


def push_image(server, repository, tag, blobs):
    layers = [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": upload(server, repository, blob),
               "size": len(blob)} for blob in blobs]
    config = b"{}"
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": upload(server, repository, config),
                   "size": len(config)},
    }).encode()
    status, _, answer = request(server, "PUT", f"/v2/{repository}/manifests/{tag}", manifest, {"Content-Type": MANIFEST})
    assert status == 201, (server.name, status, answer)


def wrk(server, path, connections, seconds, script=None):
    """Requests and bytes per second that the load generator saw; any error answer ends the run. A script says what is
    asked."""
    how = ["-s", script] if script else []
    output = subprocess.run(
        ["wrk", "-t2", f"-c{connections}", f"-d{seconds}s", *how, "-H", f"Accept: {MANIFEST}", server.url(path)],
        check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in output:
        sys.exit(f"{server.name} answered with errors:\n{output}")
    unit = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
    size, name = re.search(r"Transfer/sec:\s+([\d.]+)(\w+)", output).groups()
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1)), float(size) * unit[name]


def in_turn(rounds, measures):
    """Runs every measure once a round; returns its results by name."""
    results = {name: [] for name in measures}
    for round_number in range(rounds + 1):
        for name, measure in measures.items():
            value = measure()
            if round_number:  # the first round warms caches up
                results[name].append(value)
    return results


def ratio(results, ours, theirs):
    return statistics.median(a / b for a, b in zip(results[ours], results[theirs]))


def dd_rate(directory, source, counter=[0]):
    counter[0] += 1
    target = os.path.join(directory, f"dd-{counter[0]}")
    begin = time.monotonic()
    subprocess.run(["dd", f"if={source}", f"of={target}", "bs=1M", "conv=fsync"], check=True, stderr=subprocess.DEVNULL)
    rate = os.path.getsize(source) / (time.monotonic() - begin)
    os.remove(target)
    return rate


def push_rate(server, directory, size, generator):
    """One POST and PUT of fresh bytes by curl, as a client would; the time is curl's alone."""
    content = generator.randbytes(size)
    path = os.path.join(directory, "push.bin")
    with open(path, "wb") as file:
        file.write(content)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    begin = time.monotonic()
    _, location, _ = request(server, "POST", "/v2/bench/push/blobs/uploads/")
    sign = "&" if "?" in location else "?"
    done = subprocess.run(
        ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Expect:", "-H",
         "Content-Type: application/octet-stream", "-T", path, server.url(f"{location}{sign}digest={digest}")],
        check=True, capture_output=True, text=True)
    rate = size / (time.monotonic() - begin)
    assert done.stdout == "201", (server.name, done.stdout)
    return rate


def row(table, measure, ours, peer, theirs, value, bar, verdict):
    table.append({"measure": measure, "deltaport": ours, "peer": peer, "theirs": theirs, "ratio": value, "bar": bar,
                  "met": verdict})
    print(f"  {measure}: {ours} against {peer} {theirs}: {value} (bar {bar}) {'met' if verdict else 'MISSED'}",
          file=sys.stderr)


def report(table, path):
    """Prints the table, writes it to a file if one is named, and ends the program: with 1 when a bar is missed."""
    print("| measure | deltaport | peer | peer's figure | ratio | bar | met |")
    print("|---|---|---|---|---|---|---|")
    for entry in table:
        print("| {measure} | {deltaport} | {peer} | {theirs} | {ratio} | {bar} | {} |".format(
            "yes" if entry["met"] else "NO", **entry))
    if path:
        with open(path, "w") as file:
            json.dump(table, file, indent=1)
    sys.exit(0 if all(entry["met"] for entry in table) else 1)


def mbs(rates):
    return f"{statistics.median(rates) / 1e6:,.0f} MB/s"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/release/deltaport"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="length of one load, seconds")
    parser.add_argument("--dir", help="where everything is kept (default: a temporary directory)")
    parser.add_argument("--json", help="also write the rows to this file")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    missing = [package for tool, package in PACKAGES.items() if not shutil.which(tool)]
    if missing:
        sys.exit("missing Debian packages: " + " ".join(missing) + "\n  apt-get install --no-install-recommends " +
                 " ".join(missing))
    if not os.access(options.binary, os.X_OK):
        sys.exit(f"no {options.binary}; run: cargo build --release")

    directory = tempfile.mkdtemp(prefix="deltaport-bench-", dir=options.dir)
    generator, servers, table = random.Random(7), [], []
    try:
        ours = start_deltaport(options.binary, directory)
        servers.append(ours)
        time.sleep(2)
        idle = ours.status("VmRSS") / 1024
        registry = start_docker_registry(directory)
        nginx = start_nginx(directory)
        servers += [registry, nginx]
        small, large = generator.randbytes(MIB), generator.randbytes(64 * MIB)
        paths = {}
        for size, blob in ((1, small), (64, large)):
            paths[size] = f"/v2/bench/image/blobs/sha256:{hashlib.sha256(blob).hexdigest()}"
            with open(os.path.join(directory, "files", str(size)), "wb") as file:
                file.write(blob)
        for server in (ours, registry):
            push_image(server, "bench/image", "latest", [small, large])

        row(table, "memory, idle", f"{idle:.1f} MiB", "-", "-", "-", "< 40 MiB", idle < 40)

        tag = "/v2/bench/image/manifests/latest"
        rates = in_turn(options.rounds, {s.name: lambda s=s: wrk(s, tag, 16, options.seconds)[0] for s in (ours, registry)})
        value = ratio(rates, "deltaport", "docker-registry")
        row(table, "GET manifest by tag, 16 connections", f"{statistics.median(rates['deltaport']):,.0f}/s",
            "docker-registry", f"{statistics.median(rates['docker-registry']):,.0f}/s", f"{value:.1f} x", ">= 25 x",
            value >= 25)

        for size, connections in ((1, 8), (64, 4)):
            rates = in_turn(options.rounds, {
                "deltaport": lambda: wrk(ours, paths[size], connections, options.seconds)[1],
                "docker-registry": lambda: wrk(registry, paths[size], connections, options.seconds)[1],
                "nginx": lambda: wrk(nginx, f"/{size}", connections, options.seconds)[1],
            })
            value = ratio(rates, "deltaport", "nginx")
            row(table, f"GET blob of {size} MiB, {connections} connections", mbs(rates["deltaport"]),
                "nginx, 256 KiB reads", mbs(rates["nginx"]), f"{value:.2f} x", ">= 0.9 x", value >= 0.9)
            value = ratio(rates, "deltaport", "docker-registry")
            row(table, f"GET blob of {size} MiB, {connections} connections", mbs(rates["deltaport"]), "docker-registry",
                mbs(rates["docker-registry"]), f"{value:.1f} x", "-", True)

        source = os.path.join(directory, "files", "64")
        rates = in_turn(options.rounds, {
            "deltaport": lambda: push_rate(ours, directory, 64 * MIB, generator),
            "docker-registry": lambda: push_rate(registry, directory, 64 * MIB, generator),
            "dd": lambda: dd_rate(directory, source),
        })
        to_disk, to_peer = ratio(rates, "deltaport", "dd"), ratio(rates, "deltaport", "docker-registry")
        met = to_disk >= 0.8 or to_peer >= 2.5
        row(table, "push of 64 MiB, durable", mbs(rates["deltaport"]), "dd conv=fsync", mbs(rates["dd"]),
            f"{to_disk:.2f} x", ">= 0.8 x or the next", met)
        row(table, "push of 64 MiB, durable", mbs(rates["deltaport"]), "docker-registry (no fsync of its own)",
            mbs(rates["docker-registry"]), f"{to_peer:.2f} x", ">= 2.5 x or the last", met)

        ours.reset_peak()
        wrk(ours, paths[64], 64, 2 * options.seconds)
        peak = ours.status("VmHWM") / 1024
        row(table, "memory, 64 concurrent pulls of 64 MiB", f"{peak:.0f} MiB", "-", "-", "-", "< 150 MiB", peak < 150)
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)

    report(table, options.json)


if __name__ == "__main__":
    main()
