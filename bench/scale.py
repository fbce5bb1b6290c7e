#!/usr/bin/env python3
"""Measures whether names are found as fast among a million tags as among a thousand.

    cargo build --release && python3 bench/scale.py [--metadata URL] [--repositories N] [--rounds N] [--dir DIR] [--json FILE]

Two registries are filled by pushing: one with 100 repositories of 10 tags, the other with --repositories (100,000) of 10
tags. Then each is asked the same questions in turn, about repositories chosen at random from all that it has: a page of tags,
the referrers of a manifest, a page of the catalog, and a manifest by tag, of which nothing is remembered (`cache.manifests`
is 0). At last manifests are remembered, as they are by default, and 1,000 tags are asked for again and again: in the small
registry these are all tags, in the large one 100 repositories far from each other. It wants the Debian package wrk.

Names are kept in the registry's own database; with --metadata in PostgreSQL, where the URL names a database that is used
for the large registry, and one with `_small` behind its name for the small one; both must be there and empty. With --dir the
next run asks what this one has filled.
"""

import argparse
import asyncio
import hashlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import urllib.parse

from registry import MANIFEST, ROOT, Server, free_port, in_turn, ratio, report, row, wrk

TAGS = 10
REFERRERS = 20
PUSHERS = 32
BAR = 1.3

# wrk asks for paths that it makes from random numbers; the seed is the same for every registry.
ASK = """
local repositories, step, kind = %d, %d, "%s"
math.randomseed(20261122)
request = function()
  local number = step * math.random(0, repositories / step - 1)
  local name = string.format("/v2/team%%02d/app%%07d", number %% 100, number)
  local path
  if kind == "manifest" then path = name .. "/manifests/v" .. math.random(0, %d)
  elseif kind == "tags" then path = name .. "/tags/list?n=5&last=v2"
  elseif kind == "referrers" then path = name .. "/referrers/%s"
  else path = string.format("/v2/_catalog?n=3&last=team%%02d/app%%07d", number %% 100, number) end
  return wrk.format("GET", path)
end
"""


def manifest(**more):
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2,
             "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}
    whole = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example.bench",
             "config": empty, "layers": [], **more}
    return json.dumps(whole, sort_keys=True).encode()


IMAGE = manifest()
SUBJECT = "sha256:" + hashlib.sha256(IMAGE).hexdigest()


def pushes(number):
    """What is pushed to one repository: an image with all its tags, and what is about it."""
    name = f"/v2/team{number % 100:02}/app{number:07}"
    tags = "&".join(f"tag=v{tag}" for tag in range(TAGS))
    yield f"{name}/manifests/{SUBJECT}?{tags}", IMAGE
    # Not every repository has referrers: they would be most of the database.
    for index in range(REFERRERS if number % 20 == 0 else 0):
        subject = {"mediaType": MANIFEST, "digest": SUBJECT, "size": len(IMAGE)}
        body = manifest(subject=subject, annotations={"index": str(index)})
        yield f"{name}/manifests/sha256:{hashlib.sha256(body).hexdigest()}", body


async def push_all(port, numbers):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in numbers:
        for path, body in pushes(number):
            head = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {MANIFEST}\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            if b" 201 " not in answer.split(b"\r\n")[0]:
                rest = await reader.read(4096)
                sys.exit(f"{path}: {(answer + rest).decode()}")
    writer.close()


async def fill(port, repositories):
    numbers = iter(range(repositories))
    done = 0

    def counted():
        nonlocal done
        for number in numbers:
            done += 1
            if done % 10_000 == 0:
                print(f"  {done} repositories", file=sys.stderr)
            yield number

    shared = counted()
    await asyncio.gather(*(push_all(port, shared) for _ in range(PUSHERS)))


def fill_once(server, repositories, note):
    """Fills a registry unless an earlier run has noted that it did."""
    if os.path.exists(note) and open(note).read() == str(repositories):
        return
    began = time.monotonic()
    asyncio.run(fill(server.port, repositories))
    print(f"{server.name}: {repositories * TAGS} tags in {time.monotonic() - began:.0f} s", file=sys.stderr)
    with open(note, "w") as file:
        file.write(str(repositories))


def start(options, directory, name, metadata, remembered):
    port, home = free_port(), os.path.join(directory, name)
    os.makedirs(home, exist_ok=True)
    path = os.path.join(home, "deltaport.toml")
    storage = f"[storage]\nmetadata = '{metadata}'\n" if metadata else ""
    storage += "" if remembered else "[cache]\nmanifests = '0B'\n"
    with open(path, "w") as file:
        file.write(f"listen = '127.0.0.1:{port}'\ndata = '{home}/data'\n{storage}[log]\nlevel = 'warn'\n")
    return Server(name, [options.binary, "serve", "--config", path], port, home)


def small_one(url):
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(path=parts.path + "_small"))


def ask(server, repositories, step, kind, directory, seconds):
    script = os.path.join(directory, f"{kind}-{server.name}.lua")
    with open(script, "w") as file:
        file.write(ASK % (repositories, step, kind, TAGS - 1, SUBJECT))
    return wrk(server, "/", 8, seconds, script)[0]


def measure(options, directory, servers, steps, kind, what, table):
    """Asks each registry in turn, about every so many-th of its repositories."""
    measures = {name: lambda name=name: ask(servers[name], options.sizes[name], steps[name], kind, directory,
                                            options.seconds) for name in servers}
    results = in_turn(options.rounds, measures)
    slower = ratio(results, "small", "large")
    rates = {name: f"{statistics.median(rates):,.0f}/s" for name, rates in results.items()}
    row(table, what, rates["large"], f"{100 * TAGS:,} tags", rates["small"], f"{slower:.2f} x", f"<= {BAR} x",
        slower <= BAR)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/release/deltaport"))
    parser.add_argument("--metadata", help="URL of a PostgreSQL database")
    parser.add_argument("--repositories", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="length of one load, seconds")
    parser.add_argument("--dir", help="where everything is kept, and found again by the next run (default: a temporary directory)")
    parser.add_argument("--json", help="also write the rows to this file")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("install the package wrk")
    directory = options.dir or tempfile.mkdtemp(prefix="scale-")
    options.sizes = {"small": 100, "large": options.repositories}
    places = {"small": options.metadata and small_one(options.metadata), "large": options.metadata}
    servers, table = {}, []
    try:
        for name, repositories in options.sizes.items():
            servers[name] = start(options, directory, name, places[name], remembered=False)
            fill_once(servers[name], repositories, os.path.join(directory, f"{name}.filled"))
        every, some = dict.fromkeys(servers, 1), dict.fromkeys(servers, 20)
        for kind, what, steps in [("manifest", "GET manifest by tag, none remembered", every), ("tags", "a page of tags", every),
                                  ("referrers", "referrers", some), ("catalog", "a page of the catalog", every)]:
            measure(options, directory, servers, steps, kind, what, table)
        for name in options.sizes:
            servers[name].stop()
            servers[name] = start(options, directory, name, places[name], remembered=True)
        hundred = {name: repositories // 100 for name, repositories in options.sizes.items()}
        measure(options, directory, servers, hundred, "manifest", "GET manifest by tag, 1,000 of them, remembered", table)
    finally:
        for server in servers.values():
            server.stop()
        if not options.dir:
            shutil.rmtree(directory, ignore_errors=True)
    report(table, options.json)


if __name__ == "__main__":
    main()
