#!/usr/bin/env python3
"""Measures a hub while a thousand sites ask it for the same update within a minute.

    bench/corpus && cargo build --release && python3 bench/fleet.py [--config FILE]... [--sites N] [--json FILE]

An image of the real layers in bench/corpus is pushed, and then its update under the same tag. From that moment on sites come,
spread over a minute, each on a connection of its own, and ask what a site of deltaport asks (docs/delta-protocol.md): the
manifest of the tag with the digest that they have, the configuration, and for each layer a delta from the one that they hold,
again and again until it is made; then they fetch it. Sites are simulated: they verify the digest of what they get, but do
not apply it. Wants the Debian package skopeo.

The hub is one process with its own storage; with --config, one process for each file, which has to say where names and bytes
are (`listen` and `data` are added), and sites go to them in turn.

    each delta is made once; memory of each process below 500 MiB; 99 of 100 manifests within a second
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time

from registry import MANIFEST, ROOT, Server, free_port, report, request, row, upload

DELTA = "application/vnd.deltaport.layer-delta.v1"


def start(options, directory, number, config):
    port, home = free_port(), os.path.join(directory, f"hub-{number}")
    os.makedirs(home)
    path = os.path.join(home, "deltaport.toml")
    with open(path, "w") as file:
        file.write(f"listen = '127.0.0.1:{port}'\ndata = '{home}/data'\n{config}\n[log]\nlevel = 'warn'\n")
    return Server(f"hub-{number}", [options.binary, "serve", "--config", path], port, home)


def layers_of(corpus, pair, version):
    layout = os.path.join(corpus, pair)

    def content(named):
        with open(os.path.join(layout, "blobs", *named.split(":")), "rb") as file:
            return file.read()

    index = json.load(open(os.path.join(layout, "index.json")))
    entry = next(entry for entry in index["manifests"]
                 if entry["annotations"]["org.opencontainers.image.ref.name"] == version)
    return [content(layer["digest"]) for layer in json.loads(content(entry["digest"]))["layers"]]


def push(server, tag, layers, config):
    """Pushes an image; returns its manifest as a value."""
    described = [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": len(layer),
                  "digest": upload(server, "fleet/app", layer)} for layer in layers]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": described,
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": len(config),
                           "digest": upload(server, "fleet/app", config)}}
    status, _, answer = request(server, "PUT", f"/v2/fleet/app/manifests/{tag}", json.dumps(manifest).encode(),
                                {"Content-Type": MANIFEST})
    assert status == 201, (status, answer)
    return manifest


class Site:
    """One site, with a connection of its own."""

    def __init__(self, port):
        self.port, self.manifest, self.waits = port, None, 0

    async def ask(self, path, headers=""):
        self.out.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{headers}\r\n".encode())
        head = (await self.into.readuntil(b"\r\n\r\n")).decode()
        fields = {name.lower(): value for name, value in re.findall(r"^([\w-]+): (.*?)\r$", head, re.M)}
        body = await self.into.readexactly(int(fields.get("content-length", 0)))
        return int(head.split()[1]), fields, body

    async def update(self, old, pairs):
        """Fetches the update; `pairs` are the old and the new digest of each layer."""
        self.into, self.out = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 26)
        began = time.monotonic()
        status, _, body = await self.ask("/v2/fleet/app/manifests/1", f'Accept: {MANIFEST}\r\nIf-None-Match: "{old}"\r\n')
        assert status == 200, (status, body)
        self.manifest = time.monotonic() - began
        config = json.loads(body)["config"]["digest"]
        status, _, body = await self.ask(f"/v2/fleet/app/blobs/{config}")
        assert status == 200 and digest(body) == config, status
        for base, target in pairs:
            while True:
                question = f"/v2/fleet/app/_deltaport/delta/layer?to={target}&from={base}&inline=4000000"
                status, fields, body = await self.ask(question)
                if status != 202:
                    break
                self.waits += 1
                await asyncio.sleep(float(fields["retry-after"]))
            assert status == 200 and fields["content-type"] == DELTA, (status, fields, body[:200])
            assert digest(body) == fields["docker-content-digest"], "wrong bytes"
        self.out.close()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


async def fleet(sites, seconds, old, pairs):
    generator = random.Random(20261122)

    async def come(site, after):
        await asyncio.sleep(after)
        await site.update(old, pairs)

    await asyncio.gather(*(come(site, generator.uniform(0, seconds)) for site in sites))


def counted(servers, name):
    """A counter of /metrics, over all servers."""
    total = 0
    for server in servers:
        text = request(server, "GET", "/metrics")[2].decode()
        total += sum(float(value) for value in re.findall(rf"^{name}(?:\{{.*\}})? ([\d.]+)$", text, re.M))
    return int(total)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/release/deltaport"))
    parser.add_argument("--config", action="append", help="more of the configuration of one process of the hub")
    parser.add_argument("--corpus", default=os.path.join(ROOT, "target/corpus"))
    parser.add_argument("--pairs", nargs="+", default=["debian12", "debian13", "go"])
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--dir", help="where everything is kept (default: a temporary directory)")
    parser.add_argument("--json", help="also write the rows to this file")
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="fleet-", dir=options.dir)
    servers, table = [], []
    try:
        for number, file in enumerate(options.config or [os.devnull]):
            servers.append(start(options, directory, number, open(file).read()))
        versions = {version: [layer for pair in options.pairs for layer in layers_of(options.corpus, pair, version)]
                    for version in ("old", "new")}
        old = push(servers[0], "1", versions["old"], b'{"version": "old"}')
        before = counted(servers, "deltaport_deltas_made_total")
        for server in servers:
            server.reset_peak()
        new = push(servers[-1], "1", versions["new"], b'{"version": "new"}')
        pairs = [(a["digest"], b["digest"]) for a, b in zip(old["layers"], new["layers"])]
        sites = [Site(servers[number % len(servers)].port) for number in range(options.sites)]
        asyncio.run(fleet(sites, options.seconds, digest(json.dumps(old).encode()), pairs))
        made = counted(servers, "deltaport_deltas_made_total") - before
        peak = max(server.status("VmHWM") for server in servers) / 1024
        slowest = sorted(site.manifest for site in sites)[len(sites) * 99 // 100]
        waits = sum(site.waits for site in sites)
        print(f"  {waits} answers were: it is being made", file=sys.stderr)
        name = f"{options.sites} sites, {len(servers)} process{'es' if len(servers) > 1 else ''}"
        row(table, f"{name}: deltas made", f"{made}", "layers that changed", f"{len(pairs)}", "-", "each once",
            made == len(pairs))
        row(table, f"{name}: memory, the largest", f"{peak:.0f} MiB", "-", "-", "-", "< 500 MiB", peak < 500)
        row(table, f"{name}: 99 of 100 manifests within", f"{1000 * slowest:.0f} ms", "-", "-", "-", "< 1 s", slowest < 1)
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)
    report(table, options.json)


if __name__ == "__main__":
    main()
