#!/bin/sh
# Compiles everything with the oldest Rust that is promised: Debian 13's own, in its tree, where
# nothing finds another Rust. It builds the helper as an old server does; then helper and tests;
# then the plugin.
#
# The build is in target/oldest, and cargo's downloads are beside it. UIDL_KEEP_TARGET names another
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
		env -C /srv/uidl-keep CARGO_TARGET_DIR=/srv/target \
		CARGO_BUILD_JOBS="${CARGO_BUILD_JOBS:-$(nproc)}" CARGO_PROFILE_DEV_DEBUG=none cargo "$@"
}

# Only the plugin's build may leave a library that `make install` would take for it.
rm -f "$built/debug/libuidl_keep.so"
inside build --locked
inside build --locked --all-targets --features plugin
if [ -e "$built/debug/libuidl_keep.so" ]; then
	echo "oldest: a build that is not the plugin's left a libuidl_keep.so" >&2
	exit 1
fi
inside rustc --locked --lib --crate-type cdylib --no-default-features --features plugin
echo "oldest: Rust $has builds everything"
