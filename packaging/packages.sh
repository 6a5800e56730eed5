#!/bin/sh
# Makes the packages of what is built: .deb, .rpm and .tar.gz.
#
#   packaging/packages.sh DIRECTORY [VERSION]      else the version of Cargo.toml
set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$top"
mkdir -p "$1"
into=$(CDPATH='' cd -- "$1" && pwd)
version=${2:-$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)}
rm -f "$into"/uidl-keep[-_]*
# Files bear the time of the commit, so that the same sources give the same packages.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || date +%s)}
export SOURCE_DATE_EPOCH
stage=target/stage

packaging/stage.sh "$stage" /usr/lib/dovecot/modules
packaging/tarball.sh "$stage" "$version" "$into" /usr/lib/dovecot/modules
packaging/deb.sh "$stage" "$version" "$into"
packaging/stage.sh "$stage" /usr/lib64/dovecot
packaging/rpm.sh "$stage" "$version" "$into" /usr/lib64/dovecot
rm -rf "$stage"
