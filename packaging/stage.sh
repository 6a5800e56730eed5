#!/bin/sh
# Puts all that a package has into an empty directory, as it will lie on a server.
#
#   packaging/stage.sh DIRECTORY MODULES     MODULES: where Dovecot looks for plugins, there
#
# It wants target/portable/uidl-keep, the loader beside it, and target/abi to be built: `make
# packages` sees to it.
set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
stage=$1
modules=$2
cd "$top"

rm -rf "$stage"
mkdir -p "$stage"
put() { # MODE DIRECTORY FILE...
	mode=$1
	into=$stage$2
	shift 2
	install -d -m 755 "$into"
	install -m "$mode" -t "$into" "$@"
}

put 755 /usr/bin target/portable/uidl-keep
put 644 "$modules" target/portable/lib95_uidl_keep_plugin.so
abis=$(packaging/abi.sh --built)
[ -n "$abis" ] || {
	echo "stage: no plugin is built of the sources as they are: run 'make abis'" >&2
	exit 2
}
for abi in $abis; do
	put 644 "/usr/lib/uidl-keep/abi/$abi" "target/abi/$abi/lib95_uidl_keep_plugin.so"
done
put 755 /usr/lib/uidl-keep packaging/package/after-install packaging/package/before-removal \
	packaging/package/loaded packaging/package/make-site

documents=$stage/documents
mkdir "$documents"
target/portable/uidl-keep documents "$documents"
put 644 /usr/share/man/man1 docs/uidl-keep.1 "$documents"/*.1
gzip -9 -n "$stage"/usr/share/man/man1/*
put 644 /usr/share/bash-completion/completions "$documents/uidl-keep.bash"
mv "$stage/usr/share/bash-completion/completions/uidl-keep.bash" \
	"$stage/usr/share/bash-completion/completions/uidl-keep"
put 644 /usr/share/fish/vendor_completions.d "$documents/uidl-keep.fish"
put 644 /usr/share/zsh/site-functions "$documents/_uidl-keep"
rm -r "$documents"

# Images of containers leave /usr/share/doc out, so that only links and words to read are there.
put 644 /usr/share/uidl-keep/examples dovecot-plugin/uidl-keep.conf \
	dovecot-plugin/uidl-keep-2.4.conf
put 644 /usr/share/uidl-keep/apparmor/local packaging/apparmor/local/*
put 644 /usr/share/uidl-keep/selinux packaging/selinux/uidl_keep.te packaging/selinux/uidl_keep.fc
put 644 /usr/share/doc/uidl-keep README.md CHANGELOG.md docs/*.md LICENSE-MIT LICENSE-APACHE
packaging/notices.sh | gzip -9 -n > "$stage/usr/share/doc/uidl-keep/THIRD-PARTY.gz"
ln -s ../../uidl-keep/examples "$stage/usr/share/doc/uidl-keep/examples"
find "$stage" -type d -exec chmod 755 {} +
