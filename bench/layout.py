"""Reading and writing OCI image layouts whose images have one layer, and the few things around that.

For the programs beside it; not a program of its own.
"""

import gzip
import hashlib
import json
import os
import shutil
import subprocess

TAGS = ("old", "new")
OCI = "application/vnd.oci.image."


def run(command, **options):
    """Runs a command; its output is shown only when it fails."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode:
        shown = " ".join(str(word) for word in command)
        raise RuntimeError(f"{shown}: exit {done.returncode}\n{done.stdout.decode(errors='replace')[-4000:]}")
    return done.stdout.decode(errors="replace").strip()


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link(source, target):
    """The same file under another name; a copy where that cannot be."""
    if os.path.lexists(target):
        os.remove(target)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def read_json(layout, digest):
    with open(os.path.join(layout, "blobs", *digest.split(":")), encoding="utf-8") as file:
        return json.load(file)


def layer_of(layout, tag):
    """The path and media type of the only layer of a tag."""
    with open(os.path.join(layout, "index.json"), encoding="utf-8") as file:
        index = json.load(file)
    [manifest] = [entry for entry in index["manifests"]
                  if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag]
    layers = read_json(layout, manifest["digest"])["layers"]
    # A build without a file change leaves a layer of nothing but the end of the archive.
    [layer] = [layer for layer in layers if layer["size"] > 1024]
    return os.path.join(layout, "blobs", *layer["digest"].split(":")), layer["mediaType"]


def add_blob(layout, data, source=None):
    """Puts bytes, or a file by moving it, into the layout; returns digest and size."""
    digest = sha256(source) if source else hashlib.sha256(data).hexdigest()
    path = os.path.join(layout, "blobs", "sha256", digest)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if source:
        shutil.move(source, path)
    else:
        with open(path, "wb") as file:
            file.write(data)
    return {"digest": "sha256:" + digest, "size": os.path.getsize(path)}


def write_image(layout, tag, blob, suffix, plain):
    """Makes an image of one layer blob: for the tools that compress but know nothing of images."""
    layer = {"mediaType": f"{OCI}layer.v1.tar{suffix}", **add_blob(layout, None, source=blob)}
    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + sha256(plain)]}}
    config = {"mediaType": f"{OCI}config.v1+json", **add_blob(layout, json.dumps(config).encode())}
    manifest = {"schemaVersion": 2, "mediaType": f"{OCI}manifest.v1+json", "config": config, "layers": [layer]}
    manifest = {"mediaType": f"{OCI}manifest.v1+json", **add_blob(layout, json.dumps(manifest).encode()),
                "annotations": {"org.opencontainers.image.ref.name": tag}}
    path = os.path.join(layout, "index.json")
    index = {"schemaVersion": 2, "manifests": []}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            index = json.load(file)
    index["manifests"].append(manifest)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(index, file)
    with open(os.path.join(layout, "oci-layout"), "w", encoding="utf-8") as file:
        file.write('{"imageLayoutVersion":"1.0.0"}')


def decompress(blob, target):
    with open(blob, "rb") as file:
        magic = file.read(4)
    with open(target, "wb") as out:
        if magic[:2] == b"\x1f\x8b":
            with gzip.open(blob) as source:
                shutil.copyfileobj(source, out, 1 << 20)
        elif magic == b"\x28\xb5\x2f\xfd":
            subprocess.run(["zstd", "-dcq", blob], stdout=out, check=True)
        else:
            with open(blob, "rb") as source:
                shutil.copyfileobj(source, out, 1 << 20)
