#!/bin/sh
# Compiles everything with the oldest Rust that is promised: Debian 13's own, in its tree, where nothing
# finds another. The helper as an old server builds it; then helper, plugin and tests.
#
# What is built lies in target/oldest, and what cargo fetched beside it. UIDL_KEEP_TARGET names another
# directory for both.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
top=$(CDPATH='' cd -- "$here/../.." && pwd)
built=${UIDL_KEEP_TARGET:-$top/target/oldest}
tree=$("$here/setup.sh" where oldest)

"$here/setup.sh" tree oldest
wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$top/Cargo.toml")
has=$(chroot "$tree" cargo --version | cut -d ' ' -f 2)
case $has in
"$wanted" | "$wanted".*) ;;
*)
	echo "oldest: $tree has Rust $has, and Cargo.toml promises $wanted: make the two agree" >&2
	exit 1
	;;
esac
mkdir -p "$built/cargo"

inside() {
	"$here/inside.sh" "$tree" -b "$top" /srv/uidl-keep -b "$built" /srv/target \
		-b "$built/cargo" /root/.cargo \
		env -C /srv/uidl-keep CARGO_TARGET_DIR=/srv/target CARGO_BUILD_JOBS="${CARGO_BUILD_JOBS:-$(nproc)}" \
		CARGO_PROFILE_DEV_DEBUG=none cargo "$@"
}

# What `make build` leaves must be no library that `make install` would take for a plugin.
rm -f "$built/debug/libuidl_keep.so"
inside build --locked --bin uidl-keep
if [ -e "$built/debug/libuidl_keep.so" ]; then
	echo "oldest: the helper alone left a libuidl_keep.so: 'make build' must not" >&2
	exit 1
fi
inside build --locked --all-targets --features plugin
echo "oldest: Rust $has builds everything"
