#!/bin/sh
# Installs uidl-keep from this directory, for servers of which no package system knows Dovecot.
#
#   ./install.sh [--modules DIRECTORY]     DIRECTORY: where Dovecot looks for plugins, if not where
#                                          `doveconf mail_plugin_dir` says
#   ./install.sh --remove                  takes it away again; the site stays
#
# Run it again after you have unpacked another version.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
loader=lib95_uidl_keep_plugin.so
# The names of all that was installed, for --remove.
installed=/usr/lib/uidl-keep/installed
die() {
	echo "install.sh: $*" >&2
	exit 2
}

modules=
case ${1-} in
'') ;;
--modules)
	modules=${2-}
	[ -d "$modules" ] || die "--modules $modules: no such directory"
	;;
--remove)
	[ -e "$installed" ] || die "no $installed: nothing of this kind is installed here"
	/usr/lib/uidl-keep/before-removal
	while read -r file; do rm -f "$file"; done < "$installed"
	rm -f "$installed"
	find /usr/lib/uidl-keep /usr/share/uidl-keep /usr/share/doc/uidl-keep -depth -type d \
		-exec rmdir {} + 2> /dev/null || true
	exit 0
	;;
*)
	sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p;}' "$0" >&2
	exit 2
	;;
esac
[ "$(id -u)" = 0 ] || die 'not root: run again as root'
for owner in 'dpkg-query -S' 'rpm -qf'; do
	! $owner /usr/bin/uidl-keep > /dev/null 2>&1 ||
		die "a package has installed uidl-keep here: upgrade that, or remove it first"
done
if [ -z "$modules" ] && command -v doveconf > /dev/null; then
	modules=$(doveconf -h mail_plugin_dir) ||
		die "'doveconf mail_plugin_dir' fails: mend what it names, or say --modules DIRECTORY"
fi

# A process that has a file open keeps the old one: each is renamed into its place.
put() { # FILE PLACE
	mkdir -p "${2%/*}"
	cp -dp "$1" "$2.uidl-keep-new"
	chown -h root:root "$2.uidl-keep-new"
	mv -fT "$2.uidl-keep-new" "$2"
	echo "$2" >> "$installed.new"
}
when=first
[ ! -e "$installed" ] || when=again
mkdir -p "${installed%/*}"
[ ! -e "$installed" ] || cp "$installed" "$installed.before"
: > "$installed.new"
(cd "$here/files" && find usr \( -type f -o -type l \)) | sort > "$installed.list"
while read -r file; do put "$here/files/$file" "/$file"; done < "$installed.list"
# An old server whose helper captures has no Dovecot.
[ -z "$modules" ] || put "$here/$loader" "$modules/$loader"
if [ -e "$installed.before" ]; then
	# Files of the version before that this one has not.
	grep -vxFf "$installed.new" "$installed.before" | while read -r file; do rm -f "$file"; done
fi
rm -f "$installed.list" "$installed.before"
mv "$installed.new" "$installed"
/usr/lib/uidl-keep/after-install "$when" "${modules:-none}"
