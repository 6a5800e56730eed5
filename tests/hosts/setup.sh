#!/bin/sh
# Installs the packages that a job needs and that are not there already.
#
#   tests/hosts/setup.sh packages GROUP...    build, dovecot, clients, tools, python, browser, fuzz,
#                                             packages of packages.sh
#   tests/hosts/setup.sh crates GROUP...      fuzz, mutants, deny of packages.sh, into target/tools
#   tests/hosts/setup.sh python GROUP...      ansible, zig of packages.sh, into target/tools/GROUP
#   tests/hosts/setup.sh rust                 a Rust as new as Cargo.toml asks for
#   tests/hosts/setup.sh names                localhost, where nothing knows that name
#   tests/hosts/setup.sh tree NAME...         one of `trees` of packages.sh
#   tests/hosts/setup.sh where NAME           prints the directory of a tree
#
# Trees are in UIDL_KEEP_TREES, or else in /var/cache/uidl-keep-trees; delete that directory to be
# rid of them. They use the mirror that this machine's own apt uses.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# shellcheck source=tests/hosts/packages.sh
. "$here/packages.sh"

trees_dir=${UIDL_KEEP_TREES:-/var/cache/uidl-keep-trees}
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

die() {
	echo "setup: $*" >&2
	exit 2
}

need_debian_root() {
	command -v apt-get > /dev/null ||
		die "no apt-get here: install the packages of $here/packages.sh by hand"
	[ "$(id -u)" = 0 ] || die "not root: run again as root, or install by hand: $*"
}

installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2> /dev/null)" = installed ]
}

# A mail server that is installed for tests must not start to serve on the public ports.
policy=/usr/sbin/policy-rc.d
policy_is_ours=

without_starting_services() {
	if [ ! -e "$policy" ]; then
		policy_is_ours=yes
		trap 'rm -f "$policy"' EXIT
		printf '#!/bin/sh\nexit 101\n' > "$policy"
		chmod 755 "$policy"
	fi
	"$@"
	if [ -n "$policy_is_ours" ]; then
		rm -f "$policy"
		trap - EXIT
		policy_is_ours=
	fi
}

install_packages() {
	missing=
	for group in "$@"; do
		eval "wanted=\${packages_$group-}"
		[ -n "$wanted" ] || die "no group of packages is called '$group': see $here/packages.sh"
		for package in $wanted; do
			installed "$package" || missing="$missing $package"
		done
	done
	[ -n "$missing" ] || return 0
	need_debian_root "$missing"
	echo "setup: installing$missing"
	apt-get -q update
	# shellcheck disable=SC2086
	without_starting_services apt-get -q -y --no-install-recommends install $missing
}

rust_is_new_enough() {
	found=$(cargo --version 2> /dev/null | cut -d ' ' -f 2) || return 1
	[ -n "$found" ] && dpkg --compare-versions "$found" ge "$rust_wanted"
}

install_rust() {
	rust_wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$here/../../Cargo.toml")
	! rust_is_new_enough || return 0
	need_debian_root "Rust $rust_wanted"
	apt-get -q update
	for choice in $rust_choices; do
		eval "wanted=\$rust_${choice}_packages"
		for package in $wanted; do
			candidate=$(apt-cache policy "$package" | sed -n 's/^  Candidate: //p')
			dpkg --compare-versions "${candidate:-0}" ge "$rust_wanted" || continue 2
		done
		echo "setup: installing $wanted"
		# shellcheck disable=SC2086
		apt-get -q -y --no-install-recommends install $wanted
		rust_is_new_enough ||
			die "$(command -v cargo) is older than $rust_wanted: take it out of PATH, then run again"
		return 0
	done
	die "no Rust $rust_wanted on PATH, and Debian has none here: install it as rustup.rs says, \
then run again"
}

# Debian's installer writes this, and debootstrap does not.
install_names() {
	! getent hosts localhost > /dev/null || return 0
	[ ! -e /etc/hosts ] || die "/etc/hosts does not say who localhost is: add '127.0.0.1 localhost'"
	need_debian_root "a file /etc/hosts with '127.0.0.1 localhost'"
	echo "setup: writing /etc/hosts"
	printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' > /etc/hosts
}

# Installs programs of crates.io, for this checkout alone.
install_crates() {
	tools=$here/../../target/tools
	for group in "$@"; do
		eval "wanted=\${crates_$group-}"
		[ -n "$wanted" ] || die "no group of crates is called '$group': see $here/packages.sh"
		for crate in $wanted; do
			# Cargo does nothing when that version is there already, but asks the registry first.
			grep -qs "^\"${crate%@*} ${crate#*@} " "$tools/.crates.toml" ||
				cargo install --quiet --locked --root "$tools" "$crate"
		done
	done
}

# Installs programs of PyPI, each group in a virtual environment of its own, for this checkout
# alone.
install_python() {
	for group in "$@"; do
		eval "wanted=\${python_$group-}"
		[ -n "$wanted" ] || die "no group of PyPI's is called '$group': see $here/packages.sh"
		place=$here/../../target/tools/$group
		[ "$(cat "$place/.recipe" 2> /dev/null)" != "$wanted" ] || continue
		(install_packages python)
		echo "setup: installing $wanted"
		rm -rf "$place"
		mkdir -p "${place%/*}"
		/usr/bin/python3 -m venv "$place"
		# pip would trust the certificates that came with it, and no others.
		export PIP_CERT="${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}"
		# shellcheck disable=SC2086
		"$place/bin/pip" --quiet --disable-pip-version-check install $wanted
		echo "$wanted" > "$place/.recipe"
	done
}

# Prints the mirror of the first Debian archive in this machine's own sources, in either spelling.
mirror() {
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT) $(ORIGIN) $(LABEL)' \
		'Created-By: Packages' |
		awk '$3 == "main" && $4 == "Debian" && $5 == "Debian" { print $1; exit }'
}

# Unpacks the packages of $overlay into the tree $1: none is installed, so none conflicts. dpkg -x
# would put a directory where the tree has its link /lib.
unpack_over() {
	# shellcheck disable=SC2086
	chroot "$1" sh -c 'cd /var/cache/apt/archives && apt-get -q download "$@"' - $overlay || return
	for package in $overlay; do
		dpkg-deb --fsys-tarfile "$1/var/cache/apt/archives/$package"_*.deb |
			tar -x -f - -C "$1" --keep-directory-symlink || return
	done
}

# Makes the directory $1 a Debian $suite of $site, with $packages installed, from $backports where
# that has them, and $overlay over them.
fill_tree() {
	debootstrap --variant=minbase "$suite" "$1" "$site" || return
	apt-config dump | grep -i '^Acquire::[a-z]*::Proxy' > "$1/etc/apt/apt.conf.d/10proxy" || true
	# Nothing may start in there: there is no boot, and the ports are this machine's.
	printf '#!/bin/sh\nexit 101\n' > "$1/usr/sbin/policy-rc.d" || return
	chmod 755 "$1/usr/sbin/policy-rc.d" || return
	echo 'Acquire::Check-Valid-Until "false";' > "$1/etc/apt/apt.conf.d/10dated" || return
	[ -z "$backports" ] ||
		echo "deb $site $backports main" > "$1/etc/apt/sources.list.d/backports.list" || return
	chroot "$1" apt-get -q update || return
	# shellcheck disable=SC2086
	chroot "$1" apt-get -q -y --no-install-recommends ${backports:+-t "$backports"} \
		install $packages || return
	[ -z "$overlay" ] || unpack_over "$1" || return
	chroot "$1" apt-get clean || return
	rm -rf "$1/var/lib/apt/lists"/*
}

make_tree() (
	name=$1
	suite='' packages='' overlay='' backports=''
	eval "suite=\${tree_${name}_suite-} packages=\${tree_${name}_packages-}"
	eval "overlay=\${tree_${name}_overlay-} backports=\${tree_${name}_backports-}"
	[ -n "$suite" ] || die "no tree is called '$name': see $here/packages.sh"
	tree=$trees_dir/$name

	# The recipe names the contents of a finished tree; another recipe makes another tree.
	recipe="$suite${backports:+ $backports} $packages${overlay:+ + $overlay}"
	finished() { [ "$(cat "$tree/.recipe" 2> /dev/null)" = "$recipe" ]; }
	! finished || exit 0

	need_debian_root "a tree of $recipe"
	install_packages tools
	mkdir -p "$trees_dir"
	exec 9> "$trees_dir/.lock"
	flock 9
	! finished || exit 0

	site=$(mirror)
	if [ -z "$site" ]; then
		apt-get -q update
		site=$(mirror)
	fi
	[ -n "$site" ] || die "no Debian mirror in this machine's apt sources: add one, then run again"

	echo "setup: making the tree $tree ($recipe)"
	making=$trees_dir/.making-$name
	log=$trees_dir/$name.log
	unmount() {
		awk -v under="$making/" 'index($2, under) == 1 { print $2 }' /proc/self/mounts | sort -r |
			while read -r point; do umount "$point"; done
	}
	trap 'unmount; rm -rf --one-file-system "$making"' EXIT
	unmount
	rm -rf --one-file-system "$making"

	fill_tree "$making" > "$log" 2>&1 9>&- < /dev/null ||
		die "the tree $name could not be made; the end of $log:
$(tail -n 15 "$log")"

	unmount
	echo "$recipe" > "$making/.recipe"
	rm -rf --one-file-system "$tree"
	mv "$making" "$tree"
	trap - EXIT
)

case ${1-} in
packages)
	shift
	install_packages "$@"
	;;
crates)
	shift
	install_crates "$@"
	;;
python)
	shift
	install_python "$@"
	;;
rust)
	install_rust
	;;
names)
	install_names
	;;
tree)
	shift
	for name in "$@"; do make_tree "$name"; done
	;;
where)
	echo "$trees_dir/$2"
	;;
*)
	sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p;}' "$0" >&2
	exit 2
	;;
esac
