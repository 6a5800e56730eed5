# `make` alone runs every check; `make help` lists the rest. GNU make, Debian; as root when a target
# installs packages or starts servers; `build` and `check` need neither once the packages are there.

.DEFAULT_GOAL := all
.PHONY: all help deps deps-build build check oldest test test-browser asan demo fresh bench fuzz \
	bench-huge loader test-subjects mutants deny install plugin plugin-2.4 test-plugins clean \
	clean-trees

SETUP := tests/hosts/setup.sh
TREE_24 := $(shell $(SETUP) where dovecot24)
BUILD_24 := target/dovecot-2.4
# Cargo works there when it builds that plugin.
TARGET_24 := $(BUILD_24)
# Dovecot loads the library that this builds; no other build makes one.
BUILD_PLUGIN := \
	cargo rustc --locked --lib --crate-type cdylib --no-default-features --features plugin
# As `release` in Cargo.toml, or another profile of it.
PROFILE := release
# AddressSanitizer builds name the machine, so that build scripts are built without it.
MACHINE := $(shell rustc -vV 2> /dev/null | sed -n 's/^host: //p')
BUILD_ASAN := target/asan
# More tests run at once than there are cores: most of them wait for a server.
export RUST_TEST_THREADS ?= $(shell echo $$((3 * $$(nproc))))

# The loader is C that knows nothing of Dovecot. LOADER_PLACES names other places to tests.
LOADER := target/loader/lib95_uidl_keep_plugin.so
LOADER_FLAGS := -shared -fPIC -O2 -g -Wall -Wextra -Werror -std=gnu11 -fvisibility=hidden \
	-Wl,-z,relro,-z,now

# `install` puts things below PREFIX; packagers set DESTDIR too. dovecot-config says what Dovecot
# decides.
PREFIX ?= /usr/local
# No package has the site in it: an upgrade would put an empty one in the place of a lost one. Its
# scripts run packaging/package/make-site. SITE names another place for tests.
SITE := /var/lib/uidl-keep
# Installed files have no symbols except those that are asked for; STRIP= leaves them in.
STRIP := -s
# The helper writes man pages and completions here.
DOCUMENTS := target/release/documents
DOVECOT_CONFIG ?= $(firstword $(wildcard /usr/lib/dovecot/dovecot-config \
	/usr/lib64/dovecot/dovecot-config /usr/local/lib/dovecot/dovecot-config))
MODULE_DIR = $(shell . $(DOVECOT_CONFIG) && echo $$dovecot_moduledir)
DOC_DIR = $(shell . $(DOVECOT_CONFIG) && echo $$dovecot_docdir)
EXAMPLE_CONF = $(DOC_DIR)/example-config/conf.d/95-uidl-keep.conf
INCLUDE_DIR = $(shell . $(DOVECOT_CONFIG) && echo $$dovecot_pkgincludedir)
# `plugin` is built with these headers, and for the server whose library this is; LIBDOVECOT=none
# compares nothing.
HEADERS = $(or $(DOVECOT_INCDIR),$(if $(DOVECOT_CONFIG),$(INCLUDE_DIR)))
LIBDOVECOT = $(if $(DOVECOT_INCDIR)$(if $(DOVECOT_CONFIG),,none),,$(firstword $(wildcard \
	$(shell . $(DOVECOT_CONFIG) && echo $$dovecot_pkglibdir)/libdovecot.so.0) none))
DOVECOT_LINE = $(shell \
	sed -n 's/^.define DOVECOT_ABI_VERSION "\(2\.[0-9]*\)\..*/\1/p' $(INCLUDE_DIR)/config.h)

all: check oldest test ## every check there is: what `make` alone does

help: ## this list
	@sed -n 's/^\([a-z0-9.-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | \
		awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

deps-build: ## install what building needs, and nothing more (Debian, root)
	$(SETUP) rust
	$(SETUP) packages build

deps: deps-build ## install what building and testing need (Debian, root)
	$(SETUP) packages dovecot clients tools
	$(SETUP) names
	$(SETUP) tree courier dovecot24 oldservers
	@{ $(SETUP) tree ssh && $(SETUP) python ansible; } || \
		echo 'deps: Ansible cannot be had here: the test of contrib/ansible will be skipped' >&2

build: ## the helper alone: needs neither Dovecot headers nor libclang
	cargo build --profile $(PROFILE) --locked

plugin: build ## the helper, and the plugin for this machine's Dovecot
	@test -z "$(HEADERS)" || dovecot-plugin/fits "$(HEADERS)" "$(LIBDOVECOT)"
	$(BUILD_PLUGIN) --profile $(PROFILE)

plugin-2.4: ## the plugin for the Dovecot 2.4 of its tree, where demo and tests look for it
	DOVECOT_INCDIR=$(TREE_24)/usr/include/dovecot \
		$(BUILD_PLUGIN) --profile $(PROFILE) --target-dir $(TARGET_24)
	mkdir -p $(BUILD_24)/modules
	cp $(TARGET_24)/$(PROFILE)/libuidl_keep.so $(BUILD_24)/modules/lib95_uidl_keep_plugin.so

loader: ## the file that packages put in the plugin's place: it loads the plugin that fits
	mkdir -p $(dir $(LOADER))
	$(CC) $(LOADER_FLAGS) $(LOADER_PLACES) dovecot-plugin/loader.c -o $(LOADER) -ldl

check: ## formatting, lints of helper and plugin, apart and together, documentation
	$(SETUP) rust
	$(SETUP) packages build
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features plugin -- -D warnings
	cargo clippy --locked --no-default-features --features plugin --lib -- -D warnings
	rustfmt --check fuzz/fuzz_targets/*.rs
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --quiet
	@echo 'the rules of the house: who may know whom, names, unsafe, columns'
	mkdir -p target
	CARGO_MANIFEST_DIR=$(CURDIR) rustc --edition 2024 --test tests/house.rs -o target/house
	target/house --quiet
	@echo 'no let within a chain of conditions: Rust 1.85, which Debian has, stops there'
	! git ls-files -z '*.rs' | xargs -0 grep -Pzl '&& let |(if|while) let [^{}]*\n *&& '
	@echo 'ASCII only'
	! git grep -nP '[^\x00-\x7F]' -- '*.rs' '*.c' '*.h' '*.md' '*.sh' '*.conf' Makefile

oldest: ## everything built by the oldest Rust that is promised: Debian 13's own, in its tree
	tests/hosts/oldest.sh

test-plugins: ## the plugins that tests load: of this machine's Dovecot, and of the tree's 2.4
	$(BUILD_PLUGIN)
	$(MAKE) plugin-2.4 PROFILE=quick

# The Dovecots that every test is run on, each in a run of its own, and those of platforms, on which
# the core is: what is packaged is loaded there.
SUBJECTS := 2.3.19 2.4.1
SUBJECTS_OF_PLATFORMS := 2.3.13 2.3.21 2.4.5
# The tests that no Dovecot is the subject of, or that name theirs: the first run has had them.
NO_SUBJECT := ansible:: capture_pop3_faults:: exports:: fuzz_corpus:: install:: report:: runbook::
CORE := bake:: chroot:: dovecot:: failing_closed:: forecast:: gates_dovecot:: hold_auth:: memory:: \
	rules:: settings:: status:: twin:: upgrade_in_place::
# Tests that cannot be run on a subject write a line each.
UNFIT = sort -u target/unfit-* 2> /dev/null | sed 's/^/not run: /'

test: deps test-plugins ## every test on 2.3.19 and 2.4.1; a server that is missing is a failure
	@case "$$(dovecot --version)" in 2.3.*) ;; *) \
		echo "test: this machine's Dovecot is $$(dovecot --version), and the tests want a 2.3" \
			"beside the 2.4 of its tree: run them on Debian 12"; exit 2 ;; \
	esac
	@rm -f target/failed target/unfit-*
	UIDL_KEEP_DOVECOT=$(firstword $(SUBJECTS)) UIDL_KEEP_REQUIRE_HOST=1 \
		cargo test --locked --features plugin --no-fail-fast || touch target/failed
	for subject in $(filter-out $(firstword $(SUBJECTS)),$(SUBJECTS)); do \
		UIDL_KEEP_DOVECOT=$$subject UIDL_KEEP_REQUIRE_HOST=1 \
			cargo test --locked --features plugin --test hosts -- \
			$(addprefix --skip ,$(NO_SUBJECT)) || touch target/failed; \
	done
	@$(UNFIT)
	$(MAKE) asan
	@! rm target/failed 2> /dev/null || { echo "test: failed before make asan; see above"; exit 1; }

test-subjects: ## the core of the tests on 2.3.13, 2.3.21 and 2.4.5, with what is packaged
	$(SETUP) rust
	$(SETUP) packages build dovecot clients tools
	$(SETUP) names
	$(SETUP) tree courier dovecot24 dovecot2313 dovecot2321 dovecot245
	$(MAKE) test-plugins portable
	$(MAKE) abi ABI=2.3.ABIv13 && $(MAKE) abi ABI=2.3.ABIv21 && $(MAKE) abi ABI=2.4.ABIv5
	@rm -f target/failed target/unfit-*
	for subject in $(SUBJECTS_OF_PLATFORMS); do \
		UIDL_KEEP_DOVECOT=$$subject UIDL_KEEP_REQUIRE_HOST=1 \
			cargo test --locked --features plugin --test hosts -- $(CORE) || \
			touch target/failed; \
	done
	@echo 'Dovecot upgraded beneath the plugin of before'
	UIDL_KEEP_REQUIRE_HOST=1 cargo test --locked --features plugin --test hosts -- \
		--include-ignored upgrade:: || touch target/failed
	@$(UNFIT)
	@! rm target/failed 2> /dev/null

test-browser: ## the page of a report, in Chromium, which this installs (300 MB)
	$(SETUP) rust
	$(SETUP) packages build dovecot browser
	UIDL_KEEP_REQUIRE_BROWSER=1 cargo test --locked --features plugin --test hosts report::

asan: ## forged ledgers and indexes, with the plugin under AddressSanitizer
	$(SETUP) rust
	$(SETUP) packages build dovecot tools
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CFLAGS_$(subst -,_,$(MACHINE))=-fsanitize=address \
		$(BUILD_PLUGIN) --target $(MACHINE) --target-dir $(BUILD_ASAN)
	UIDL_KEEP_ASAN="$$($(CC) -print-file-name=libasan.so)" \
		UIDL_KEEP_PLUGIN=$(CURDIR)/$(BUILD_ASAN)/$(MACHINE)/debug/libuidl_keep.so \
		UIDL_KEEP_REQUIRE_HOST=1 cargo test --locked --features plugin --test hosts forged::

demo: ## see it happen: Courier to Dovecot, and what a client downloads
	$(SETUP) rust
	$(SETUP) packages build dovecot clients tools
	$(SETUP) tree courier
	case "$$(dovecot --version)" in \
	2.3.*) $(MAKE) plugin PROFILE=demo ;; \
	*) $(SETUP) tree dovecot24 && $(MAKE) build plugin-2.4 PROFILE=demo TARGET_24=target ;; \
	esac
	demo/run

fresh: ## clone and make demo in a new Debian 12 and 13, make test in the first; takes an hour
	status=0; \
	tests/hosts/fresh.sh fresh13 demo || status=1; \
	tests/hosts/fresh.sh fresh12 deps-build plugin demo test || status=1; \
	exit $$status

# BENCH has words: quick, callgrind, a number of messages. FIGURE has how names of figures begin.
bench: ## what it costs, as a table: make bench [BENCH='quick callgrind'] [FIGURE=login-new]
	$(SETUP) rust
	$(SETUP) packages build dovecot tools
	$(SETUP) tree dovecot24
	$(MAKE) plugin plugin-2.4
	BENCH='$(BENCH)' FIGURE='$(FIGURE)' UIDL_KEEP_REQUIRE_HOST=1 \
		UIDL_KEEP_PLUGIN=$(CURDIR)/target/release/libuidl_keep.so \
		cargo test --release --locked --test hosts cost:: -- \
		--ignored --nocapture --test-threads 1

bench-huge: build ## what 100 million messages and 100,000 domains cost the helper: hours, 20 GB
	tests/huge/run

fuzz: ## every fuzz target for a minute, two at a time: make fuzz SECONDS=600 for longer
	$(SETUP) rust
	$(SETUP) packages build fuzz
	$(SETUP) crates fuzz
	fuzz/run $(or $(SECONDS),60)

mutants: ## each small break must fail a test; hours: make mutants FILES=src/key/mod.rs for less
	$(SETUP) rust
	$(SETUP) packages build
	$(SETUP) crates mutants
	# 3 means that some break made a test run for ever, and so was noticed.
	CARGO_PROFILE_DEV_DEBUG=none PROPTEST_CASES=200 \
		target/tools/bin/cargo-mutants mutants --output target $(addprefix --file ,$(FILES)) || \
		[ $$? = 3 ]

deny: ## licences, sources and versions of all dependencies, and what is known against them
	$(SETUP) rust
	$(SETUP) crates deny
	target/tools/bin/cargo-deny --locked check bans licenses sources
	@target/tools/bin/cargo-deny --locked fetch db || { \
		echo 'deny: no database of advisories is to be had here: nothing is said of them'; \
		exit 0; } && \
		target/tools/bin/cargo-deny --locked check advisories

install: ## the plugin, the helper, man pages, completions, an example (DESTDIR, PREFIX, STRIP)
	@test -n "$(DOVECOT_CONFIG)" || { \
		echo "install: no dovecot-config found: install dovecot-dev," \
			"or name it in DOVECOT_CONFIG"; exit 2; }
	@test -n "$(DESTDIR)" || dovecot-plugin/no-old-settings
	@dovecot-plugin/fits "$(INCLUDE_DIR)" "$(LIBDOVECOT)"
	@dovecot-plugin/installable target/release "$(INCLUDE_DIR)"
	@if [ -z "$(DESTDIR)" ]; then \
		if [ -e "$(MODULE_DIR)/lib95_uidl_keep_plugin.so" ]; then when=again; else when=first; fi; \
		packaging/package/make-site "$$when" "$(SITE)"; \
	fi
	install -D -m 755 $(STRIP) target/release/uidl-keep $(DESTDIR)$(PREFIX)/bin/uidl-keep
	rm -rf $(DOCUMENTS) && mkdir $(DOCUMENTS) && target/release/uidl-keep documents $(DOCUMENTS)
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 docs/uidl-keep.1 $(DOCUMENTS)/*.1
	install -D -m 644 $(DOCUMENTS)/uidl-keep.bash \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/uidl-keep
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d \
		$(DOCUMENTS)/uidl-keep.fish
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DOCUMENTS)/_uidl-keep
	install -D -m 644 $(STRIP) target/release/libuidl_keep.so \
		$(DESTDIR)$(MODULE_DIR)/lib95_uidl_keep_plugin.so
	rm -f $(DESTDIR)$(MODULE_DIR)/settings/lib95_uidl_keep_settings.so
	if [ "$(DOVECOT_LINE)" = 2.4 ]; then \
		install -D -m 644 dovecot-plugin/uidl-keep-2.4.conf $(DESTDIR)$(EXAMPLE_CONF); \
	else \
		install -D -m 644 dovecot-plugin/uidl-keep.conf $(DESTDIR)$(EXAMPLE_CONF); \
	fi

# --- every Dovecot that operators run: packaging/ and tests/packages

.PHONY: check-headers abi abis portable packages test-packages test-platforms
PORTABLE_LOADER := target/portable/lib95_uidl_keep_plugin.so

check-headers: ## the plugin compiled against every Dovecot whose headers are at hand
	$(SETUP) rust
	$(SETUP) packages build
	packaging/check-headers.sh

abi: ## the plugin for one: make abi ABI=2.3.ABIv16 [DOVECOT_INCDIR=DIRECTORY]
	@test -n "$(ABI)" || { echo 'abi: which one? make abi ABI=2.3.ABIv16'; exit 2; }
	$(SETUP) rust
	$(SETUP) packages build packages
	$(SETUP) python zig
	packaging/abi.sh $(ABI)

abis: ## the plugin for every Dovecot whose headers are at hand, for glibc 2.17
	$(SETUP) rust
	$(SETUP) packages build packages
	$(SETUP) python zig
	packaging/abi.sh --at-hand

portable: ## the helper as one file for glibc 2.17: target/portable/uidl-keep
	$(SETUP) rust
	$(SETUP) packages build packages
	$(SETUP) python zig
	packaging/old-glibc.sh cargo build --bin uidl-keep
	packaging/old-glibc-check.sh target/zig/x86_64-unknown-linux-gnu/release/uidl-keep
	install -D -m 755 target/zig/x86_64-unknown-linux-gnu/release/uidl-keep \
		target/portable/uidl-keep

packages: portable abis ## .deb, .rpm and .tar.gz, with the plugin for every Dovecot at hand
	$(MAKE) loader CC='packaging/old-glibc.sh cc' LOADER=$(PORTABLE_LOADER)
	strip $(PORTABLE_LOADER)
	packaging/old-glibc-check.sh $(PORTABLE_LOADER) loader
	packaging/packages.sh target/packages

test-packages: packages ## packages installed, upgraded, removed in trees of Debian 11 to sid
	$(SETUP) packages tools
	$(SETUP) tree packages dovecot2313 dovecot2321 dovecot24 dovecot245
	packaging/packages.sh target/packages-newer \
		$$(sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1).1
	rm -rf target/debs
	packaging/debian.sh bookworm-backports target/debs dovecot-core dovecot-pop3d dovecot-imapd
	tests/packages/run

test-platforms: check-headers test-packages test-subjects ## all that needs other Dovecots

clean: ## what was built
	cargo clean

clean-trees: ## the Debian trees of the tests
	rm -rf --one-file-system "$$(dirname $(TREE_24))"
