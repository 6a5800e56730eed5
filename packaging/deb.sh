#!/bin/sh
# Makes uidl-keep_VERSION_amd64.deb of a staged tree.
#
#   packaging/deb.sh STAGE VERSION DIRECTORY
set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
stage=$1
version=$2
into=$3
here=$top/packaging
package=$into/uidl-keep_${version}_amd64.deb

mkdir -p "$into" "$stage/DEBIAN"
{
	echo 'uidl-keep, https://github.com/uidl-keep/uidl-keep, is under the first or the second of these'
	echo "licences, at your choice. Those of what it is linked with are in THIRD-PARTY.gz."
	cat "$top/LICENSE-MIT" "$top/LICENSE-APACHE"
} > "$stage/usr/share/doc/uidl-keep/copyright"
install -m 755 -t "$stage/DEBIAN" "$here/deb/postinst" "$here/deb/prerm"
# A script that runs after the removal finds nothing of the package any more.
sed '/^\[ "\$1" = purge \]/r /dev/stdin' "$here/deb/postrm" < "$here/package/after-purge" |
	sed '2,$ { /^#!/d }' > "$stage/DEBIAN/postrm"
chmod 755 "$stage/DEBIAN/postrm"
sed -e "s/@VERSION@/$version/" \
	-e "s/@SIZE@/$(du -s --apparent-size -k --exclude=DEBIAN "$stage" | cut -f 1)/" \
	"$here/deb/control" > "$stage/DEBIAN/control"
(cd "$stage" && find usr -type f -print0 | sort -z | xargs -0 md5sum) > "$stage/DEBIAN/md5sums"
# dpkg of Debian 11 reads no zstd, which other systems' dpkg-deb would take.
dpkg-deb --root-owner-group -Zxz --build "$stage" "$package.new" > /dev/null
mv "$package.new" "$package"
echo "$package"
