#!/bin/sh
# Downloads packages of a Debian suite, checks their signatures as apt does, and installs nothing.
#
#   packaging/debian.sh SUITE DIRECTORY PACKAGE...     the newest of each, into the directory
#
# It uses the mirror that this machine's own apt uses; UIDL_KEEP_MIRROR names another. Lists of a
# suite that Debian does not keep up any more may have passed their date.
set -eu

suite=$1
into=$2
shift 2
die() {
	echo "debian: $*" >&2
	exit 2
}

command -v apt-get > /dev/null || die "no apt-get here: get $* of Debian $suite by hand into $into"
mkdir -p "$into"
into=$(CDPATH='' cd -- "$into" && pwd)
top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
own=$top/target/apt/$suite
keys=/usr/share/keyrings/debian-archive-keyring.gpg
# shellcheck disable=SC2016
site=${UIDL_KEEP_MIRROR:-$(apt-get indextargets --format '$(SITE) $(COMPONENT) $(ORIGIN) $(LABEL)' \
	'Created-By: Packages' |
	awk '$2 == "main" && $3 == "Debian" && $4 == "Debian" { print $1; exit }')}
site=${site:-http://deb.debian.org/debian}

mkdir -p "$own/lists/partial" "$own/archives/partial"
echo "deb [signed-by=$keys] $site $suite main" > "$own/sources.list"
# Packages of this machine say nothing of that suite.
: > "$own/status"
apt() {
	apt-get -q -q -o "Dir::Etc::sourcelist=$own/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
		-o "Dir::State=$own" -o "Dir::State::status=$own/status" -o "Dir::State::lists=$own/lists" \
		-o "Dir::Cache=$own" -o APT::Architecture=amd64 -o APT::Architectures=amd64 \
		-o Acquire::Check-Valid-Until=false -o Acquire::Languages=none -o APT::Sandbox::User=root \
		"$@"
}
# A list that was read today does.
if [ -z "$(find "$own/lists" -name '*_Packages*' -mmin -720 | head -n 1)" ]; then
	apt update || die "no list of Debian $suite is to be had from $site"
	find "$own/lists" -name '*_Packages*' -exec touch {} +
fi
cd "$into"
apt download "$@" || die "$* of Debian $suite cannot be had from $site"
