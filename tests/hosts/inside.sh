#!/bin/sh
# Runs a command in a Debian tree as on a machine of its own: as its root, in its /root, with its
# programs, and without this machine's environment.
#
#   tests/hosts/inside.sh TREE [-b DIRECTORY PLACE]... COMMAND [ARGUMENT]...
#
# -b puts a directory of this machine at a place within the tree. Only that command sees the mounts.
# They end with it, and so does every process that it started. The tree gets only what it needs from
# this machine to reach the network: name servers, apt's proxy, the trusted certificates, and
# cargo's source of crates.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if [ "${1-}" != --alone ]; then
	[ "$(id -u)" = 0 ] || {
		echo "inside: not root: only root can enter a tree" >&2
		exit 2
	}
	# It is pid 1 of a namespace of its own: when it ends, the kernel ends the rest.
	exec unshare --mount --propagation unchanged --pid --fork --kill-child "$0" --alone "$@"
fi
shift
# shellcheck source=tests/hosts/alone.sh
. "$here/alone.sh"

tree=$1
shift
mount -t proc proc "$tree/proc"
mount --rbind /dev "$tree/dev"
while [ "${1-}" = -b ]; do
	mkdir -p "$tree$3"
	mount --bind "$2" "$tree$3"
	shift 3
done

cat /etc/resolv.conf > "$tree/etc/resolv.conf"
trusted=/etc/ssl/certs/ca-certificates.crt
if [ -s "$trusted" ] && [ -x "$tree/usr/sbin/update-ca-certificates" ]; then
	ours=$tree/usr/local/share/ca-certificates/this-machine.crt
	if ! cmp -s "$trusted" "$ours"; then
		cp "$trusted" "$ours"
		chroot "$tree" update-ca-certificates > /dev/null 2>&1
	fi
fi
mkdir -p "$tree/root/.cargo"
for name in config.toml config; do
	settings=${CARGO_HOME:-$HOME/.cargo}/$name
	[ ! -f "$settings" ] || cp "$settings" "$tree/root/.cargo/"
done

for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
	eval "value=\${$name-}"
	[ -z "$value" ] || set -- "$name=$value" "$@"
done
# This is no exec: this shell is pid 1 in there and takes care of processes that lose their parent.
chroot "$tree" env -i -C /root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	HOME=/root LC_ALL=C.UTF-8 "$@" || exit
