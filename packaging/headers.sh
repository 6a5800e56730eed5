#!/bin/sh
# Puts the headers of Dovecots into target/headers/ABI, as Debian's dovecot-dev lays them out, and
# prints the directories. Nothing is installed. packaging/abi.list says where each comes from.
#
#   packaging/headers.sh ABI...       makes what is not there, and fails if one cannot be had
#   packaging/headers.sh --at-hand    the ABIs whose headers are there or can be had; the others are
#                                     named on standard error, with what to do
#   packaging/headers.sh --all        all ABIs of the list
#
# DOVECOT_GIT names a copy of Dovecot's repository for the releases; else they come from GitHub.
set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
list=$top/packaging/abi.list
made=$top/target/headers
repository=${DOVECOT_GIT:-https://github.com/dovecot/core}
say() { echo "headers: $*" >&2; }

# The ABI's name in a config.h, up to the parenthesis.
named() { sed -n 's/^.define DOVECOT_ABI_VERSION "\([^("]*\).*"$/\1/p' "$1" 2> /dev/null; }

from_debian() { # SUITE DIRECTORY
	mkdir "$2/package"
	"$top/packaging/debian.sh" "$1" "$2/package" dovecot-dev || return
	dpkg-deb --fsys-tarfile "$2"/package/dovecot-dev_*.deb |
		tar -x -f - -C "$2" --strip-components 4 ./usr/include/dovecot || return
	rm -r "$2/package"
}

# Debian has all headers in one directory, and Dovecot's own has each in its folder.
from_release() { # TAG NEIGHBOUR DIRECTORY
	other=$(directory "$2") || return
	mkdir "$3/tree"
	case $repository in
	/*) git -C "$repository" archive "$1" src > "$3/tar" || return ;;
	*)
		git clone --quiet --depth 1 --branch "$1" "$repository" "$3/git" || return
		git -C "$3/git" archive HEAD src > "$3/tar" || return
		;;
	esac
	tar -x -f "$3/tar" -C "$3/tree" || return
	# A plugin includes libraries' headers, and those of programs may have the same names.
	find "$3/tree/src"/lib* -name '*.h' -not -path '*/test*' -exec cp -t "$3" {} + || return
	rm -rf "$3/tree" "$3/tar" "$3/git"
	sed -e "s/\"$(named "$other/config.h" | sed 's/\./\\./g')\(([^)]*)\)\{0,1\}\"/\"$abi($1)\"/" \
		-e "s/^\(.define \(DOVECOT_VERSION\|PACKAGE_VERSION\|VERSION\)\) \".*\"/\1 \"$1\"/" \
		"$other/config.h" > "$3/config.h"
}

directory() ( # ABI: prints the directory, and makes it
	abi=$1
	[ "$(named "$made/$abi/config.h")" != "$abi" ] || { echo "$made/$abi"; exit; }
	line=$(awk -v abi="$abi" '$1 == abi' "$list")
	[ -n "$line" ] || {
		say "$abi is not in packaging/abi.list: name its headers," \
			"make abi ABI=$abi DOVECOT_INCDIR=DIRECTORY"
		exit 2
	}
	# shellcheck disable=SC2086
	set -- $line
	making=$made/.making-$abi
	rm -rf "$making"
	mkdir -p "$making"
	trap 'rm -rf "$making"' EXIT
	case $2 in
	debian) from_debian "$3" "$making" >&2 ;;
	release) from_release "$3" "$4" "$making" >&2 ;;
	*) say "packaging/abi.list knows no source '$2'" && exit 2 ;;
	esac || {
		say "$abi: no headers from $2 $3; name them: make abi ABI=$abi DOVECOT_INCDIR=DIRECTORY"
		exit 1
	}
	has=$(named "$making/config.h")
	[ "$has" = "$abi" ] || {
		say "$2 $3 has headers of ${has:-no known ABI}, and packaging/abi.list says $abi:" \
			"correct the list"
		exit 1
	}
	rm -rf "${made:?}/$abi"
	mv "$making" "$made/$abi"
	trap - EXIT
	echo "$made/$abi"
)

case ${1-} in
--all)
	awk '/^[0-9]/ { print $1 }' "$list"
	;;
--at-hand)
	for abi in $("$0" --all); do
		if directory "$abi" > /dev/null; then
			echo "$abi"
		else
			say "WITHOUT $abi: see above"
		fi
	done
	;;
-* | '')
	sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p;}' "$0" >&2
	exit 2
	;;
*)
	for abi in "$@"; do directory "$abi"; done
	;;
esac
