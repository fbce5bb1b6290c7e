#!/usr/bin/env python3
"""Measures a deltaport beside an earlier one, both with their own storage, and prints a table of ratios.

    cargo build --release && python3 bench/before.py EARLIER [--rounds N] [--json FILE]

EARLIER is the binary to compare with. It wants the Debian packages wrk and curl. Both servers run all the time and are asked
in turn, round by round; a ratio below 0.97 is a loss.
"""

import argparse
import os
import random
import statistics
import tempfile

from registry import MIB, ROOT, in_turn, push_image, push_rate, ratio, report, row, start_deltaport, upload, wrk

BAR = 0.97


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("earlier", help="the binary to compare with")
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/release/deltaport"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=2, help="length of one load, seconds")
    parser.add_argument("--json", help="also write the rows to this file")
    options = parser.parse_args()
    generator, servers, digests, table = random.Random(20261122), {}, {}, []
    blob = generator.randbytes(MIB)
    with tempfile.TemporaryDirectory(prefix="before-") as directory:
        try:
            for name, binary in {"now": options.binary, "before": options.earlier}.items():
                home = os.path.join(directory, name)
                os.makedirs(home)
                servers[name] = start_deltaport(binary, home)
                push_image(servers[name], "bench/app", "v1", [blob])
                digests[name] = upload(servers[name], "bench/app", blob)

            def manifests(name):
                return wrk(servers[name], "/v2/bench/app/manifests/v1", 16, options.seconds)[0]

            def blobs(name):
                return wrk(servers[name], f"/v2/bench/app/blobs/{digests[name]}", 8, options.seconds)[1] / 1e6

            def pushes(name):
                return push_rate(servers[name], directory, 64 * MIB, generator) / 1e6

            for what, unit, one in [("GET manifest by tag, 16 connections", "/s", manifests),
                                    ("GET blob of 1 MiB, 8 connections", " MB/s", blobs),
                                    ("push of 64 MiB, durable", " MB/s", pushes)]:
                results = in_turn(options.rounds, {name: lambda name=name: one(name) for name in servers})
                value = ratio(results, "now", "before")
                shown = {name: f"{statistics.median(rates):,.0f}{unit}" for name, rates in results.items()}
                row(table, what, shown["now"], "before", shown["before"], f"{value:.2f} x", f">= {BAR} x", value >= BAR)
        finally:
            for server in servers.values():
                server.stop()
    report(table, options.json)


if __name__ == "__main__":
    main()
