//! One night of a migration, of three domains and forty mailboxes of a Courier server: the
//! operator's output, the listing, and the users whom the roster knows. A person reads
//! `tests/data/night`; `UIDL_KEEP_BLESS=1` writes it anew, to be read again before it is committed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shared::capture::{Ran, make, message};

const LIST: &str = "courierpop3dsizelist";

/// The old server.
struct Old {
    root: tempfile::TempDir,
}

impl Old {
    fn path(&self, address: &str) -> PathBuf {
        let (local, domain) = address.split_once('@').unwrap();
        self.root.path().join("var/qmail/mailnames").join(domain).join(local).join("Maildir")
    }

    /// Makes a mailbox with these files. A file with a number at its end is one that Courier listed
    /// under that number.
    fn mailbox(&self, address: &str, files: &[(&str, u32)]) -> PathBuf {
        let path = self.path(address);
        make(&path);
        let mut list = "/3 50 1700000000\n".to_owned();
        for (file, number) in files {
            fs::write(path.join(file), message(file)).unwrap();
            let name = file.rsplit('/').next().unwrap();
            if *number > 0 {
                list += &format!("{name} 100 {number}:1700000000:0\n");
            }
        }
        fs::write(path.join(LIST), list).unwrap();
        path
    }

    fn ordinary(&self, address: &str) -> PathBuf {
        self.mailbox(address, &[("cur/1700000001.a:2,S", 1), ("cur/1700000002.b:2,", 2)])
    }

    /// Makes one that only IMAP has ever opened.
    fn by_imap(&self, address: &str) {
        let path = self.path(address);
        make(&path);
        fs::write(path.join("courierimapuiddb"), "1 1700000000 19\n").unwrap();
        (1..=18).for_each(|n| fs::write(path.join(format!("cur/{n}.i:2,S")), "x\n\n").unwrap());
    }

    fn new() -> Self {
        let old = Self { root: tempfile::tempdir().unwrap() };
        // a.example is an ordinary domain, of which a third reads by IMAP.
        (1..=12).for_each(|n| drop(old.ordinary(&format!("pop{n:02}@a.example"))));
        (1..=8).for_each(|n| old.by_imap(&format!("imap{n:02}@a.example")));
        // b.example has all other kinds.
        for local in ["anna-lena", "first.last", "o'brien", "two words", "J\u{fc}rgen", "100%"] {
            old.ordinary(&format!("{local}@b.example"));
        }
        let at = |local: &str| format!("{local}@b.example");
        make(&old.path(&at("nobody")));
        old.mailbox(&at("just-created"), &[]);
        let unread = old.path(&at("unread"));
        make(&unread);
        fs::write(unread.join("new/1700000001.a"), message("new")).unwrap();
        old.mailbox(&at("since-then"), &[("cur/1700000001.a:2,S", 1), ("new/1700000009.z", 0)]);
        // He downloads and deletes each day; a webmail has opened today's mail.
        let path = old.ordinary(&at("deletes"));
        fs::remove_dir_all(path.join("cur")).unwrap();
        fs::create_dir(path.join("cur")).unwrap();
        fs::write(path.join("cur/1700000009.z:2,S"), message("today")).unwrap();
        // He is over quota: Courier could not write its list any more.
        let full = [("cur/1700000001.a:2,S", 1), ("cur/1700000008.y:2,S", 0)];
        let full = old.mailbox(&at("over-quota"), &full);
        fs::write(full.join("maildirsize"), "100S\n200 2\n").unwrap();
        let path = old.ordinary(&at("crlf"));
        let list = fs::read_to_string(path.join(LIST)).unwrap();
        fs::write(path.join(LIST), list.replace('\n', "\r\n")).unwrap();
        let path = old.ordinary(&at("two-servers"));
        fs::write(path.join("dovecot-uidlist"), "3 V1 N1\n").unwrap();
        // A tool that takes no colon copied it, all of it, and in part.
        let path = old.ordinary(&at("copied"));
        for (from, to) in
            [("1700000001.a:2,S", "1700000001.a;2,S"), ("1700000002.b:2,", "1700000002.b;2,")]
        {
            fs::rename(path.join("cur").join(from), path.join("cur").join(to)).unwrap();
        }
        let three =
            [("cur/1700000001.a:2,S", 1), ("cur/1700000002.b:2,S", 2), ("cur/1700000003.c:2,S", 3)];
        let path = old.mailbox(&at("copied-in-part"), &three).join("cur");
        fs::rename(path.join("1700000003.c:2,S"), path.join("1700000003.c_2,S")).unwrap();
        // It has another's list.
        let path = old.ordinary(&at("exchanged"));
        fs::write(
            path.join(LIST),
            "/3 9 17\n1700000005.x:2,S 1 1:17:0\n1700000006.y:2, 1 2:17:0\n",
        )
        .unwrap();
        // A full disk has left a list without an octet.
        fs::write(old.ordinary(&at("broken")).join(LIST), "").unwrap();
        fs::write(old.ordinary(&at("one-odd-line")).join(LIST), {
            "/3 9 1700000000\n1700000001.a:2,S 100 1:1700000000:0\n????\n"
        })
        .unwrap();
        // Somebody has made an alias by a link.
        fs::create_dir(old.path(&at("info")).parent().unwrap()).unwrap();
        symlink("../o'brien/Maildir", old.path(&at("info"))).unwrap();
        // c.example lies on a disk that is not mounted here.
        symlink("/mnt/disk2/c.example", old.root.path().join("var/qmail/mailnames/c.example"))
            .unwrap();
        old
    }

    /// The messages of the helper, without where and when.
    fn told(&self, said: &str) -> String {
        let said = said.replace(self.root.path().to_str().unwrap(), "ROOT");
        said.lines()
            .filter(|line| !line.starts_with("taken "))
            .map(|line| format!("{line}\n"))
            .collect()
    }
}

fn golden(name: &str, said: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/night").join(name);
    if std::env::var_os("UIDL_KEEP_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, said).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert!(said == wanted, "not as in {}:\n{said}", path.display());
}

#[test]
fn a_night_of_forty_mailboxes_is_told_as_it_was() {
    let old = Old::new();
    let listing = old.root.path().join("courier.listing");
    let capture = |arguments: &[&str]| {
        let mut capture = Command::new(env!("CARGO_BIN_EXE_uidl-keep"));
        capture.args(["capture", "courier", "--layout", "plesk", "--keys", "file", "--root"]);
        Ran::of({
            capture.arg(old.root.path()).arg("-o").arg(&listing).args(arguments);
            capture
        })
    };
    let ran = capture(&[]);
    assert_eq!((ran.status, ran.stdout.len()), (1, 0));
    golden("capture.stderr", &old.told(&ran.stderr));
    golden("courier.listing", &old.told(&fs::read_to_string(&listing).unwrap()));

    let site = old.root.path().join("site");
    let mut build = Command::new(env!("CARGO_BIN_EXE_uidl-keep"));
    build.args(["build", "--final", "-o"]).arg(&site).arg(&listing);
    let ran = Ran::of(build);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    golden("build.stderr", &old.told(&ran.stderr));
    let roster = |domain: &str| {
        let text = fs::read_to_string(site.join(format!("domain/{domain}.roster"))).unwrap();
        let lines = text.lines().skip(1).filter(|line| !line.starts_with(". "));
        lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned() + "\n").collect::<String>()
    };
    let rosters: String = ["a.example", "b.example", "c.example"].map(roster).concat();
    golden("rosters", &rosters);
    assert_eq!(rosters.lines().filter(|line| !line.starts_with('*')).count(), 40);

    // Nothing of it needs anybody if only the first domain is asked for.
    fs::remove_file(&listing).unwrap();
    let ran = capture(&["--only", "a.example"]);
    let of_a = ran.stderr.lines().filter(|line| !line.contains(" captured, ")).count();
    assert_eq!((ran.status, of_a), (0, 0), "{}", ran.stderr);
}
