//! The forecast of a site by asking Dovecot, with a program in the place of `doveadm` that answers,
//! fails or hangs as a test says.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use uidl_keep::key::{Depth, Fingerprinter, NORMALISER_VERSION};

use crate::shared::program::write_program;
use crate::support::cli::{Here, Ran};

/// It knows the users of whom `users` has a directory, and prints what lies there: `status`, and
/// `fetch` with all fields. It notes how it was called. Where a user has a `script`, that answers.
const DOVEADM: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$(nice) $*" >> "$here/calls"
[ -e "$here/down" ] && { echo "Error: auth: connect() failed" >&2; exit 75; }
while [ $# -gt 0 ]; do
    case $1 in
        -u) user=$2; shift ;;
        -F) list=$2; shift ;;
        path|status|fetch|user) what=$1 ;;
    esac
    last=$1
    shift
done
if [ "$what" = user ]; then
    [ -e "$here/users/$last" ] && exit 0
    echo "Error: user $last: user $last doesn't exist" >&2; exit 67
fi
if [ -n "$list" ]; then
    printf '['
    while read -r name; do
        [ -d "$here/users/$name" ] || continue
        printf '%s{"username":"%s","path":"%s"}' "$comma" "$name" "$here/users/$name/mail"
        comma=,
    done < "$list"
    printf ']'
    exit 0
fi
at="$here/users/$user"
[ -d "$at" ] || { echo "doveadm($user): Error: User doesn't exist" >&2; exit 67; }
[ "$what" = path ] && { printf '[{"path":"%s/mail"}]' "$at"; exit 0; }
[ -e "$at/script" ] && [ "$what" = fetch ] && { . "$at/script"; }
cat "$at/$what"
"#;

const DOVECONF: &str = r#"#!/bin/sh
case "$*" in
    *pop3_uidl_format) echo "pop3_uidl_format = %08Xu%08Xv" ;;
    *mail_plugins) echo "mail_plugins = quota uidl_keep zlib" ;;
esac
"#;

fn mail(number: u32) -> String {
    format!(
        "Received: from a by b; Mon, 6 May 2024 10:00:{number:02} +0000\nMessage-ID: <{number}@a>\n\
         Date: Mon, 6 May 2024 10:00:{number:02} +0000\nSubject: {number}\n\n"
    )
}

fn line(number: u32) -> String {
    let mut printer = Fingerprinter::new(Depth::Header);
    printer.update(mail(number).as_bytes());
    format!("{number} UID{number}-17 header={}\n", printer.finish().header.unwrap())
}

/// A site, and a Dovecot that knows its users.
struct Moved {
    here: Here,
}

impl Moved {
    /// Three messages of each user were captured.
    fn of(users: &[&str]) -> Self {
        let here = Here::new();
        let mut listing = String::new();
        for user in users {
            let lines: Vec<String> = (1..=3).map(line).collect();
            let fields = format!("state captured\nkeys {NORMALISER_VERSION}\nuidvalidity 17\n");
            let _ = write!(
                listing,
                "uidl-keep-listing 1\nmaildrop {user}\n{fields}{}.\n",
                lines.concat()
            );
        }
        here.write("first.listing", &listing);
        here.quiet("build --final -o site first.listing");
        fs::create_dir_all(here.path("bin/users")).unwrap();
        write_program(&here.path("bin/doveadm"), DOVEADM);
        write_program(&here.path("bin/doveconf"), DOVECONF);
        Self { here }
    }

    /// Lets Dovecot have these messages of a user, in a store that only it can read.
    fn has(&self, user: &str, numbers: &[u32]) {
        let at = self.here.path("bin/users").join(user);
        fs::create_dir_all(at.join("mail")).unwrap();
        let next = numbers.len() + 1;
        let status = json!([{
            "messages": numbers.len().to_string(), "uidvalidity": "9", "uidnext": next.to_string()
        }]);
        let message = |(uid, number): (usize, &u32)| {
            json!({
                "uid": uid.to_string(), "guid": format!("{uid:032x}"), "storageid": "",
                "pop3.uidl": "", "pop3.order": "", "hdr": mail(*number),
            })
        };
        let fetch: Vec<serde_json::Value> = (1..).zip(numbers).map(message).collect();
        fs::write(at.join("status"), status.to_string()).unwrap();
        fs::write(at.join("fetch"), serde_json::Value::from(fetch).to_string()).unwrap();
    }

    /// Lets this shell script answer what is fetched of a user.
    fn answers(&self, user: &str, script: &str) {
        fs::write(self.here.path("bin/users").join(user).join("script"), script).unwrap();
    }

    fn forecast(&self, more: &str) -> Ran {
        let doveadm = self.here.path("bin/doveadm");
        self.here.run(&format!("forecast --site site --doveadm {} {more}", doveadm.display()))
    }

    fn calls(&self) -> String {
        String::from_utf8(self.here.read("bin/calls")).unwrap()
    }
}

const ALICE: &str = "alice@a.org";
const BOB: &str = "bob@a.org";

#[test]
fn mail_in_any_store_is_told_as_dovecot_prints_it() {
    let moved = Moved::of(&[ALICE, BOB]);
    moved.has(ALICE, &[3, 1, 2]);
    moved.has(BOB, &[1, 2, 7]);
    let ran = moved.forecast("");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "- bob@a.org: 2 of 3 kept (2 header), 1 not copied, 1 new",
            "= alice@a.org: 3 of 3 kept (3 header)",
        ]
    );
    assert_eq!((ran.status, &*ran.stderr), (1, ""));
    let ran = moved.forecast("--json --uidls --only alice@a.org");
    let said: serde_json::Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(said["kept_uidls"], json!([[2, "UID1-17"], [3, "UID2-17"], [1, "UID3-17"]]));
    assert_eq!(said["downloaded_uids"], json!([]));
}

#[test]
fn dovecot_is_asked_without_the_plugin_and_gently() {
    let moved = Moved::of(&[ALICE]);
    moved.has(ALICE, &[1, 2, 3]);
    assert_eq!(moved.forecast("").status, 0);
    let calls = moved.calls();
    for call in calls.lines() {
        assert!(call.starts_with("10 "), "not at a lower priority: {call}");
        assert!(call.contains("-o mail_plugins=quota zlib "), "with the plugin: {call}");
    }
    // Headers are asked for alone, and of all at once.
    let fetched: Vec<&str> = calls.lines().filter(|call| call.contains(" fetch ")).collect();
    assert_eq!(fetched.len(), 2, "{calls}");
    assert!(fetched[1].ends_with("uid hdr mailbox INBOX uid 1:3"), "{calls}");
}

#[test]
fn a_user_of_whom_dovecot_says_nothing_is_told_beside_the_others() {
    let moved = Moved::of(&[ALICE, BOB, "carol@a.org"]);
    moved.has(ALICE, &[1, 2, 3]);
    moved.has("carol@a.org", &[1, 2, 3]);
    moved.answers("carol@a.org", "echo 'Error: fetch failed: no room' >&2; exit 75");
    let ran = moved.forecast("");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].starts_with("! bob@a.org: could not tell: Dovecot does not say where"));
    assert!(lines[0].ends_with("bob@a.org): Error: User doesn't exist"), "{}", lines[0]);
    assert!(lines[1].starts_with("! carol@a.org: could not tell: "), "{}", lines[1]);
    assert!(lines[1].ends_with("Error: fetch failed: no room"), "{}", lines[1]);
    assert_eq!(lines[2], "= alice@a.org: 3 of 3 kept (3 header)");
    assert_eq!(ran.status, 1);
}

#[test]
fn a_doveadm_that_hangs_is_ended_and_holds_up_nobody_else() {
    let moved = Moved::of(&[ALICE, BOB]);
    moved.has(ALICE, &[1, 2, 3]);
    moved.has(BOB, &[1, 2, 3]);
    moved.answers(ALICE, "printf '['; sleep 600");
    let begun = Instant::now();
    let ran = moved.forecast("--timeout 1");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].ends_with("said nothing for 1 seconds"), "{}", lines[0]);
    assert_eq!(lines[1], "= bob@a.org: 3 of 3 kept (3 header)");
    assert!(begun.elapsed() < Duration::from_secs(120));
}

#[test]
fn an_answer_that_was_cut_short_is_none() {
    let moved = Moved::of(&[ALICE]);
    for script in [
        "head -c 300 \"$at/fetch\"; exit 0",
        "printf '[]'; exit 0",
        "printf '[{\"uid\":\"1\"}]'; exit 0",
        "sed 's/\"uid\":\"2\"/\"uid\":\"1\"/' \"$at/fetch\"; exit 0",
        "exit 0",
    ] {
        moved.has(ALICE, &[1, 2, 3]);
        moved.answers(ALICE, script);
        let ran = moved.forecast("");
        assert!(ran.stdout.starts_with("! alice@a.org: could not tell: "), "{}", ran.stdout);
    }
}

#[test]
fn a_message_that_comes_meanwhile_is_looked_at_again() {
    let moved = Moved::of(&[ALICE]);
    moved.has(ALICE, &[1, 2, 3]);
    // The first time, one that is counted is not printed.
    let script = "[ -e \"$at/seen\" ] || { touch \"$at/seen\"; printf '[]'; exit 0; }";
    moved.answers(ALICE, script);
    assert!(moved.forecast("").stdout.starts_with("= alice@a.org: 3 of 3"));
}

#[test]
fn very_many_users_are_asked_for_by_hundreds() {
    let names: Vec<String> = (0..450).map(|number| format!("u{number:03}@a.org")).collect();
    let users: Vec<&str> = names.iter().map(String::as_str).collect();
    let moved = Moved::of(&users);
    // Nothing was copied, so that there is nothing to fetch.
    for user in &users {
        fs::create_dir(moved.here.path("bin/users").join(user)).unwrap();
    }
    let ran = moved.forecast("");
    assert!(ran.stdout.contains("total: 450 maildrops (0 !, 0 *, 450 -, 0 +, 0 =)"));
    assert_eq!(moved.calls().lines().count(), 6, "two questions for each 200 of them");
}

#[test]
fn a_dovecot_that_does_not_run_is_trouble() {
    let moved = Moved::of(&[ALICE]);
    moved.has(ALICE, &[1, 2, 3]);
    moved.here.write("bin/down", "");
    let ran = moved.forecast("");
    assert_eq!((ran.status, &*ran.stdout), (2, ""));
    assert!(ran.stderr.contains("connect() failed; is that the Dovecot of this server"));
    let ran = moved.here.run("forecast --site site --doveadm bin/nothing");
    assert_eq!((ran.status, &*ran.stdout), (2, ""));
    assert!(ran.stderr.contains("--maildir does without it"), "{}", ran.stderr);
}
