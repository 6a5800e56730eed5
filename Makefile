# `make` alone runs every check; `make help` lists the rest. GNU make, Debian, as root where a target
# installs packages or starts servers; `build` and `check` need neither once the packages are there.

.DEFAULT_GOAL := all
.PHONY: all help deps build check oldest test asan demo fresh bench fuzz mutants install plugin plugin-2.4 clean clean-trees

SETUP := tests/hosts/setup.sh
TREE_24 := $(shell $(SETUP) where dovecot24)
BUILD_24 := target/dovecot-2.4
# What AddressSanitizer watches is built for a named machine, so that build scripts are not.
MACHINE := $(shell rustc -vV 2> /dev/null | sed -n 's/^host: //p')
BUILD_ASAN := target/asan
# More tests at once than cores: most of them wait for a server.
export RUST_TEST_THREADS ?= $(shell echo $$((3 * $$(nproc))))
# The module from which Dovecot 2.4 learns our settings.
SETTINGS_FLAGS := -shared -fPIC -O2 -Wall -std=gnu11 -DHAVE_CONFIG_H -DUIDL_KEEP_SETTINGS_MODULE

# Where `install` puts things; packagers set DESTDIR too. What Dovecot decides, dovecot-config says.
PREFIX ?= /usr/local
DOVECOT_CONFIG ?= $(firstword $(wildcard /usr/lib/dovecot/dovecot-config /usr/lib64/dovecot/dovecot-config \
	/usr/local/lib/dovecot/dovecot-config))
MODULE_DIR = $(shell . $(DOVECOT_CONFIG) && echo $$dovecot_moduledir)
DOC_DIR = $(shell . $(DOVECOT_CONFIG) && echo $$dovecot_docdir)
INCLUDE_DIR = $(shell . $(DOVECOT_CONFIG) && echo $$dovecot_pkgincludedir)
DOVECOT_LINE = $(shell sed -n 's/^.define DOVECOT_ABI_VERSION "\(2\.[0-9]*\)\..*/\1/p' $(INCLUDE_DIR)/config.h)

all: check oldest test ## every check there is: what `make` alone does

help: ## this list
	@sed -n 's/^\([a-z0-9.-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

deps: ## install what building and testing need (Debian, root)
	$(SETUP) rust
	$(SETUP) packages build dovecot clients tools
	$(SETUP) names
	$(SETUP) tree courier dovecot24 oldservers

build: ## the helper alone: needs neither Dovecot headers nor libclang
	# --bin: the library of such a build is no plugin, and must not lie where one would.
	cargo build --release --locked --bin uidl-keep

plugin: ## the helper, and the plugin for this machine's Dovecot
	cargo build --release --locked --features plugin

plugin-2.4: ## the plugin for the Dovecot 2.4 of its tree, where the tests look for it
	DOVECOT_INCDIR=$(TREE_24)/usr/include/dovecot CARGO_TARGET_DIR=$(BUILD_24) \
		cargo build --release --locked --features plugin --lib
	mkdir -p $(BUILD_24)/modules/settings
	$(CC) $(SETTINGS_FLAGS) -I$(TREE_24)/usr/include/dovecot \
		-DHAVE_CONFIG_H -DUIDL_KEEP_SETTINGS_MODULE \
		dovecot-plugin/uidl-keep-settings.c -o $(BUILD_24)/modules/settings/lib95_uidl_keep_settings.so
	cp $(BUILD_24)/release/libuidl_keep.so $(BUILD_24)/modules/lib95_uidl_keep_plugin.so

check: ## formatting, lints with and without the plugin, documentation
	$(SETUP) rust
	$(SETUP) packages build
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features plugin -- -D warnings
	rustfmt --check fuzz/fuzz_targets/*.rs
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --quiet
	@echo 'no let within a chain of conditions: Rust 1.85, which Debian has, stops there'
	! git ls-files -z '*.rs' | xargs -0 grep -Pzl '&& let |(if|while) let [^{}]*\n *&& '
	@echo 'ASCII only'
	! git grep -nP '[^\x00-\x7F]' -- '*.rs' '*.c' '*.h' '*.md' '*.sh' '*.conf' Makefile

oldest: ## everything built by the oldest Rust that is promised: Debian 13's own, in its tree
	tests/hosts/oldest.sh

test: deps plugin-2.4 ## every test, against real servers; a server that is missing is a failure
	@case "$$(dovecot --version)" in 2.3.*) ;; *) \
		echo "test: this machine's Dovecot is $$(dovecot --version), and the tests want a 2.3 beside the 2.4 of its" \
			"tree: run them on Debian 12"; exit 2 ;; \
	esac
	# What Dovecot loads: `cargo test` alone does not put the module where tests look for it.
	cargo build --locked --features plugin
	@rm -f target/failed
	UIDL_KEEP_REQUIRE_HOST=1 cargo test --locked --features plugin --no-fail-fast || touch target/failed
	$(MAKE) asan
	@! rm target/failed 2> /dev/null || { echo "test: failed before make asan; see above"; exit 1; }

asan: ## forged ledgers and indexes, with the plugin under AddressSanitizer
	$(SETUP) rust
	$(SETUP) packages build dovecot tools
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CFLAGS_$(subst -,_,$(MACHINE))=-fsanitize=address \
		cargo build --locked --features plugin --lib --target $(MACHINE) --target-dir $(BUILD_ASAN)
	UIDL_KEEP_ASAN="$$($(CC) -print-file-name=libasan.so)" \
		UIDL_KEEP_PLUGIN=$(CURDIR)/$(BUILD_ASAN)/$(MACHINE)/debug/libuidl_keep.so \
		UIDL_KEEP_REQUIRE_HOST=1 cargo test --locked --features plugin --test hosts forged::

demo: ## see it happen: Courier to Dovecot, and what a client downloads
	$(SETUP) rust
	$(SETUP) packages build dovecot clients tools
	$(SETUP) tree courier
	case "$$(dovecot --version)" in \
	2.3.*) $(MAKE) plugin ;; \
	*) $(SETUP) tree dovecot24 && $(MAKE) build plugin-2.4 ;; \
	esac
	demo/run

fresh: ## what a newcomer does, in a new Debian 12 and 13: clone, make demo; make test in the first; an hour
	status=0; \
	tests/hosts/fresh.sh fresh13 demo || status=1; \
	tests/hosts/fresh.sh fresh12 demo test || status=1; \
	exit $$status

bench: ## the ratios of one run: logins with and without the plugin, a capture over POP3 beside others
	$(SETUP) rust
	$(SETUP) packages build dovecot
	cargo build --release --locked --features plugin
	UIDL_KEEP_REQUIRE_HOST=1 cargo test --release --locked --features plugin --test hosts cost:: -- \
		--ignored --nocapture --test-threads 1

fuzz: ## every fuzz target for a minute, two at a time: make fuzz SECONDS=600 for longer
	$(SETUP) rust
	$(SETUP) packages build fuzz
	$(SETUP) crates fuzz
	fuzz/run $(or $(SECONDS),60)

mutants: ## each small break of the rules must fail a test; hours: make mutants FILES=src/key.rs for less
	$(SETUP) rust
	$(SETUP) packages build
	$(SETUP) crates mutants
	# 3: some break made a test run for ever, and so was noticed.
	CARGO_PROFILE_DEV_DEBUG=none PROPTEST_CASES=200 \
		target/tools/bin/cargo-mutants mutants --output target $(addprefix --file ,$(FILES)) || [ $$? = 3 ]

install: ## the plugin, the helper, the man page and an example (DESTDIR, PREFIX)
	@test -n "$(DOVECOT_CONFIG)" || { echo "install: no dovecot-config found: install dovecot-dev, or name it in DOVECOT_CONFIG"; exit 2; }
	@dovecot-plugin/installable target/release "$(INCLUDE_DIR)"
	install -D -m 755 target/release/uidl-keep $(DESTDIR)$(PREFIX)/bin/uidl-keep
	install -D -m 644 docs/uidl-keep.1 $(DESTDIR)$(PREFIX)/share/man/man1/uidl-keep.1
	install -D -m 644 target/release/libuidl_keep.so $(DESTDIR)$(MODULE_DIR)/lib95_uidl_keep_plugin.so
	if [ "$(DOVECOT_LINE)" = 2.4 ]; then \
		install -d $(DESTDIR)$(MODULE_DIR)/settings && \
		$(CC) $(SETTINGS_FLAGS) -I$(INCLUDE_DIR) dovecot-plugin/uidl-keep-settings.c \
			-o $(DESTDIR)$(MODULE_DIR)/settings/lib95_uidl_keep_settings.so && \
		install -D -m 644 dovecot-plugin/uidl-keep-2.4.conf $(DESTDIR)$(DOC_DIR)/example-config/conf.d/95-uidl-keep.conf; \
	else \
		install -D -m 644 dovecot-plugin/uidl-keep.conf $(DESTDIR)$(DOC_DIR)/example-config/conf.d/95-uidl-keep.conf; \
	fi
	for dir in . domain user; do install -d -m 711 $(DESTDIR)/var/lib/uidl-keep/$$dir; done

clean: ## what was built
	cargo clean

clean-trees: ## the Debian trees of the tests
	rm -rf --one-file-system "$$(dirname $(TREE_24))"
