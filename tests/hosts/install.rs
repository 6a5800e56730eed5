//! `make install`: a module that Dovecot cannot load refuses every POP3 login of the server, so
//! nothing of the kind is put where Dovecot looks.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
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
        for name in ["Makefile", "dovecot-plugin", "docs", "packaging", "tests"] {
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
    // A package that has the site in it would put it back empty where it was lost.
    assert!(!root.join("var").exists());
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

/// Runs `make install` without DESTDIR into a directory of the test, beside a Dovecot whose
/// `doveconf` says that.
fn install_here(checkout: &Checkout, doveconf: &str) -> (Output, PathBuf) {
    let root = checkout.dir.path().join("here");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::write(root.join("bin/doveconf"), format!("#!/bin/sh\n{doveconf}\n")).unwrap();
    fs::set_permissions(root.join("bin/doveconf"), Permissions::from_mode(0o755)).unwrap();
    let config = root.join("dovecot-config");
    let place = root.display();
    let words = format!(
        "dovecot_moduledir={place}/modules\ndovecot_docdir={place}/doc\n\
         dovecot_pkgincludedir=/usr/include/dovecot\ndovecot_pkglibdir=/usr/lib/dovecot\n"
    );
    fs::write(&config, words).unwrap();
    let path = format!("{place}/bin:{}", std::env::var("PATH").unwrap());
    let mut make = Command::new("make");
    make.args(["-s", "-C"]).arg(checkout.dir.path()).arg("install");
    make.arg(format!("DOVECOT_CONFIG={}", config.display()));
    make.arg(format!("PREFIX={place}/usr")).arg(format!("SITE={place}/site"));
    let make = make.env("PATH", path).env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    (make.output().expect("make"), root)
}

/// A checkout with a plugin that this machine's Dovecot loads.
fn checkout_with_plugin() -> Option<Checkout> {
    if Unfit::ThisMachine.is_asked() {
        return None;
    }
    let own = helper::plugin(Line::V23)?;
    let checkout = Checkout::new();
    fs::copy(own, checkout.module()).unwrap();
    Some(checkout)
}

#[test]
fn nothing_is_installed_while_dovecot_has_the_settings_of_before() {
    let Some(checkout) = checkout_with_plugin() else { return };
    for (doveconf, word) in [
        ("echo 'plugin {'; echo '  uidl_keep_dir = /srv'; echo '}'", "uidl_keep_dir"),
        ("echo 'protocol pop3 {'; echo 'uidl_keep_order = no'; echo '}'", "uidl_keep_order"),
        (
            "echo 'doveconf: Fatal: Unknown setting: uidl_keep_match' >&2; exit 89",
            "uidl_keep_match",
        ),
        ("echo 'doveconf: Fatal: line 3: }' >&2; exit 89", "line 3: }"),
    ] {
        let (ran, root) = install_here(&checkout, doveconf);
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(2), "{doveconf}: {said}");
        assert!(said.contains(word) && said.contains("nothing was installed"), "{said}");
        for place in ["usr", "modules", "site"] {
            assert!(!root.join(place).exists(), "{place} was installed");
        }
    }
}

/// The site was lost, or its disk is not mounted, and so everybody is refused. With an empty site
/// everybody would be served as if nobody had been migrated.
#[test]
fn an_empty_site_is_made_once_and_never_for_a_dovecot_that_loads_the_plugin() {
    let Some(checkout) = checkout_with_plugin() else { return };
    let install = |doveconf: &str| {
        let (ran, root) = install_here(&checkout, doveconf);
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success(), "{said}");
        (root.join("site"), said)
    };
    const PLAIN: &str = "echo 'mail_plugins ='";
    const LOADING: &str = "echo 'mail_plugins = quota uidl_keep'";
    const BROKEN: &str = "[ $1 = -n ] || { echo 'line 3' >&2; exit 89; }";
    let is_empty_site = |site: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(site).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["domain", "user"]);
        for dir in [site.to_owned(), site.join("domain"), site.join("user")] {
            assert_eq!(dir.metadata().unwrap().mode() & 0o7777, 0o711, "{}", dir.display());
        }
    };
    let module = checkout.dir.path().join("here/modules/lib95_uidl_keep_plugin.so");
    let (site, said) = install(PLAIN);
    assert_eq!(said, "");
    is_empty_site(&site);

    for (doveconf, is_first, why) in [
        (PLAIN, false, "no first installation"),
        (LOADING, false, "no first installation"),
        (LOADING, true, "loads uidl_keep already"),
        (BROKEN, true, "may load uidl_keep: 'doveconf mail_plugins' fails: line 3"),
    ] {
        if site.exists() {
            fs::remove_dir_all(&site).unwrap();
        }
        if is_first {
            fs::remove_file(&module).unwrap();
        }
        let (site, said) = install(doveconf);
        assert!(said.contains(why) && said.contains("mkdir -p -m 711"), "{doveconf}: {said}");
        assert!(!site.exists(), "{doveconf}: an empty site was made");
    }

    // A part that is missing is made where nothing was ever built, and nowhere else.
    for (content, is_mended) in [
        (".lock", true),
        ("domain/a.idx", false),
        ("retired/domain/a.roster", false),
        ("settings", false),
    ] {
        fs::remove_file(&module).unwrap();
        fs::create_dir_all(site.join("domain")).unwrap();
        fs::create_dir_all(site.join(content).parent().unwrap()).unwrap();
        fs::write(site.join(content), "").unwrap();
        let (_, said) = install(PLAIN);
        assert_eq!(site.join("user").exists(), is_mended, "{content}: {said}");
        assert_eq!(said.is_empty(), is_mended, "{content}: {said}");
        fs::remove_dir_all(&site).unwrap();
    }
    // Nothing may be mounted on a mount point yet.
    fs::remove_file(&module).unwrap();
    fs::create_dir(&site).unwrap();
    install(PLAIN);
    assert_eq!(fs::read_dir(&site).unwrap().count(), 0);
    fs::remove_dir(&site).unwrap();
    symlink("nowhere", &site).unwrap();
    install(PLAIN);
    assert!(site.is_symlink() && !site.exists());
}
