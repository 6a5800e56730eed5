//! Lists of accounts for `capture pop3`, and files with passwords: these are refused before anybody
//! is asked. No error shows a password.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// No output may hold this.
const SECRET: &str = "hunter2-secret";

struct Here(TempDir);

impl Here {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str, mode: u32) {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    /// Returns the error that a capture ends with; it must have written nothing.
    fn refused(&self, args: &[&str], stdin: &str) -> String {
        let mut child = Command::new(env!("CARGO_BIN_EXE_uidl-keep"))
            .args(["capture", "pop3"])
            // If one is taken for right by mistake, nobody is there, and nobody waits for him.
            .args(["--patience", "0s", "--timeout", "1s"])
            .args(args)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A helper that refuses at once does not read it.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(output.stdout, b"");
        assert!(!said.contains(SECRET), "{said}");
        assert!(!self.0.path().join("x").exists() && !self.0.path().join("x.journal").exists());
        said
    }

    /// Returns the error about this table.
    fn table(&self, text: &str) -> String {
        self.file("t.csv", text, 0o600);
        self.refused(&["--accounts", "t.csv", "-o", "x"], "")
    }
}

#[test]
fn an_error_in_a_table_names_its_line_and_shows_nothing_of_it() {
    let here = Here::new();
    let head = "host,user,password,new_user\n";
    for (text, said) in [
        ("", "t.csv: no line in it; the first names columns"),
        (head, "t.csv: no account in it"),
        // The table has no header: the first account is not taken for one, nor shown.
        (
            "old.example,alice,hunter2-secret,alice@example.com\n",
            "t.csv:1: column 1 is none that is known; the first line names the columns: \
             host,user,password,new_user",
        ),
        ("host,user\n", "t.csv:1: no column \"user\" or no column \"password\""),
        ("user,password,user\n", "t.csv:1: column 3 is there twice"),
        (
            "\u{feff}# ours\r\nhost, user ,password\r\n\r\nold.example,alice,hunter2-secret,x\r\n",
            "t.csv:4: 4 fields, and the first line names 3; is there a comma in one that is not in \
             quotes?",
        ),
        (
            &format!("{head}old.example,alice,\"hunter2-secret,\n"),
            "t.csv:2: an odd number of quotes",
        ),
        (&format!("{head}old.example,alice,,\n"), "t.csv:2: no password"),
        (&format!("{head},alice,{SECRET},\n"), "t.csv:2: no host"),
        (&format!("{head}o:x,alice,{SECRET},\n"), "t.csv:2: not a port: o:x"),
        (&format!("{head}old.example,,{SECRET},a\n"), "t.csv:2: empty user name"),
        (&format!("{head}old.example,a\u{1},{SECRET},a\n"), "t.csv:2: a control character"),
        (
            &format!("{head}old.example,a,hunter2-secret\0x,a\n"),
            "t.csv:2: a line end or NUL in the",
        ),
        (
            &format!("{head}o,alice,{SECRET},\n#\nold.example,bob,{SECRET},alice\n"),
            "t.csv:4: a second account for alice on the new server, the first is in line 2",
        ),
    ] {
        let found = here.table(text);
        assert!(found.starts_with(&format!("uidl-keep: {said}")), "{text:?}: {found}");
        assert_eq!(found.lines().count(), 1, "{found}");
    }
    // These octets are no UTF-8.
    let path = here.0.path().join("t.csv");
    fs::write(&path, [head.as_bytes(), b"o,\xe4,hunter2-secret,x\n"].concat()).unwrap();
    let found = here.refused(&["--accounts", "t.csv", "-o", "x"], "");
    assert_eq!(found, "uidl-keep: t.csv:2: user is not UTF-8\n");
}

#[test]
fn a_file_with_passwords_that_others_can_read_is_refused() {
    let here = Here::new();
    here.file("pw", SECRET, 0o600);
    for mode in [0o644, 0o640, 0o604, 0o620] {
        here.file("t.csv", "user,password\n", mode);
        here.file("pw", SECRET, mode);
        for args in [
            &["--host", "h", "--accounts", "t.csv", "-o", "x"][..],
            &["--host", "h", "--user", "alice", "--password-file", "pw"],
        ] {
            let said = here.refused(args, "");
            assert!(
                said.contains(&format!("others can read it (mode {mode:04o}): chmod 600 it")),
                "{said}"
            );
        }
    }
}

#[test]
fn a_link_of_somebody_else_is_not_followed_to_a_file_with_passwords() {
    if !fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0) {
        eprintln!("skipped: only root can make a link of another uid");
        return;
    }
    let here = Here::new();
    here.file("pw", "\n", 0o600);
    let link = here.0.path().join("link");
    symlink("pw", &link).unwrap();
    let args = ["--host", "h", "--user", "alice", "--password-file", "link"];
    assert_eq!(here.refused(&args, ""), "uidl-keep: link: no password in it\n");
    std::os::unix::fs::lchown(&link, Some(5000), None).unwrap();
    let said = here.refused(&args, "");
    assert!(said.starts_with("uidl-keep: link: a symbolic link of uid 5000"), "{said}");
    let said = here.refused(&["--host", "h", "--user", "a", "--password-file", "/dev/null"], "");
    assert_eq!(said, "uidl-keep: /dev/null: not a regular file\n");
}

#[test]
fn a_list_of_users_names_each_once_and_a_template_names_them() {
    let here = Here::new();
    let args = ["--host", "h", "--users", "u", "--password-stdin", "-o", "x"];
    for (text, said) in [
        ("# nobody\n\n", "u: no account in it"),
        ("alice\nbob a b\n", "u:2: not a login name and perhaps a new one: bob a b"),
        ("alice new\nbob\ncarol new\n", "u:3: a second account for new on the new server"),
    ] {
        here.file("u", text, 0o644);
        let found = here.refused(&args, SECRET);
        assert!(found.starts_with(&format!("uidl-keep: {said}")), "{found}");
    }
    here.file("u", "alice\n", 0o644);
    let with = |more: &[&str]| here.refused(&[&args[..], more].concat(), SECRET);
    let found = with(&["--login-template", "{mailbox}*m"]);
    assert!(found.contains("u:1: --login-template: no such variable: {mailbox}"), "{found}");
    let found = with(&["--login-template", "master"]);
    assert!(found.contains("is the same for all: put {user} in it, or say --authorize"), "{found}");
}

#[test]
fn one_password_comes_from_one_place_and_is_one_line() {
    let here = Here::new();
    let one = ["--host", "h", "--user", "alice"];
    let with = |more: &[&str], stdin: &str| here.refused(&[&one[..], more].concat(), stdin);
    assert!(with(&[], "").contains("no password: say --password-stdin"));
    assert!(with(&["--password-stdin"], "").contains("standard input: no password in it"));
    let two = format!("{SECRET}\n{SECRET}\n");
    assert!(with(&["--password-stdin"], &two).contains("more than one line"));
    let unset = ["--password-env", "UIDL_KEEP_NO_SUCH"];
    assert!(with(&unset, "").contains("no such variable"));
    assert!(with(&["--password-stdin", "--password-env", "X"], "").contains("cannot be used with"));
    here.file("u", "alice\n", 0o600);
    here.file("t.csv", "user,password\nalice,x\n", 0o600);
    let both = ["--host", "h", "--users", "-", "--password-stdin", "-o", "x"];
    assert!(here.refused(&both, "").contains("standard input is only one of the two"));
    let both = ["--host", "h", "--accounts", "t.csv", "--password-stdin", "-o", "x"];
    assert!(here.refused(&both, "").contains("--accounts has a password for each account"));
    // Many accounts are not captured to a place where nothing can go on.
    let nowhere = ["--host", "h", "--accounts", "t.csv"];
    assert!(here.refused(&nowhere, "").contains("--output <FILE>"));
    for place in ["-", "."] {
        let said = here.refused(&[&nowhere[..], &["-o", place]].concat(), "");
        assert!(said.starts_with(&format!("uidl-keep: {place}: not a file")), "{said}");
    }
}

#[test]
fn the_manual_names_every_option() {
    let help = Command::new(env!("CARGO_BIN_EXE_uidl-keep"))
        .args(["capture", "pop3", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let is_of_name = |char: char| char.is_ascii_lowercase() || char == '-';
    let options: Vec<&str> = help
        .lines()
        .map(|line| line.trim_start().trim_start_matches("-o, ").trim_start_matches("-h, "))
        .filter(|line| line.starts_with("--"))
        .map(|line| &line[..line.find(|char| !is_of_name(char)).unwrap_or(line.len())])
        .filter(|option| *option != "--help" && *option != "--output")
        .collect();
    assert!(options.len() > 20, "{options:?}");
    let manual = include_str!("../../docs/uidl-keep.1");
    for option in options {
        assert!(
            manual.contains(&option.replace('-', "\\-")),
            "{option} is not in docs/uidl-keep.1"
        );
    }
}
