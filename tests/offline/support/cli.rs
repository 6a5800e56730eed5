//! A directory to run the helper in, and listings to build from.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::shared::capture::make;

pub const ALICE: &str = "uidl-keep-listing 1
maildrop alice@example.com
state captured
source courier /srv/old/alice
uidvalidity 1714990000
counter 13 UID%u-%v
spent UID9-1714990000
1 UID1-1714990000 uid=1 octets=420 file=1714990000.20000.old%20name
2 UID2-1714990000 uid=2 octets=433 file=1714990060.20007.old.example.com
.
";
pub const BOB: &str = "uidl-keep-listing 1
maildrop bob@example.com
state empty
.
";
pub const CAROL: &str = "uidl-keep-listing 1
maildrop carol@example.com
state failed
remark Maildir: permission denied
.
";
pub const DAVE: &str = "uidl-keep-listing 1
maildrop dave@example.net
state captured
1 0000000155aa file-hash=0101010101010101010101010101010101010101
.
";
pub const ROOT: &str = "uidl-keep-listing 1
maildrop eve
state captured
1 a file=1
2 a file=2
.
";

pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A directory to work in.
pub struct Here(pub TempDir);

impl Here {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The mode lets other accounts get at a site in it.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn read_text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    pub fn roster(&self, name: &str) -> Vec<String> {
        let text = String::from_utf8(self.read(name)).unwrap();
        // The first and the last line go, and the checksums.
        let lines: Vec<&str> = text.lines().collect();
        let lines = lines[1..lines.len() - 1].iter();
        lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    }

    pub fn mode(&self, name: &str) -> u32 {
        self.path(name).metadata().unwrap().mode() & 0o7777
    }

    /// The helper, ready to run here, for a user who did not use sudo. It leaves closing summaries
    /// out.
    pub fn command(&self, args: &str) -> Command {
        let mut command = self.command_with_summary(args);
        command.arg("--quiet");
        command
    }

    /// The same, with its closing summary.
    pub fn command_with_summary(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uidl-keep"));
        // Only the tests that have a Dovecot ask it of users, and rehearse them.
        let without: &[&str] = match args.split(' ').next() {
            _ if args.contains("--doveadm") || args.contains("--redownload") => &[],
            Some("hold") => &["--no-check"],
            Some("release") => &["--no-check", "--unrehearsed"],
            _ => &[],
        };
        command.args(args.split_whitespace()).args(without);
        command.current_dir(self.0.path()).env_remove("SUDO_USER");
        command
    }

    pub fn run(&self, args: &str) -> Ran {
        self.run_with(args, "")
    }

    pub fn run_with(&self, args: &str, stdin: &str) -> Ran {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        Ran {
            status: output.status.code().expect("not killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs it and expects that it has nothing to say.
    pub fn quiet(&self, args: &str) {
        let ran = self.run(args);
        assert_eq!((ran.status, &*ran.stdout, &*ran.stderr), (0, "", ""), "{args}");
    }

    /// Runs it and expects trouble. Returns the sentence of that.
    pub fn trouble(&self, args: &str) -> String {
        let ran = self.run(args);
        assert_eq!((ran.status, &*ran.stdout), (2, ""), "{args}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("uidl-keep: "), "{args}: {}", ran.stderr);
        ran.stderr
    }

    /// Runs it for a reader of its standard output that has gone away before the first line.
    pub fn unread(&self, args: &str) -> Output {
        let mut command = self.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        child.wait_with_output().unwrap()
    }

    /// The Maildir of a user on the new server, made when it is not there.
    pub fn maildir(&self, user: &str) -> PathBuf {
        let (local, domain) = user.split_once('@').unwrap();
        let path = self.path(&format!("mail/{domain}/{local}"));
        if !path.exists() {
            make(&path);
        }
        path
    }

    /// All files of a site, by name.
    pub fn files(&self, site: &str) -> Vec<String> {
        let mut files = Vec::new();
        for directory in ["domain", "user"] {
            for entry in fs::read_dir(self.path(site).join(directory)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                files.push(format!("{directory}/{name}"));
            }
        }
        files.sort();
        files
    }
}

/// Two domains and a login without one, in two listings.
pub fn with_listings() -> Here {
    let here = Here::new();
    here.write("one.listing", &[DAVE, BOB].concat());
    here.write("two.listing", &[ROOT, ALICE].concat());
    here
}
