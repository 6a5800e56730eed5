//! `dovecot-plugin/fits`: headers of another Dovecot than the server's build nothing.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// A directory with headers at `usr/include/dovecot`, and the script.
struct Prefix {
    dir: tempfile::TempDir,
}

impl Prefix {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for part in ["usr/include/dovecot", "usr/lib/dovecot", "usr/lib64/dovecot"] {
            fs::create_dir_all(dir.path().join(part)).unwrap();
        }
        let prefix = Self { dir };
        let define = "#define DOVECOT_ABI_VERSION \"2.3.ABIv19(2.3.19.1)\"\n";
        prefix.write("usr/include/dovecot/config.h", define);
        prefix
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn run(&self, library: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("dovecot-plugin/fits");
        let mut fits = Command::new(script);
        fits.arg(self.dir.path().join("usr/include/dovecot")).env_remove("DOVECOT_INCDIR");
        fits.args(library.iter().map(|name| match *name {
            "none" => "none".into(),
            name => self.dir.path().join(name),
        }));
        fits.output().unwrap()
    }

    #[track_caller]
    fn says(&self, library: &[&str], status: i32, words: &[&str]) {
        let ran = self.run(library);
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!((ran.status.code(), said.lines().count() > 1), (Some(status), false), "{said}");
        assert_eq!(said.is_empty(), words.is_empty(), "{said}");
        for word in words {
            assert!(said.contains(word), "no {word:?} in {said}");
        }
    }
}

#[test]
fn headers_fit_the_library_of_one_abi_whatever_its_release() {
    let prefix = Prefix::new();
    let not_there = ["2.3.ABIv19, are not compared", "which is not there", "LIBDOVECOT"];
    prefix.says(&[], 0, &not_there);
    prefix.says(&["nowhere"], 0, &not_there);
    prefix.says(&["none"], 0, &["2.3.ABIv19, are not compared"]);
    prefix.write("usr/lib/dovecot/libdovecot.so.0", "\0other\x002.3.ABIv19(2.3.19)\0");
    prefix.says(&[], 0, &[]);
    prefix.write("usr/lib/dovecot/libdovecot.so.0", "\x002.3.ABIv19\0");
    prefix.says(&[], 0, &[]);
    prefix.write("usr/include/dovecot/config.h", "# define DOVECOT_ABI_VERSION \"2.3.ABIv19\"\n");
    prefix.says(&[], 0, &[]);
}

#[test]
fn headers_of_another_dovecot_are_refused_with_both_names() {
    let prefix = Prefix::new();
    for other in ["2.3.ABIv1", "2.3.ABIv190", "2.3.ABIv21(2.3.21)", "2.4.ABIv1", "12.3.ABIv19"] {
        prefix.write("other.so", &format!("\0{other}\0"));
        let name = other.split('(').next().unwrap();
        prefix.says(&["other.so"], 2, &["is of Dovecot 2.3.ABIv19, and ", &format!("of {name},")]);
    }
    // The library beside the headers is found, too, also where it is in lib64.
    prefix.write("usr/lib64/dovecot/libdovecot.so.0", "\x002.4.ABIv1\0");
    prefix.says(&[], 2, &["lib64/dovecot/libdovecot.so.0 of 2.4.ABIv1", "nothing was built"]);
    prefix.write("other.so", "\x002.3.ABIv19(2.3.19)\x002.4.ABIv1\0");
    prefix.says(&["other.so"], 2, &["more than one ABI of Dovecot (2.3.ABIv19 2.4.ABIv1)"]);
    prefix.write("other.so", "nothing");
    prefix.says(&["other.so"], 2, &["names no ABI of Dovecot"]);
    prefix.write("usr/include/dovecot/config.h", "");
    prefix.says(&["other.so"], 2, &["no config.h that says", "DOVECOT_INCDIR"]);
}
