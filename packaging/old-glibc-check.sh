#!/bin/sh
# Checks that a program or a module runs with glibc 2.17 and needs no library beside it; of a plugin
# also that it is one, and for that ABI.
#
#   packaging/old-glibc-check.sh FILE [ABI | loader]
set -eu

file=$1
die() {
	echo "old-glibc-check: $file: $*" >&2
	exit 1
}

needs=$(readelf -W --version-info "$file" | grep -o 'GLIBC_[0-9.]*' | sort -uV)
newest=$(echo "$needs" | tail -n 1)
[ "$(printf '%s\nGLIBC_2.17\n' "$newest" | sort -V | tail -n 1)" = GLIBC_2.17 ] ||
	die "wants $newest, and nothing newer than GLIBC_2.17 may be wanted"
for library in $(readelf -W -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p'); do
	case $library in
	libc.so.6 | libm.so.6 | libdl.so.2 | libpthread.so.0 | librt.so.1 | libutil.so.1) ;;
	ld-linux-x86-64.so.2) ;;
	*) die "needs $library" ;;
	esac
done

[ $# = 2 ] || exit 0
has=$(nm -D --defined-only "$file" | awk '{ print $3 }' | sort | tr '\n' ' ')
exports='uidl_keep_plugin_deinit uidl_keep_plugin_init uidl_keep_plugin_preinit'
case $2 in
# Dovecot asks no module for a version that has none. The loader may have dependencies beside that:
# none can be met, and so a login is refused.
loader)
	[ "$(echo "$has" | sed 's/uidl_keep_plugin_dependencies //')" = "$exports " ] ||
		die "exports $has"
	;;
*)
	[ "$has" = "$exports uidl_keep_plugin_version " ] || die "exports $has"
	built=$(grep -aoE '2\.[0-9]+\.[0-9A-Za-z.]*ABIv[0-9]+' "$file" | sort -u | tr '\n' ' ' |
		sed 's/ $//')
	[ "$built" = "$2" ] || die "is for ${built:-no known ABI}, and $2 is asked for"
	;;
esac
