#!/bin/sh
# Makes uidl-keep-VERSION-1.x86_64.rpm of a staged tree.
#
#   packaging/rpm.sh STAGE VERSION DIRECTORY MODULES
set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
stage=$(CDPATH='' cd -- "$1" && pwd)
version=$2
into=$3
modules=$4
work=$top/target/rpm

rm -rf "$work"
mkdir -p "$work" "$into"
rpmbuild --quiet -bb --target x86_64 --define "_topdir $work" --define "_rpmdir $work/made" \
	--define "stage $stage" --define "staged_version $version" --define "modules $modules" \
	--define 'use_source_date_epoch_as_buildtime 1' \
	--define 'clamp_mtime_to_source_date_epoch 1' --define '_buildhost reproducible' \
	"$top/packaging/rpm/uidl-keep.spec"
mv "$work/made/x86_64/uidl-keep-$version-1.x86_64.rpm" "$into/"
rm -rf "$work"
echo "$into/uidl-keep-$version-1.x86_64.rpm"
