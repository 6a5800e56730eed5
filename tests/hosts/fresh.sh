#!/bin/sh
# Does what a newcomer does: clones the commit that is checked out here into a new Debian, and runs
# make.
#
#   tests/hosts/fresh.sh TREE TARGET...    fresh12 or fresh13 of packages.sh; targets: demo, test
#
# The new system gets nothing from this machine but its network. The tree that was used is removed
# at the end; UIDL_KEEP_FRESH_KEEP=1 leaves it.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
tree=$1
shift

"$here/setup.sh" tree "$tree"
pristine=$("$here/setup.sh" where "$tree")
used=$(mktemp -d "$pristine.XXXXXX")
log=$pristine.used.log
clean_up() {
	if [ "${UIDL_KEEP_FRESH_KEEP-}" = 1 ]; then
		echo "fresh: left behind: $used" >&2
	else
		rm -rf --one-file-system "$used"
	fi
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

cp -a "$pristine/." "$used/"
git -C "$here" bundle create --quiet "$used/root/uidl-keep.bundle" HEAD
debian=$(cat "$used/etc/debian_version")
commit=$(git -C "$here" rev-parse --short HEAD)
: > "$log"

status=0
report=
step() { # WORDS COMMAND...: prints what it prints, and remembers how it went and how long it took
	words=$1
	shift
	began=$(date +%s)
	echo "fresh: Debian $debian: $words"
	if { "$here/inside.sh" "$used" "$@" 2>&1 || : > "$used.failed"; } | tee -a "$log" &&
		[ ! -e "$used.failed" ]; then
		went=passed
	else
		rm -f "$used.failed"
		went=FAILED
		status=1
	fi
	report="$report
fresh: Debian $debian, $commit: $words $went, $(($(date +%s) - began)) s"
}

step 'git clone' git clone --quiet /root/uidl-keep.bundle uidl-keep
if [ "$status" = 0 ]; then
	for target in "$@"; do
		step "make $target" make -C uidl-keep "$target"
	done
	# On Debian 12 the library there is that of `make plugin`. The demo makes none, and none may lie
	# there on Debian 13.
	step 'make install of what lies there' sh -c \
		'! test -e uidl-keep/target/release/libuidl_keep.so ||
			make -C uidl-keep install DESTDIR=/root/installed'
fi
echo "$report"
[ "$status" = 0 ] || echo "fresh: all that was said is in $log" >&2
exit "$status"
