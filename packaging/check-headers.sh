#!/bin/sh
# Compiles the plugin against the headers of every ABI that are at hand, and names the others.
#
#   packaging/check-headers.sh
set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$top"
at_hand=$(packaging/headers.sh --at-hand)
[ -n "$at_hand" ] || {
	echo 'check-headers: no headers of any Dovecot are at hand' >&2
	exit 2
}
status=0
good=
# One target directory: what the plugin depends on is compiled once, and it stays small.
for abi in $at_hand; do
	DOVECOT_INCDIR=$(packaging/headers.sh "$abi")
	export DOVECOT_INCDIR
	if CARGO_PROFILE_DEV_DEBUG=none cargo check --locked --quiet --lib --no-default-features \
		--features plugin --target-dir target/check-headers; then
		good="$good $abi"
	else
		echo "check-headers: FAILED against $abi ($DOVECOT_INCDIR)" >&2
		status=1
	fi
done
echo "check-headers: the plugin compiles for$good"
for abi in $(packaging/headers.sh --all); do
	echo "$at_hand" | grep -qxF "$abi" ||
		echo "check-headers: NOT CHECKED for $abi: its headers are not at hand" >&2
done
exit "$status"
