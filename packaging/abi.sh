#!/bin/sh
# Builds the plugin for an ABI of Dovecot and glibc 2.17, checks it, and puts it into
# target/abi/ABI/lib95_uidl_keep_plugin.so.
#
#   packaging/abi.sh ABI...        with the headers of packaging/headers.sh
#   packaging/abi.sh --at-hand     each whose headers are at hand
#
#   packaging/abi.sh --built       prints each that is built of the sources as they are
#
# DOVECOT_INCDIR names the headers of one ABI, where packaging/headers.sh cannot get them. What is
# built already of the same sources and headers is left as it is.
set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$top"
die() {
	echo "abi: $*" >&2
	exit 2
}

sources() {
	{
		cat packaging/old-glibc.sh Cargo.toml Cargo.lock build.rs
		find src include dovecot-plugin -type f -not -path 'src/bin/*' -print0 |
			sort -z | xargs -0 sha256sum
		rustc --version
	} | sha256sum | cut -d ' ' -f 1
}

build() { # ABI HEADERS
	module=target/abi/$1/lib95_uidl_keep_plugin.so
	made_of="$(sources) $(cd "$2" && find . -name '*.h' -print0 | sort -z | xargs -0 cat | sha256sum)"
	[ "$(cat "target/abi/$1/.made-of" 2> /dev/null)" != "$made_of" ] || return 0
	echo "abi: building the plugin for $1"
	DOVECOT_INCDIR=$2 packaging/old-glibc.sh cargo rustc --quiet --lib --crate-type cdylib \
		--no-default-features --features plugin
	mkdir -p "target/abi/$1"
	rm -f "target/abi/$1/.made-of"
	packaging/old-glibc-check.sh target/zig/x86_64-unknown-linux-gnu/release/libuidl_keep.so "$1"
	install -m 644 target/zig/x86_64-unknown-linux-gnu/release/libuidl_keep.so "$module.new"
	mv "$module.new" "$module"
	echo "$made_of" > "target/abi/$1/.made-of"
}

if [ -n "${DOVECOT_INCDIR-}" ]; then
	[ $# = 1 ] || die 'DOVECOT_INCDIR has the headers of one ABI: name that one'
	named=$(sed -n 's/^.define DOVECOT_ABI_VERSION "\([^("]*\).*"$/\1/p' \
		"$DOVECOT_INCDIR/config.h" 2> /dev/null) || true
	[ -n "$named" ] || die "$DOVECOT_INCDIR has no config.h that says which Dovecot it is of"
	[ "$named" = "$1" ] || die "$DOVECOT_INCDIR has headers of $named, and you ask for $1"
	build "$1" "$(CDPATH='' cd -- "$DOVECOT_INCDIR" && pwd)"
	exit
fi
case ${1-} in
--built)
	now=$(sources)
	for made in target/abi/*/.made-of; do
		[ -e "$made" ] || continue
		abi=$(basename "${made%/*}")
		if [ "$(cut -d ' ' -f 1 "$made")" = "$now" ]; then
			echo "$abi"
		else
			echo "abi: WITHOUT $abi: it was built of other sources: make abi ABI=$abi" >&2
		fi
	done
	exit
	;;
--at-hand)
	# shellcheck disable=SC2046
	set -- $(packaging/headers.sh --at-hand)
	[ $# != 0 ] || die 'no headers of any Dovecot are at hand'
	;;
-* | '')
	sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p;}' "$0" >&2
	exit 2
	;;
esac
for abi in "$@"; do
	headers=$(packaging/headers.sh "$abi")
	build "$abi" "$headers"
done
