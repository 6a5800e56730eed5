#!/bin/sh
# Runs cargo or the C compiler so that what they make runs where glibc 2.17 (of 2012) or a newer one
# is, and needs no other library.
#
#   packaging/old-glibc.sh cargo SUBCOMMAND ARGUMENT...    builds into target/zig, without symbols
#   packaging/old-glibc.sh cc ARGUMENT...
#
# The linker is zig's, from PyPI: `tests/hosts/setup.sh python zig` puts it into target/tools/zig.
set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
tools=$top/target/tools/zig/bin
machine=x86_64
glibc=2.17
[ -x "$tools/cargo-zigbuild" ] || {
	echo "old-glibc: no $tools/cargo-zigbuild: run 'tests/hosts/setup.sh python zig'" >&2
	exit 2
}
what=$1
shift
case $what in
cargo)
	subcommand=$1
	shift
	# Paths of this machine stand in messages of panics, and so in the file.
	cargo_home=${CARGO_HOME:-$HOME/.cargo}
	RUSTFLAGS="--remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$top=/uidl-keep"
	export RUSTFLAGS CARGO_PROFILE_RELEASE_DEBUG=none CARGO_PROFILE_RELEASE_STRIP=symbols
	PATH=$tools:$PATH exec nice "$tools/cargo-zigbuild" "$subcommand" --locked --release \
		--target "$machine-unknown-linux-gnu.$glibc" --target-dir "$top/target/zig" "$@"
	;;
cc)
	exec "$tools/python3" -m ziglang cc -target "$machine-linux-gnu.$glibc" "$@"
	;;
esac
