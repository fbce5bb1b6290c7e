#!/usr/bin/env python3
"""Measures a site: an update over a bad link, a herd of clients, a fast link, and what is cached.

    cargo build --release && python3 bench/site.py [--corpus DIR] [--pair NAME] [--rounds N] [--json FILE] [MEASURE...]

MEASURE is update, herd, fast or cached; default: all. It wants the Debian packages skopeo and docker-registry, and for
update and fast the pair of images that bench/corpus makes (debian12). The bad link is a relay in this program: it shapes TCP
to a rate, adds a round trip and resets a connection after so many bytes. Servers are processes of their own; clients are
in this one and compare every blob with its digest.

    update   WAN bytes at most the deltas + 64 KiB; at least 20 x faster than without deltas; site below 300 MiB
    herd     50 clients, one cold blob of 64 MiB: 1 upstream GET; first bytes at most 50 ms behind upstream's
    fast     loopback: `auto` takes at most 1.1 x the time of `never`
    cached   a cached pull is at least as fast as one from docker-registry
"""

import argparse
import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from registry import MIB, ROOT, Server, free_port, push_image, report, request, row, start_docker_registry

ACCEPT = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
PARCEL = 16 << 10


class Relay:
    """A TCP relay on loopback, in a thread of its own; as good as loopback until it is shaped."""

    def __init__(self, port, rate=None, round_trip=0.0, reset_every=None):
        self.target, self.terms, self.shaped = port, (rate, round_trip, reset_every), False
        self.sent = self.received = self.resets = 0
        self.free = {"sent": 0.0, "received": 0.0}
        self.port = free_port()
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        threading.Thread(target=self._run, args=(started,), daemon=True).start()
        started.wait()

    def _run(self, started):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", self.port))
        started.set()
        self.loop.run_forever()

    async def _connection(self, client_in, client_out):
        if self.shaped:
            await asyncio.sleep(self.terms[1])
        try:
            server_in, server_out = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            client_out.close()
            return
        ends = [client_out, server_out]
        await asyncio.gather(self._carry("sent", client_in, server_out, ends),
                             self._carry("received", server_in, client_out, ends))

    async def _carry(self, way, source, sink, ends):
        carried, pending = 0, asyncio.Queue()

        async def deliver():
            while True:
                at, parcel = await pending.get()
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                if parcel is None:
                    sink.close()
                    return
                sink.write(parcel)
                await sink.drain()
                setattr(self, way, getattr(self, way) + len(parcel))

        delivery = asyncio.ensure_future(deliver())
        rate, round_trip, reset_every = self.terms
        with contextlib.suppress(OSError):
            while parcel := await source.read(PARCEL):
                at = time.monotonic()
                if self.shaped:
                    carried += len(parcel)
                    if way == "received" and reset_every and carried > reset_every:
                        self.resets += 1
                        for end in ends:
                            end.transport.abort()
                        break
                    self.free[way] = at = max(at, self.free[way]) + len(parcel) / rate
                    await asyncio.sleep(max(0.0, at - time.monotonic()))
                    at += round_trip / 2
                pending.put_nowait((at, parcel))
        pending.put_nowait((time.monotonic() + (self.terms[1] / 2 if self.shaped else 0), None))
        with contextlib.suppress(OSError):
            await delivery

    def total(self):
        return self.sent + self.received


def start(options, directory, name, config=""):
    port, home = free_port(), os.path.join(directory, name)
    os.makedirs(home)
    path = os.path.join(home, "deltaport.toml")
    with open(path, "w") as file:
        file.write(f"listen = '127.0.0.1:{port}'\ndata = '{home}/data'\n{config}\n[log]\nlevel = 'warn'\n")
    return Server(name, [options.binary, "serve", "--config", path], port, home)


def site_of(options, directory, name, port, deltas):
    upstream = f"[[upstream]]\nhost = 'hub'\nurl = 'http://127.0.0.1:{port}'\ndefault = true\ndeltas = '{deltas}'"
    return start(options, directory, name, upstream)


def blob(port, repository, digest):
    """Fetches a blob, compares it with its digest and says how many bytes it has."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=900)
    connection.request("GET", f"/v2/{repository}/blobs/{digest}")
    response = connection.getresponse()
    assert response.status == 200, (response.status, response.read()[:500])
    hasher, size = hashlib.sha256(), 0
    while chunk := response.read(MIB):
        hasher.update(chunk)
        size += len(chunk)
    assert "sha256:" + hasher.hexdigest() == digest, "wrong bytes"
    connection.close()
    return size


def pull(port, repository, tag, held=()):
    """Pulls an image as clients do, several blobs at once; returns the digests of its blobs and the seconds."""
    begin = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=900)
    connection.request("GET", f"/v2/{repository}/manifests/{tag}", headers={"Accept": ACCEPT})
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, (response.status, body[:500])
    manifest = json.loads(body)
    digests = [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
    failures = []

    def fetch(digest):
        try:
            blob(port, repository, digest)
        except Exception as failure:  # told by the thread that waits
            failures.append(failure)

    threads = [threading.Thread(target=fetch, args=(digest,)) for digest in digests if digest not in held]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return digests, time.monotonic() - begin


def copy(layout, tag, server, name):
    subprocess.run(["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", "--preserve-digests",
                    f"oci:{layout}:{tag}", f"docker://127.0.0.1:{server.port}/{name}"], check=True)


def wait_for_delta(hub, repository, new, old):
    """Waits until the hub has the deltas to `new`; returns how many bytes they have."""
    total = 0
    for target in new:
        if target in old:
            continue
        bases = "".join(f"&from={digest}" for digest in old)
        while True:
            status, location, _ = request(hub, "GET", f"/v2/{repository}/_deltaport/delta/layer?to={target}{bases}")
            if status != 202:
                break
            time.sleep(0.5)
        if status == 307:
            total += len(request(hub, "GET", location)[2])
        else:
            total += blob(hub.port, repository, target)
    return total


def digests_in(layout, tag):
    index = json.load(open(os.path.join(layout, "index.json")))
    entry = next(entry for entry in index["manifests"]
                 if entry["annotations"]["org.opencontainers.image.ref.name"] == tag)
    manifest = json.load(open(os.path.join(layout, "blobs", *entry["digest"].split(":"))))
    return [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]


def update(options, directory, servers, table):
    layout = os.path.join(options.corpus, options.pair)
    hub = start(options, directory, "hub")
    servers.append(hub)
    copy(layout, "old", hub, "app:1")
    sites, first = {}, []
    for deltas in ("never", "auto"):
        relay = Relay(hub.port, 10e6 / 8, 0.3, 8 * MIB)
        relay.shaped = True
        site = site_of(options, directory, f"site-{deltas}", relay.port, deltas)
        servers.append(site)
        sites[deltas] = (site, relay)
        # Each has a link of its own.
        first.append(threading.Thread(target=pull, args=(site.port, "app", "1")))
        first[-1].start()
    for thread in first:
        thread.join()
    held = digests_in(layout, "old")
    copy(layout, "new", hub, "app:1")
    deltas_size = wait_for_delta(hub, "app", digests_in(layout, "new"), digests_in(layout, "old"))
    took = {}
    for deltas, (site, relay) in sites.items():
        site.reset_peak()
        before, relay.resets = relay.total(), 0
        _, seconds = pull(site.port, "app", "1", held)
        took[deltas] = (relay.total() - before, seconds, site.status("VmHWM") / 1024, relay.resets)
    wan, seconds, peak, resets = took["auto"]
    whole, whole_seconds, whole_peak, whole_resets = took["never"]
    name = f"update of {options.pair}, 10 Mbit/s, 300 ms, resets ({resets} and {whole_resets})"
    row(table, f"{name}: WAN bytes", f"{wan:,}", "the deltas", f"{deltas_size:,}", f"{wan - deltas_size:+,}",
        "<= deltas + 65,536", wan <= deltas_size + (64 << 10))
    row(table, f"{name}: time", f"{seconds:.1f} s", "without deltas", f"{whole_seconds:.1f} s ({whole:,} bytes)",
        f"{whole_seconds / seconds:.1f} x", ">= 20 x", whole_seconds >= 20 * seconds)
    peak = max(peak, whole_peak)
    row(table, f"{name}: memory of the site", f"{peak:.0f} MiB", "-", "-", "-", "< 300 MiB", peak < 300)


class Slow:
    """An upstream with one blob: it sends the first 64 KiB, waits a second, and sends the rest."""

    def __init__(self, content):
        self.content, self.gets, self.first = content, 0, None
        self.digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self.port = free_port()

    async def serve(self):
        return await asyncio.start_server(self._connection, "127.0.0.1", self.port)

    async def _connection(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path = head.split()[:2]
                if "/blobs/" not in path:
                    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    continue
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(self.content)}\r\n\r\n".encode())
                if method == "HEAD":
                    continue
                self.gets += 1
                await asyncio.sleep(0.5)
                self.first = time.monotonic()
                writer.write(self.content[:64 << 10])
                await asyncio.sleep(1)
                writer.write(self.content[64 << 10:])
                await writer.drain()


async def herd_of(site_port, upstream, clients):
    async def client():
        reader, writer = await asyncio.open_connection("127.0.0.1", site_port)
        writer.write(f"GET /v2/app/blobs/{upstream.digest} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        chunk = await reader.read(1)
        first, hasher, left = time.monotonic(), hashlib.sha256(chunk), len(upstream.content) - 1
        while left and (chunk := await reader.read(MIB)):
            hasher.update(chunk)
            left -= len(chunk)
        writer.close()
        assert "sha256:" + hasher.hexdigest() == upstream.digest
        return first

    async with await upstream.serve():
        return await asyncio.gather(*(client() for _ in range(clients)))


def herd(options, directory, servers, table):
    upstream = Slow(random.Random(5).randbytes(64 * MIB))
    site = site_of(options, directory, "site-herd", upstream.port, "never")
    servers.append(site)
    firsts = asyncio.run(herd_of(site.port, upstream, 50))
    worst = (max(firsts) - upstream.first) * 1000
    row(table, "50 clients, one cold blob of 64 MiB: upstream GETs", str(upstream.gets), "-", "-", "-", "1",
        upstream.gets == 1)
    row(table, "50 clients, one cold blob of 64 MiB: last first byte behind upstream's", f"{worst:.0f} ms", "-", "-", "-",
        "<= 50 ms", worst <= 50)
    peak = site.status("VmHWM") / 1024
    row(table, "50 clients, one cold blob of 64 MiB: memory of the site", f"{peak:.0f} MiB", "-", "-", "-", "< 300 MiB",
        peak < 300)


def fast(options, directory, servers, table):
    layout = os.path.join(options.corpus, options.pair)
    hub = start(options, directory, "hub-fast")
    servers.append(hub)
    copy(layout, "old", hub, "app:1")
    copy(layout, "new", hub, "app:2")
    wait_for_delta(hub, "app", digests_in(layout, "new"), digests_in(layout, "old"))
    times = {"auto": [], "never": []}
    for turn in range(options.rounds):
        for deltas in times:
            site = site_of(options, directory, f"fast-{deltas}-{turn}", hub.port, deltas)
            try:
                held, _ = pull(site.port, "app", "1")
                times[deltas].append(pull(site.port, "app", "2", held)[1])
            finally:
                site.stop()
    value = statistics.median(auto / never for auto, never in zip(times["auto"], times["never"]))
    row(table, f"update of {options.pair} on loopback, auto", f"{statistics.median(times['auto']):.2f} s", "never",
        f"{statistics.median(times['never']):.2f} s", f"{value:.2f} x", "<= 1.1 x", value <= 1.1)


def cached(options, directory, servers, table):
    registry = start_docker_registry(directory)
    servers.append(registry)
    generator = random.Random(9)
    push_image(registry, "app", "1", [generator.randbytes(size * MIB) for size in (1, 4, 16, 64)])
    site = site_of(options, directory, "site-cached", registry.port, "auto")
    servers.append(site)
    pull(site.port, "app", "1")
    times = {"site": [], "registry": []}
    for _ in range(2 * options.rounds):
        times["site"].append(pull(site.port, "app", "1")[1])
        times["registry"].append(pull(registry.port, "app", "1")[1])
    value = statistics.median(theirs / ours for ours, theirs in zip(times["site"], times["registry"]))
    row(table, "cached pull of 85 MiB through a site of docker-registry", f"{statistics.median(times['site']):.3f} s",
        "docker-registry itself", f"{statistics.median(times['registry']):.3f} s", f"{value:.2f} x", ">= 1 x", value >= 1)


MEASURES = {"update": update, "herd": herd, "fast": fast, "cached": cached}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", metavar="MEASURE", default=list(MEASURES))
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/release/deltaport"))
    parser.add_argument("--corpus", default=os.path.join(ROOT, "target/corpus"), help="what bench/corpus made")
    parser.add_argument("--pair", default="debian12")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="also write the rows to this file")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    missing = [tool for tool in ("skopeo", "docker-registry") if not shutil.which(tool)]
    if missing:
        sys.exit("missing Debian packages: " + " ".join(missing))
    if not os.access(options.binary, os.X_OK):
        sys.exit(f"no {options.binary}; run: cargo build --release")
    if unknown := [name for name in options.measures if name not in MEASURES]:
        sys.exit(f"no measure {unknown[0]}; there are {', '.join(MEASURES)}")
    table = []
    for name in options.measures:
        directory, servers = tempfile.mkdtemp(prefix="deltaport-bench-"), []
        try:
            MEASURES[name](options, directory, servers, table)
        finally:
            for server in servers:
                server.stop()
            shutil.rmtree(directory, ignore_errors=True)
    report(table, options.json)


if __name__ == "__main__":
    main()
