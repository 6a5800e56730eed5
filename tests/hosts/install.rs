//! `make install`: a module that Dovecot cannot load refuses every POP3 login of the server, so
//! nothing of the kind is put where Dovecot looks.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::host::{Line, Unfit};
use crate::support::{helper, lacking};

/// A checkout in which something was built, and a place to install it to.
struct Checkout {
    dir: tempfile::TempDir,
}

impl Checkout {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["Makefile", "dovecot-plugin", "docs", "tests"] {
            let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            symlink(ours, dir.path().join(name)).unwrap();
        }
        fs::create_dir_all(dir.path().join("target/release")).unwrap();
        let helper = helper::uidl_keep();
        fs::copy(helper.get_program(), dir.path().join("target/release/uidl-keep")).unwrap();
        Self { dir }
    }

    fn module(&self) -> PathBuf {
        self.dir.path().join("target/release/libuidl_keep.so")
    }

    /// Compiles a module of that C text.
    fn compile(&self, text: &str) {
        let source = self.dir.path().join("module.c");
        fs::write(&source, text).unwrap();
        let mut cc = Command::new("cc");
        let done = cc.args(["-shared", "-fPIC", "-o"]).arg(self.module()).arg(source).status();
        assert!(done.expect("a compiler").success());
    }

    fn install(&self) -> Output {
        let destination = format!("DESTDIR={}", self.dir.path().join("root").display());
        let mut make = Command::new("make");
        make.args(["-s", "-C"]).arg(self.dir.path()).args(["install", &destination]);
        make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").output().expect("make")
    }

    #[track_caller]
    fn refuses(&self, words: &[&str]) {
        let ran = self.install();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(2), "{said}");
        let words = [&["target/release/libuidl_keep.so", "make plugin"], words].concat();
        for word in words {
            assert!(said.contains(word), "no {word:?} in {said}");
        }
        assert!(!self.dir.path().join("root").exists(), "something was installed");
    }
}

/// The sections of an ELF file, as readelf says them.
fn sections(file: &Path) -> String {
    let output = Command::new("readelf").args(["-W", "-S"]).arg(file).output().expect("readelf");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("ASCII")
}

#[test]
fn what_the_loader_would_refuse_is_not_installed() {
    if !Path::new("/usr/lib/dovecot/dovecot-config").exists() {
        lacking("dovecot-dev is not installed: run `make deps`");
        return;
    }
    let checkout = Checkout::new();
    checkout.refuses(&["nothing is built there"]);
    checkout.compile("int uidl_keep(void) { return 0; }");
    checkout.refuses(&["has no uidl_keep_plugin_version", "built without the plugin"]);
    checkout.compile("const char *uidl_keep_plugin_version; void uidl_keep_plugin_init(void) {}");
    checkout.refuses(&["has no uidl_keep_plugin_deinit"]);
    fs::write(checkout.module(), "no module").unwrap();
    checkout.refuses(&["nm cannot read it"]);
}

#[test]
fn a_plugin_for_another_dovecot_is_not_installed() {
    if Unfit::ThisMachine.is_asked() {
        return;
    }
    let Some(plugin) = helper::plugin(Line::V24) else { return };
    let Some(own) = helper::plugin(Line::V23) else { return };
    let checkout = Checkout::new();
    fs::copy(plugin, checkout.module()).unwrap();
    checkout.refuses(&["is for Dovecot 2.4.", "/usr/include/dovecot is of 2.3."]);

    fs::copy(own, checkout.module()).unwrap();
    let ran = checkout.install();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let root = checkout.dir.path().join("root");
    for file in [
        "usr/lib/dovecot/modules/lib95_uidl_keep_plugin.so",
        "usr/local/bin/uidl-keep",
        "usr/local/share/man/man1/uidl-keep.1",
        "usr/local/share/man/man1/uidl-keep-capture-pop3.1",
        "usr/local/share/bash-completion/completions/uidl-keep",
        "usr/local/share/fish/vendor_completions.d/uidl-keep.fish",
        "usr/local/share/zsh/site-functions/_uidl-keep",
        "usr/share/doc/dovecot-core/example-config/conf.d/95-uidl-keep.conf",
    ] {
        assert!(root.join(file).is_file(), "{file}");
    }
    for file in ["usr/lib/dovecot/modules/lib95_uidl_keep_plugin.so", "usr/local/bin/uidl-keep"] {
        let sections = sections(&root.join(file));
        assert!(sections.contains(" .text "), "{file}: {sections}");
        for section in [" .symtab ", " .debug_info ", " .debug_line "] {
            assert!(!sections.contains(section), "{file} is not stripped: {sections}");
        }
    }
    assert!(root.join("var/lib/uidl-keep/domain").is_dir());
}

#[test]
fn nothing_is_installed_with_headers_of_another_dovecot() {
    let Some(own) = helper::plugin(Line::V23) else { return };
    let checkout = Checkout::new();
    fs::copy(own, checkout.module()).unwrap();
    let library = checkout.dir.path().join("libdovecot.so.0");
    fs::write(&library, "2.4.ABIv1").unwrap();
    for target in ["install", "plugin"] {
        let mut make = Command::new("make");
        make.args(["-s", "-C"]).arg(checkout.dir.path()).arg(target);
        make.arg(format!("DESTDIR={}", checkout.dir.path().join("root").display()));
        make.arg(format!("LIBDOVECOT={}", library.display()));
        // What would be built, is not.
        make.args(["BUILD_PLUGIN=exit 3;", "-o", "build"]);
        let ran = make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").output().expect("make");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(2), "{target}: {said}");
        for word in ["/usr/include/dovecot is of Dovecot 2.3.ABIv", "of 2.4.ABIv1, which"] {
            assert!(said.contains(word), "{target}: no {word:?} in {said}");
        }
        assert!(!checkout.dir.path().join("root").exists(), "something was installed");
    }
}
