#!/usr/bin/env python3
"""What a verdict costs: the time that a pull takes longer when its image has to be judged by a signature.

Pushes signed images to `deltaport serve`, each with a signature of its own, and asks for the configuration of each, which is
served when the image's manifest is accepted: without a policy, with one for the first time (each is judged: the signature
is read and verified, the verdict is written down durably), again (the verdict is remembered), and after a restart (the
verdict is kept). Everything is on this machine; nothing else is asked.

    bench/verdicts.py target/release/deltaport [--images 200]
"""

import argparse
import base64
import hashlib
import http.client
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

NAME = "bench.example"
PORT = 5599


class Server:
    def __init__(self, binary, home, policy):
        trust = f'[trust]\npolicy = "{home}/policy.json"\nname = "{NAME}"\n' if policy else ""
        (home / "deltaport.toml").write_text(
            f'listen = "127.0.0.1:{PORT}"\ndata = "{home}/data"\npublic_upstreams = false\n'
            f'[log]\nlevel = "error"\n{trust}'
        )
        command = [binary, "serve", "--config", home / "deltaport.toml"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.connection = http.client.HTTPConnection("127.0.0.1", PORT)
        for _ in range(200):
            try:
                self.ask("GET", "/healthz")
                return
            except OSError:
                self.connection.close()
                time.sleep(0.05)
        raise SystemExit("the server does not start")

    def ask(self, method, path, body=None, headers=None):
        self.connection.request(method, path, body, headers or {})
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def push(self, method, path, body, kind="application/octet-stream"):
        status, text = self.ask(method, path, body, {"Content-Type": kind})
        assert status == 201, (path, status, text)

    def worked(self):
        """Milliseconds that its threads have computed so far, the system's part included."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.connection.close()
        self.process.terminate()
        self.process.wait()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(kind, data, **more):
    return {"mediaType": kind, "digest": digest(data), "size": len(data), **more}


def manifest(config, layers):
    oci = "application/vnd.oci.image.manifest.v1+json"
    return json.dumps({"schemaVersion": 2, "mediaType": oci, "config": config, "layers": layers}).encode()


def push_image(server, home, number):
    """Pushes an image and its signature; where its configuration is."""
    kind = "application/vnd.oci.image.config.v1+json"
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Labels": {"n": str(number)}}}).encode()
    image = manifest(descriptor(kind, config), [])
    payload = json.dumps({
        "critical": {
            "identity": {"docker-reference": f"{NAME}/app:{number}"},
            "image": {"docker-manifest-digest": digest(image)},
            "type": "cosign container image signature",
        },
        "optional": None,
    }).encode()
    sign = ["openssl", "dgst", "-sha256", "-sign", home / "key.pem"]
    signature = base64.b64encode(subprocess.run(sign, input=payload, capture_output=True, check=True).stdout).decode()
    simple = "application/vnd.dev.cosign.simplesigning.v1+json"
    layer = descriptor(simple, payload, annotations={"dev.cosignproject.cosign/signature": signature})
    for blob in (config, payload, b"{}"):
        server.push("POST", f"/v2/app/blobs/uploads/?digest={digest(blob)}", blob)
    oci = "application/vnd.oci.image.manifest.v1+json"
    server.push("PUT", f"/v2/app/manifests/{number}", image, oci)
    tag = digest(image).replace(":", "-") + ".sig"
    server.push("PUT", f"/v2/app/manifests/{tag}", manifest(descriptor(kind, b"{}"), [layer]), oci)
    return f"/v2/app/blobs/{digest(config)}"


def pulls(server, paths):
    """Milliseconds of each pull, and how many the server computed for each on average."""
    times, before = [], server.worked()
    for path in paths:
        began = time.perf_counter()
        status, text = server.ask("GET", path)
        times.append(1000 * (time.perf_counter() - began))
        assert status == 200, (path, status, text)
    return times, (server.worked() - before) / len(paths)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--images", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        home = pathlib.Path(directory)
        key = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", home / "key.pem"]
        subprocess.run(key, check=True, capture_output=True)
        public = ["openssl", "pkey", "-in", home / "key.pem", "-pubout", "-out", home / "key.pub"]
        subprocess.run(public, check=True, capture_output=True)
        policy = {"default": [{"type": "sigstoreSigned", "keyPath": str(home / "key.pub")}]}
        (home / "policy.json").write_text(json.dumps(policy))

        server = Server(arguments.binary, home, policy=False)
        paths = [push_image(server, home, number) for number in range(arguments.images)]
        server.stop()
        rows = []
        server = Server(arguments.binary, home, policy=False)
        rows.append(("without a policy", *pulls(server, paths)))
        server.stop()
        server = Server(arguments.binary, home, policy=True)
        rows.append(("judged", *pulls(server, paths)))
        rows.append(("remembered", *pulls(server, paths)))
        server.stop()
        server = Server(arguments.binary, home, policy=True)
        rows.append(("kept", *pulls(server, paths)))
        server.stop()
    base, idle = statistics.median(rows[0][1]), rows[0][2]
    print("| pull | median | 99 % | computed | more than without, elapsed | computed |")
    print("|---|---|---|---|---|---|")
    for name, times, worked in rows:
        most, median = sorted(times)[int(0.99 * (len(times) - 1))], statistics.median(times)
        more = f"{median - base:.2f} ms | {worked - idle:.2f} ms"
        print(f"| {name} | {median:.2f} ms | {most:.2f} ms | {worked:.2f} ms | {more} |")


if __name__ == "__main__":
    main()
