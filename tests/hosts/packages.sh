# shellcheck shell=sh disable=SC2034
# The one list of Debian packages that building, testing, the demo and the benchmark need.
# Sourced by the scripts beside it; names hold for bookworm (Dovecot 2.3) and trixie (2.4).

# Rust, when PATH has none that is new enough. The first choice is taken whose every package Debian
# offers in the version that Cargo.toml asks for. (bookworm's plain packages are too old; its -web
# packages, which Debian keeps up for the browsers, are not.)
rust_choices="web plain"
rust_web_packages="rustc-web cargo-web rustfmt-web rust-web-clippy"
rust_plain_packages="rustc cargo rustfmt rust-clippy"

# These compile the helper and the plugin.
packages_build="ca-certificates gcc libc6-dev libclang-dev dovecot-dev"

# These run the plugin in a Dovecot of this machine.
packages_dovecot="dovecot-core dovecot-pop3d dovecot-imapd"

# These are POP3 clients, which remember UIDLs, and programs that copy mail, by IMAP and as files.
packages_clients="fetchmail mpop getmail6 isync offlineimap3 rsync"

# These make the trees below, look into what was built (nm) and into its use of memory, make keys
# for encrypted mail, make system calls fail (strace), and serve an example of the documentation.
packages_tools="debootstrap binutils valgrind openssl strace sqlite3"

# This shows the page of a report to its tests. It is large: `make test-browser` alone asks for it.
packages_browser="chromium-headless-shell fonts-dejavu-core"

# These make the virtual environments of Python below, and log in to the machines of the tree `ssh`.
packages_python="python3 python3-venv ca-certificates openssh-client"

# These come from PyPI, a virtual environment for each group: the role in contrib/ansible runs under
# the first of these, and the others say what they have against it.
python_ansible="ansible-core==2.18.19 ansible-lint==26.10.1 yamllint==1.38.0"

# This links for an old glibc: `make portable`, `make abis`.
python_zig="ziglang==0.15.2 cargo-zigbuild==0.24.1"

# These make the .rpm, and look into what was built.
packages_packages="rpm binutils git"

# This compiles the fuzz targets: libFuzzer is C++.
packages_fuzz="g++"

# These come from crates.io and not from Debian, each in the version that works here.
crates_fuzz="cargo-fuzz@0.13.2"
crates_mutants="cargo-mutants@26.0.0"
# The last that Rust 1.85 compiles.
crates_deny="cargo-deny@0.18.3"

# Trees are small Debian systems of their own, for servers that cannot be installed here beside
# Dovecot. Each has a name of one word, its suite, the packages that are installed in it, the suite
# of backports from which they come where that has them, and the packages that are unpacked over
# that because they exclude each other.
trees="courier dovecot24 oldservers ssh oldest fresh12 fresh13 dovecot2313 dovecot2321 dovecot245 \
packages"

# courier-pop and dovecot-pop3d exclude each other as packages.
tree_courier_suite=bookworm
tree_courier_packages="courier-pop courier-authdaemon courier-authlib-userdb"

tree_dovecot24_suite=trixie
tree_dovecot24_packages="dovecot-core dovecot-pop3d dovecot-imapd dovecot-dev"

# The Dovecots that operators run beside those two, each with its headers. They are looked into by
# `make test-platforms` alone. Lists of a suite that is not kept up any more have passed their date.
tree_dovecot2313_suite=bullseye
tree_dovecot2313_packages="dovecot-core dovecot-pop3d dovecot-imapd dovecot-lmtpd dovecot-dev"

tree_dovecot2321_suite=bookworm
tree_dovecot2321_backports=bookworm-backports
tree_dovecot2321_packages="dovecot-core dovecot-pop3d dovecot-imapd dovecot-lmtpd dovecot-dev"

tree_dovecot245_suite=sid
tree_dovecot245_packages="dovecot-core dovecot-pop3d dovecot-imapd dovecot-lmtpd dovecot-dev"

# Only one of the POP3 servers can be installed. The others bring their programs. The list names the
# libraries that they need and Cyrus does not. (libmailutils9 is not installed because of Guile and
# Python, its other languages, which are as big as all the rest.) Cyrus insists on a program that
# sends mail.
tree_oldservers_suite=bookworm
tree_oldservers_packages="cyrus-pop3d cyrus-imapd sasl2-bin msmtp-mta libgsasl18 \
libkyotocabinet16v5 libmariadb3 libnsl2 liblockfile1"
tree_oldservers_overlay="mailutils-pop3d libmailutils9 libmu-dbm9 popa3d solid-pop3d"

# `make test-packages` installs and upgrades here, and in copies of the four with another Dovecot: a
# Dovecot 2.3.19, rpm, and what compiles rules of AppArmor and SELinux.
tree_packages_suite=bookworm
tree_packages_packages="dovecot-core dovecot-pop3d dovecot-imapd rpm apparmor apparmor-profiles \
checkpolicy semodule-utils policycoreutils selinux-policy-default setools"

# A machine that is administered over SSH: what Ansible needs of it, and the Dovecot of a new
# server.
tree_ssh_suite=trixie
tree_ssh_packages="openssh-server python3 dovecot-core dovecot-pop3d dovecot-imapd"

# The oldest Rust that must build everything, and the Dovecot 2.4 of the same Debian.
tree_oldest_suite=trixie
tree_oldest_packages="rustc cargo ca-certificates gcc libc6-dev libclang-dev dovecot-core \
dovecot-dev"

# A newcomer's machine, Debian 12 or 13, with the packages that `git clone` and `make` need.
tree_fresh12_suite=bookworm
tree_fresh12_packages="ca-certificates git make"
tree_fresh13_suite=trixie
tree_fresh13_packages="ca-certificates git make"
