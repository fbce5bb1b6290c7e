#!/bin/bash
# Builds a real update: one Debian image as it was released, and the same image with the updates of today.
#
#   bench/debian-pair.sh DIRECTORY [CODENAME [PACKAGES]]
#
# Prints the path of an OCI layout below DIRECTORY with the tags `old` (the release alone) and `new` (the release, its
# updates and its security updates). Both are made with mmdebstrap and buildah, one gzip layer each. The layout is kept
# under the dates of the package lists it was made from: as long as apt offers nothing newer, the next call only prints
# the path. A pair made from other dates is removed. Calls at the same time wait for one another.
#
# CODENAME is this machine's own release unless given (bookworm, trixie). PACKAGES are what comes on top of the minimal
# system, with commas; "" for nothing. The package sources are those of this machine's apt; for another release than its
# own, the same ones with the other name. Needs root, and mmdebstrap, buildah, util-linux.
set -euo pipefail

case ${1:-} in '' | -*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;; esac
for tool in mmdebstrap buildah unshare flock apt-get; do
  command -v "$tool" >/dev/null || { echo "debian-pair: $tool is missing (Debian packages: mmdebstrap buildah)" >&2; exit 1; }
done
directory=$(mkdir -p "$1" && cd "$1" && pwd)
own=$(. /etc/os-release && echo "${VERSION_CODENAME:?this is not a Debian release}")
codename=${2:-$own}
include=${3-openssl,curl,ca-certificates}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
signed=$([ ! -f $keyring ] || echo "[signed-by=$keyring]")

exec 9>"$directory/lock"
flock 9

# One line per source that apt knows for a release: "uri suite list-file".
apt_sources() { # codename apt-option...
  apt-get indextargets "${@:2}" --format '$(LABEL)|$(REPO_URI) $(RELEASE) $(FILENAME)|$(COMPONENT)' \
    'Created-By: Packages' | sed -n 's/^Debian[^|]*|\(.*\)|main$/\1/p' | grep -E " $1(-updates|-security)? " || true
}
sources=$(apt_sources "$own")
[ -n "$sources" ] || { apt-get -qq update >&2; sources=$(apt_sources "$own"); }
[ -n "$sources" ] || { echo "debian-pair: apt knows no source for $own; see sources.list(5)" >&2; exit 1; }
if [ "$codename" != "$own" ]; then # lists of its own: this machine's apt keeps to its release
  apt=$directory/apt-$codename
  mkdir -p "$apt/lists/partial"
  echo "$sources" | while read -r uri suite _; do echo "deb $signed $uri $codename${suite#"$own"} main"; done >"$apt/sources"
  other=(-o "Dir::Etc::SourceList=$apt/sources" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$apt/lists"
    -o "Dir::Cache=$apt")
  apt-get -qq "${other[@]}" update >&2
  sources=$(apt_sources "$codename" "${other[@]}")
  [ -n "$sources" ] || { echo "debian-pair: the sources of $own have no $codename" >&2; exit 1; }
fi

# The date of the Release file behind each source decides what the images hold.
release_date() { # list-file
  for release in "${1%_main_binary-*}_InRelease" "${1%_main_binary-*}_Release"; do
    [ ! -f "$release" ] || { sed -n 's/^Date: //p' "$release" | head -n 1; return; }
  done
}
dated=$(echo "$sources" | while read -r uri suite list; do echo "$suite $(release_date "$list")"; done | sort -u)
key=$(printf '%s\n' "$include" "$dated" | cat - "$0" | sha256sum | cut -c 1-16)
layout=$directory/debian-$codename-$key
[ ! -d "$layout" ] || { echo "$layout"; exit 0; }

# dpkg syncs each file, so a tmpfs is three times faster; two root file systems and their images take 2 GiB.
scratch=/dev/shm
[ "$(df -Pm "$scratch" 2>/dev/null | awk 'NR == 2 { print $4 }')" -ge 3000 ] || scratch=$directory
work=$(mktemp -d "$scratch/debian-pair.XXXXXX")
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work

# What goes into an image is dated as the newest Release file it draws on: files keep the times of their packages.
newest() { # suite-pattern
  echo "$dated" | grep -E "^$1 " | cut -d ' ' -f 2- | while read -r date; do date -d "$date" +%s; done | sort -n | tail -n 1
}

root_filesystem() { # tag suite-pattern
  local options=()
  while read -r option; do options+=(--aptopt="$option"); done < <(apt-config dump | grep -E '^Acquire::https?::Proxy ')
  echo "$sources" | grep -E " $2 " | sort -u | while read -r uri suite _; do
    echo "deb $signed $uri $suite main"
  done >"$work/$1.list"
  # usrmerge would draw in all of perl; the hook merges /usr and usr-is-merged satisfies the dependency.
  SOURCE_DATE_EPOCH=$(newest "$2") mmdebstrap --quiet --mode=root --variant=minbase ${include:+--include="$include"} \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --dpkgopt=force-unsafe-io "${options[@]}" \
    --setup-hook='printf "Package: usrmerge\nPin: release *\nPin-Priority: -1\n" > "$1/etc/apt/preferences.d/pair"' \
    --customize-hook='rm "$1/etc/apt/preferences.d/pair"' \
    "$codename" "$work/$1.tar" - <"$work/$1.list" >"$work/$1.log" 2>&1 9>&- || { tail -n 20 "$work/$1.log" >&2; return 1; }
}
root_filesystem old "$codename" & old=$!
root_filesystem new "$codename(-updates|-security)?"
wait $old

# buildah keeps a cache of known layers in /var/lib/containers whatever it is told: it gets one of its own.
export BUILDAH_ISOLATION=chroot REGISTRY_AUTH_FILE=$work/auth.json CONTAINERS_CONF=$work/containers.conf work
echo '{}' >"$REGISTRY_AUTH_FILE"
printf '[network]\nnetwork_config_dir = "%s/cni"\n' "$work" >"$CONTAINERS_CONF"
unshare --mount --propagation private bash -euo pipefail -s >&2 9>&- <<'IMAGES'
mkdir -p /var/lib/containers && mount -t tmpfs tmpfs /var/lib/containers
for tag in old new; do
  buildah() { command buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$work/$tag.tar" / >/dev/null
  buildah config --cmd bash --os linux "$container"
  # Without --timestamp: that would date every file of the layer alike, which no real update does.
  buildah commit --quiet --format oci "$container" "localhost/pair:$tag" >/dev/null
  buildah push --quiet "localhost/pair:$tag" "oci:$work/layout:$tag"
  buildah rm "$container" >/dev/null
  buildah rmi --all --force >/dev/null
done
IMAGES

rm -rf "$directory/debian-$codename"-* "$directory/unfinished"
cp -r "$work/layout" "$directory/unfinished"
echo "$dated" >"$directory/unfinished/dates"
mv "$directory/unfinished" "$layout"
echo "$layout"
