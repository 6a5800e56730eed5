#!/bin/sh
# Makes uidl-keep-VERSION-x86_64-linux.tar.gz of a staged tree, with its install.sh.
#
#   packaging/tarball.sh STAGE VERSION DIRECTORY MODULES
set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
stage=$1
name=uidl-keep-$2-x86_64-linux
into=$3
modules=$4
loader=lib95_uidl_keep_plugin.so
work=$(mktemp -d "$top/target/tarball.XXXXXX")
trap 'rm -rf "$work"' EXIT

mkdir -p "$into" "$work/$name"
cp -a "$stage" "$work/$name/files"
# Dovecot itself says where its directory is, once it is known which Dovecot it is.
mv "$work/$name/files$modules/$loader" "$work/$name/"
rmdir -p "$work/$name/files$modules" 2> /dev/null || true
install -m 755 "$top/packaging/tarball/install.sh" "$work/$name/"
tar -c -C "$work" --sort=name --owner=0 --group=0 --numeric-owner \
	--mtime="@${SOURCE_DATE_EPOCH:-0}" --format=ustar "$name" | gzip -9 -n > "$work/made"
chmod 644 "$work/made"
mv "$work/made" "$into/$name.tar.gz"
echo "$into/$name.tar.gz"
