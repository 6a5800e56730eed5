#!/bin/sh
# Prints the licences of all crates that are linked into helper and plugin, as their authors gave
# them; most ask that they go along with the program.
set -eu

cd "$(dirname -- "$0")/.."
registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
cargo tree --locked --quiet --features plugin --edges normal --target x86_64-unknown-linux-gnu \
	--prefix none --format '{p} {l}' | sed 's/ (\*)$//' | sort -u |
	while read -r name version licence; do
		[ "$name" != uidl-keep ] || continue
		printf '%s\n%s %s: %s\n\n' \
			'----------------------------------------------------------------' \
			"$name" "${version#v}" "$licence"
		found=
		for file in "$registry"/*/"$name-${version#v}"/*; do
			case ${file##*/} in
			LICEN[CS]E* | COPYING* | COPYRIGHT* | NOTICE*)
				[ -f "$file" ] || continue
				found=yes
				cat "$file"
				echo
				;;
			esac
		done
		[ -n "$found" ] || echo '(The crate has no text of its licence.)'
	done
