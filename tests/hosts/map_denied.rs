//! A system that lets the index be read and not mapped, as SELinux may on /var/lib: it is read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::helper;
use crate::support::scenario::{Listing, Scenario, USER};
use crate::support::traced::{can_trace, lists_under_strace};

/// The errors of mmap if only that is not allowed, and then the other one that it may give.
const DENIALS: [&str; 3] = ["EACCES", "EPERM", "ENODEV"];
const FAULTS: [&str; 3] = ["ENOMEM", "EIO", "EBADF"];

/// The options of strace to look at the maps of one file, and to have them fail.
fn failing_maps<'a>(file: &'a str, inject: &'a str) -> [&'a str; 6] {
    ["-P", file, "-e", "trace=mmap", "-e", inject]
}

/// Returns how often that file was to be mapped, and was not.
fn denied(trace: &Path, error: &str) -> usize {
    let trace = fs::read_to_string(trace).unwrap();
    trace.lines().filter(|line| line.contains("mmap(") && line.contains(error)).count()
}

/// Builds a site with one user of so many messages. Returns it, and its index.
fn site_of(dir: &Path, messages: u32) -> (PathBuf, PathBuf) {
    let mut listing = format!("uidl-keep-listing 1\nmaildrop {USER}\nstate captured\n");
    for number in 1..=messages {
        listing += &format!("{number} {number:064} file={number:064}\n");
    }
    fs::write(dir.join("listing"), listing + ".\n").unwrap();
    let site = dir.join("site");
    let mut build = helper::uidl_keep();
    helper::run(build.args(["build", "-o"]).arg(&site).arg(dir.join("listing")));
    let index = site.join("domain/example.com.idx");
    (site, index)
}

/// Each look-up that maps sets a signal handler twice and fills page tables: more than all it
/// reads.
#[test]
fn an_index_is_mapped_for_a_large_block_alone() {
    if !can_trace() {
        return;
    }
    for (messages, maps) in [(20, 0), (400, 0), (1200, 1), (20_000, 2)] {
        let dir = tempfile::tempdir().unwrap();
        let (site, index) = site_of(dir.path(), messages);
        let trace = dir.path().join("trace");
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-f", "-e", "trace=mmap", "-o"]).arg(&trace).arg("-P").arg(&index);
        strace.arg(helper::uidl_keep().get_program()).arg("get").arg(&site).arg(USER);
        let got = strace.output().unwrap();
        assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
        let trace = fs::read_to_string(trace).unwrap();
        let is_one = |line: &&str| line.contains("mmap(");
        assert_eq!(trace.lines().filter(is_one).count(), maps, "{messages}:\n{trace}");
    }
}

/// Runs `uidl-keep get` on a site with one user of 20,000 messages: a block that takes several
/// maps.
#[test]
fn the_helper_reads_an_index_that_may_not_be_mapped() {
    if !can_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (site, index) = site_of(dir.path(), 20_000);
    assert!(index.metadata().unwrap().len() > 1 << 20);
    let index = index.to_str().unwrap();
    let trace = dir.path().join("trace");
    let get = |error: &str| -> Output {
        let inject = format!("inject=mmap:error={error}");
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-f", "-o"]).arg(&trace).args(failing_maps(index, &inject));
        strace.arg(helper::uidl_keep().get_program()).arg("get").arg(&site).arg(USER);
        strace.output().unwrap()
    };

    let whole = helper::run(helper::uidl_keep().arg("get").arg(&site).arg(USER));
    for error in DENIALS {
        let got = get(error);
        assert!(got.status.success(), "{error}: {}", String::from_utf8_lossy(&got.stderr));
        assert!(got.stdout == whole, "{error}");
        assert_eq!(denied(&trace, error), 1, "asked for once");
    }
    for error in FAULTS {
        let got = get(error);
        assert_eq!(got.status.code(), Some(2), "{error}");
        assert_eq!(got.stdout, b"", "{error}");
        let said = String::from_utf8(got.stderr).unwrap();
        assert!(said.contains("example.com.idx: "), "{error}: {said}");
    }
}

#[test]
fn a_login_reads_an_index_that_may_not_be_mapped() {
    if !can_trace() {
        return;
    }
    let Some(server) = Scenario::migrated(5) else { return };
    // A block that is large enough to be mapped.
    let files = server.maildir().files();
    let spent = |listing: Listing, number| listing.field(&format!("spent {number:064}"));
    server.capture(&(0..1500).fold(Listing::of_files(&files), spent));
    let index = server.dovecot.inside(&server.index());
    let trace = tempfile::NamedTempFile::new().unwrap();
    fs::set_permissions(trace.path(), crate::support::host::unix_mode(0o666)).unwrap();
    for (errors, is_served) in [(DENIALS, true), (FAULTS, false)] {
        for error in errors {
            // The first listing is the one that reads the index.
            let _ = fs::remove_file(server.ledger());
            let _ = fs::remove_file(server.maildir().path().join("uidl-keep.lock"));
            let inject = format!("inject=mmap:error={error}");
            let options = failing_maps(index.to_str().unwrap(), &inject);
            let lists = lists_under_strace(&server.dovecot, trace.path(), &options);
            assert_eq!(lists, is_served, "{error}");
            assert!(denied(trace.path(), error) >= 1, "{error}: the index was not to be mapped");
        }
    }
    server.serves(5, "allowed again");
    server.ends_well();
}
