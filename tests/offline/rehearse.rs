//! `rehearse`, and `release` of who was not rehearsed, beside a Dovecot that the test makes up:
//! what is ours in it.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::shared::program::write_program;
use crate::support::cli::{BOB, CAROL, DAVE, Here, Ran};

const ALICE: &str = "uidl-keep-listing 1
maildrop alice@example.com
state captured
1 a1 file=1
2 a2 file=2
3 a3 file=3
.
";

/// A `pop3` that lists what `mail/USER` says, after it ran `mail/USER.sh` where that is there.
/// `sessions` has a line of each: its arguments, and what it was told by its environment.
const POP3: &str = r#"#!/bin/sh
cd HERE || exit
echo "$* $UIDL_KEEP_REHEARSAL $DOVECOT_PRESERVE_ENVS $(cut -d ' ' -f 19 /proc/$$/stat)" >>sessions
while [ "$1" != -u ]; do shift; done
list() {
    printf '+OK\r\n'; n=0
    while read -r uidl; do n=$((n + 1)); printf '%s %s\r\n' $n "${1:-$uidl}"; done <"mail/$user"
    printf '.\r\n'
}
user=$2
[ ! -e "mail/$user.sh" ] || . "mail/$user.sh"
while read -r line; do
    case $line in
    NOOP*) printf '+OK\r\n' ;;
    UIDL*) list ;;
    LIST*) list 100 ;;
    QUIT*) printf '+OK\r\n'; echo "$user" >>quit; exit ;;
    *) printf -- '-ERR\r\n' ;;
    esac
done
"#;

const DOVECONF: &str = r#"#!/bin/sh
case $* in
*mail_plugins*) cat HERE/mail_plugins ;;
esac
"#;

/// A Dovecot with the mail of alice and dave as it was captured, and a final site on which they,
/// bob (empty) and carol (failed) are held.
fn with_site() -> Here {
    let here = Here::new();
    for (name, text) in [("doveadm", "#!/bin/sh\n"), ("doveconf", DOVECONF), ("pop3", POP3)] {
        let text = text.replace("HERE", here.0.path().to_str().unwrap());
        write_program(&here.path(name), &text);
    }
    here.write("mail_plugins", "mail_plugins = acl last_login uidl_keep\n");
    fs::create_dir(here.path("mail")).unwrap();
    here.write("mail/alice@example.com", "a1\na2\na3\n");
    here.write("mail/bob@example.com", "");
    here.write("mail/dave@example.net", "0000000155aa\nnew\n");
    here.write("one.listing", &[ALICE, BOB, CAROL].concat());
    here.write("two.listing", DAVE);
    assert_eq!(here.run("build --final -o site one.listing two.listing").status, 0);
    here.run("hold --site site --all");
    here
}

fn rehearse(here: &Here, args: &str) -> Ran {
    let output = command(here, args).output().unwrap();
    Ran {
        status: output.status.code().expect("not killed"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn command(here: &Here, args: &str) -> Command {
    let doveadm = here.path("doveadm");
    let args = format!("rehearse --no-check --site site --doveadm {} {args}", doveadm.display());
    here.command_with_summary(&args)
}

fn release(here: &Here, args: &str) -> Ran {
    let doveadm = here.path("doveadm");
    here.run(&format!("release --no-check --site site --doveadm {} {args}", doveadm.display()))
}

/// The line of a user without his name, each stamp as `N`.
fn line(here: &Here, user: &str) -> String {
    let scope = user.split_once('@').map_or(user, |(_, domain)| domain);
    let roster = here.roster(&format!("site/domain/{scope}.roster"));
    let line = roster.iter().find_map(|line| line.strip_prefix(&format!("{user} ")));
    let words = line.unwrap().split(' ').map(|word| match word.split_once('=') {
        Some((key, value)) if value.parse::<u64>().is_ok() => format!("{key}=N"),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn sessions(here: &Here) -> Vec<String> {
    let text = fs::read_to_string(here.path("sessions")).unwrap_or_default();
    let mut sessions: Vec<String> = text.lines().map(str::to_owned).collect();
    sessions.sort();
    sessions
}

/// Waits until something is so.
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

const REHEARSED: &str = "captured held rehearsal=N rehearsed=yes";
const ALICE_IS: &str = "alice@example.com";
const BOB_IS: &str = "bob@example.com";
const CAROL_IS: &str = "carol@example.com";
const DAVE_IS: &str = "dave@example.net";

#[test]
fn who_agrees_is_rehearsed_and_released_and_nobody_is_asked_twice() {
    let here = with_site();
    let refused = release(&here, "--all");
    assert_eq!(refused.status, 1);
    assert!(
        refused.stderr.contains(
            "2 users stay held, for they are not rehearsed (the first: alice@example.com, \
             dave@example.net): `uidl-keep rehearse` them, or release them with --unrehearsed"
        ),
        "{}",
        refused.stderr
    );
    assert_eq!(line(&here, ALICE_IS), "captured held");
    assert_eq!(line(&here, BOB_IS), "empty guarded", "no client holds anything of his");

    let ran = rehearse(&here, "--all");
    assert_eq!((ran.status, &*ran.stdout), (1, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("left out: 1 whose capture failed (the first: carol@example.com)"));
    assert!(ran.stderr.contains("left out: 1 who are served (the first: bob@example.com): their"));
    assert!(ran.stderr.ends_with("2 rehearsed, 0 differ, 0 could not be rehearsed\n"));
    for user in [ALICE_IS, DAVE_IS] {
        assert_eq!(line(&here, user), REHEARSED);
    }
    assert_eq!(line(&here, BOB_IS), "empty guarded");
    let log = String::from_utf8(here.read("site/changes.log")).unwrap();
    assert!(log.contains(" rehearse alice@example.com held -> held "), "{log}");
    assert!(log.contains(" rehearsed alice@example.com held -> held "), "{log}");
    here.quiet("check site");

    // The plugin is told the stamp.
    let roster = here.roster("site/domain/example.com.roster");
    let stamp = roster[0].split("rehearsal=").nth(1).unwrap().split(' ').next().unwrap();
    let said = sessions(&here);
    let args = "-o mail_plugins=acl uidl_keep -u";
    assert_eq!(said[0], format!("{args} {ALICE_IS} {stamp} UIDL_KEEP_REHEARSAL 10"));
    assert!(said[1].starts_with(&format!("{args} {DAVE_IS} ")));
    assert_eq!(fs::read_to_string(here.path("quit")).unwrap().lines().count(), 2);

    let again = rehearse(&here, "example.com example.net");
    assert!(again.stderr.ends_with("rehearsed, 2 were rehearsed before\n"), "{}", again.stderr);
    assert_eq!(sessions(&here).len(), 2);
    assert_eq!(rehearse(&here, "--again alice@example.com").status, 0);
    assert_eq!(sessions(&here).len(), 3);

    let released = release(&here, ALICE_IS);
    assert_eq!((released.status, &*released.stdout), (0, "alice@example.com guarded\n"));
    assert_eq!(release(&here, "example.net").status, 0);
    assert_eq!(line(&here, DAVE_IS), "captured guarded rehearsal=N rehearsed=yes");
}

/// Dovecot lets the user trace the process that is his. It must have no terminal of root's.
#[test]
fn a_session_has_no_terminal_of_ours() {
    let here = with_site();
    let note = "echo $$ $(cut -d ' ' -f 6,7 /proc/$$/stat) >alone\n";
    here.write("mail/alice@example.com.sh", note);
    let ran = rehearse(&here, "alice@example.com");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let alone = here.read_text("alone");
    let pid = alone.split(' ').next().unwrap();
    assert_eq!(alone, format!("{pid} {pid} 0\n"));
}

#[test]
fn an_unguarded_release_needs_a_rehearsal_and_a_redownload_does_not() {
    let here = with_site();
    let ran = release(&here, "--unguarded alice@example.com");
    assert_eq!((ran.status, &*ran.stdout), (1, ""));
    assert_eq!(line(&here, ALICE_IS), "captured held");
    let ran = release(&here, "--unguarded --unrehearsed alice@example.com");
    assert_eq!((ran.status, &*ran.stdout), (0, "alice@example.com released\n"));
    let ran = release(&here, "--redownload dave@example.net");
    assert_eq!((ran.status, &*ran.stdout), (0, "dave@example.net redownload\n"));
    // He is served already.
    assert_eq!(here.run("hold --site site alice@example.com").status, 0);
    assert_eq!(release(&here, "--unrehearsed alice@example.com").status, 0);
    assert_eq!(line(&here, ALICE_IS), "captured guarded unguarded=N");
    assert_eq!(release(&here, "alice@example.com").stdout, "alice@example.com released\n");
}

#[test]
fn a_difference_or_a_failure_keeps_its_user_held_and_says_why() {
    let here = with_site();
    let err =
        "printf -- '-ERR [SYS/TEMP] Later.\\r\\n'; echo 'Error: disk' >&2; echo Info: x >&2\n";
    for (mail, script, wanted) in [
        ("a1\na3\n", "", "differs: 1 of 3 captured messages not listed (a2)"),
        ("x\ny\nz\n", "", "differs: 3 of 3 captured messages not listed (a1, a2, a3)"),
        ("a1\nx\na2\na3\n", "", "differs: 2 captured messages out of their old order (a2, a3)"),
        ("a1\na2\na3\na3\n", "", "differs: 1 captured messages out"),
        ("", err, "pop3: it refused the login: [SYS/TEMP] Later.; Error: disk\n"),
        ("", "echo 'Fatal: Unknown user' >&2; exit 75", "; Fatal: Unknown user\n"),
        ("", "sleep 60", "pop3: no answer to NOOP within 1s"),
    ] {
        here.write("mail/alice@example.com", mail);
        here.write("mail/alice@example.com.sh", script);
        let begun = Instant::now();
        let ran = rehearse(&here, "--timeout 1s --again alice@example.com dave@example.net");
        let said = &ran.stdout;
        assert!(begun.elapsed() < Duration::from_secs(30), "{script}");
        assert_eq!((ran.status, said.lines().count()), (1, 1), "{said}{}", ran.stderr);
        assert!(said.starts_with("alice@example.com ") && said.contains(wanted), "{said}");
        assert_eq!(line(&here, ALICE_IS), "captured held rehearsal=N");
        assert_eq!(line(&here, DAVE_IS), REHEARSED);
        assert_eq!(release(&here, ALICE_IS).status, 1);
    }
    let lacks_all = rehearse(&here, "--json --timeout 1s alice@example.com dave@example.net");
    let lines: Vec<serde_json::Value> =
        lacks_all.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "dave was rehearsed before");
    assert_eq!((&lines[0]["user"], &lines[0]["outcome"]), (&ALICE_IS.into(), &"could_not".into()));
    assert_eq!(
        (&lines[1]["total"]["could_not"], &lines[1]["total"]["before"]),
        (&1.into(), &1.into())
    );
}

#[test]
fn only_a_final_index_through_a_dovecot_that_looks_into_this_site() {
    let here = with_site();
    here.run("build --final -o other one.listing");
    let doveadm = here.path("doveadm");
    let ran = here.run(&format!("rehearse --all --site other --doveadm {}", doveadm.display()));
    assert_eq!(ran.status, 2);
    assert!(
        ran.stderr.contains("nobody is rehearsed through a Dovecot that may not be this site's")
    );
    assert!(sessions(&here).is_empty());
    assert_eq!(line(&here, ALICE_IS), "captured held");

    here.run("build -o site/new one.listing two.listing");
    for file in ["domain/example.com.idx", "domain/example.net.idx"] {
        let ran = rehearse(&here, "alice@example.com nobody@example.com");
        assert_eq!(ran.status, 1, "{}", ran.stderr);
        assert!(ran.stderr.contains("nobody@example.com is not on it"));
        fs::rename(here.path(&format!("site/new/{file}")), here.path(&format!("site/{file}")))
            .unwrap();
        let ran = rehearse(&here, "--all --again");
        let said = format!("site/{file}: not final: another capture may follow");
        assert!(ran.stderr.contains(&said), "{}", ran.stderr);
        assert!(ran.stderr.contains("build the last one with --final"));
        if file.contains("example.com") {
            assert_eq!(ran.status, 1, "{}", ran.stderr);
            assert!(ran.stderr.contains("1 rehearsed, 0 differ"), "{}", ran.stderr);
            break;
        }
    }
    let next = "site/domain/example.net.idx";
    fs::rename(here.path("site/new/domain/example.net.idx"), here.path(next)).unwrap();
    let ran = rehearse(&here, "--all --again");
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("nobody is rehearsed; "), "{}", ran.stderr);
}

#[test]
fn a_run_that_is_stopped_ends_its_sessions_and_the_next_goes_on_there() {
    let here = with_site();
    let slow = "touch begun; while [ -e begun ] && [ ! -e go ]; do sleep 0.05; done\n";
    for (stop, status) in [("file", 1), ("SIGTERM", 1), ("SIGINT", 1)] {
        rehearse(&here, "--undo --all");
        let before = sessions(&here).len();
        for name in ["go", "begun", "stop"] {
            let _ = fs::remove_file(here.path(name));
        }
        here.write("mail/alice@example.com.sh", slow);
        let mut child =
            begin(&here, "--jobs 1 --stop-file stop alice@example.com dave@example.net");
        wait_for("session", || here.path("begun").exists());
        match stop {
            "file" => here.write("stop", ""),
            signal => signal_to(&child, signal),
        }
        thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none(), "the session goes on");
        here.write("go", "");
        let ran = ended(child);
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(status), "{stop}: {said}");
        assert!(said.contains("1 rehearsed, 0 differ, 0 could not be rehearsed, 1 not tried"));
        assert!(line(&here, ALICE_IS).starts_with(REHEARSED), "{stop}");
        assert!(!line(&here, DAVE_IS).contains("rehearsed"), "{stop}");
        assert_eq!(sessions(&here).len(), before + 1);
        let _ = fs::remove_file(here.path("stop"));
        let ran = rehearse(&here, "alice@example.com dave@example.net");
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert_eq!(sessions(&here).len(), before + 2, "only who was left");
        assert!(line(&here, DAVE_IS).starts_with(REHEARSED), "{stop}");
    }

    // A second signal does not wait.
    rehearse(&here, "--undo --all");
    fs::remove_file(here.path("go")).unwrap();
    fs::remove_file(here.path("begun")).unwrap();
    let child = begin(&here, "--jobs 1 alice@example.com dave@example.net");
    wait_for("session", || here.path("begun").exists());
    signal_to(&child, "SIGINT");
    thread::sleep(Duration::from_millis(100));
    signal_to(&child, "SIGINT");
    let ran = ended(child);
    assert_eq!((ran.status.code(), ran.status.signal()), (Some(2), None));
    assert_eq!(line(&here, ALICE_IS), "captured held rehearsal=N undone=N");
    here.write("go", "");
    here.quiet("check site");
}

#[test]
fn what_changes_under_a_rehearsal_is_not_called_rehearsed() {
    let here = with_site();
    let script = |inside: &str| {
        let helper = env!("CARGO_BIN_EXE_uidl-keep");
        here.write("mail/alice@example.com.sh", &format!("{helper} {inside} >/dev/null 2>&1\n"));
    };
    for (inside, now) in [
        ("forget --site site alice@example.com", "captured held-forgotten forgotten=N undone=N"),
        ("restored --site site alice@example.com", "captured held rehearsal=N restored=N"),
    ] {
        let here = &here;
        script(inside);
        let ran = rehearse(here, "alice@example.com");
        assert_eq!(ran.status, 1, "{}", ran.stderr);
        assert!(
            ran.stderr.contains("alice@example.com: index or roster changed while"),
            "{}",
            ran.stderr
        );
        assert!(line(here, ALICE_IS).starts_with(now), "{}", line(here, ALICE_IS));
        fs::remove_dir_all(here.path("site")).unwrap();
        assert_eq!(here.run("build --final -o site one.listing two.listing").status, 0);
        here.run("hold --site site --all");
    }
    here.write("mail/alice@example.com.sh", "cp next.idx site/domain/example.com.idx\n");
    here.write("next.listing", &[ALICE, BOB].concat());
    here.run("build --final -o next next.listing");
    fs::copy(here.path("next/domain/example.com.idx"), here.path("next.idx")).unwrap();
    let ran = rehearse(&here, "alice@example.com");
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert_eq!(line(&here, ALICE_IS), "captured held rehearsal=N");
}

#[test]
fn a_reader_that_goes_away_ends_no_rehearsal() {
    let here = with_site();
    here.write("mail/alice@example.com", "a1\n");
    let mut child = begin(&here, "--jobs 1 --json alice@example.com dave@example.net");
    drop(child.stdout.take());
    let ran = ended(child);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    assert_eq!(line(&here, DAVE_IS), REHEARSED);
}

#[test]
fn a_dry_run_rehearses_nobody() {
    let here = with_site();
    let log = here.read("site/changes.log");
    let ran = rehearse(&here, "--dry-run --all");
    assert_eq!((ran.status, &*ran.stdout), (1, ""), "carol is left out: {}", ran.stderr);
    assert!(ran.stderr.ends_with("3 would be rehearsed, 0 were rehearsed before\n"));
    assert_eq!(rehearse(&here, "--dry-run example.net").status, 0);
    assert_eq!(
        (line(&here, ALICE_IS), here.read("site/changes.log")),
        ("captured held".into(), log)
    );
    assert!(sessions(&here).is_empty());
    rehearse(&here, "example.net");
    let ran = rehearse(&here, "--undo --dry-run example.net");
    assert_eq!((ran.status, &*ran.stdout), (0, "@example.net would be undone 1\n"));
    assert_eq!(line(&here, DAVE_IS), REHEARSED);
}

#[test]
fn what_is_undone_was_held_ever_since() {
    let here = with_site();
    assert_eq!(rehearse(&here, "alice@example.com dave@example.net").status, 0);
    assert_eq!(release(&here, DAVE_IS).status, 0);
    let ran = rehearse(&here, "--undo --all");
    assert_eq!((ran.status, &*ran.stdout), (1, "@example.com undone 1\n"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains(
            "for 1 users nothing is undone (the first: dave@example.net): clients may have listed \
             these maildrops since, for they were not held all the time; to take back what clients \
             were told: uidl-keep forget"
        ),
        "{}",
        ran.stderr
    );
    let counts = "rehearse --undo: 1 changed, 2 already were so, 1 not done\n";
    assert!(ran.stderr.ends_with(counts), "{}", ran.stderr);
    assert_eq!(line(&here, ALICE_IS), "captured held undone=N");
    assert_eq!(line(&here, DAVE_IS), "captured guarded rehearsal=N rehearsed=yes");
    assert_eq!(release(&here, ALICE_IS).status, 1, "he has to be rehearsed again");
    let log = String::from_utf8(here.read("site/changes.log")).unwrap();
    assert!(log.contains(" rehearse --undo alice@example.com held -> held "), "{log}");

    here.run("hold --site site dave@example.net");
    assert_eq!(rehearse(&here, "--undo dave@example.net").status, 1);
    assert_eq!(line(&here, DAVE_IS), "captured held", "he counts as rehearsed no longer");
    assert_eq!(rehearse(&here, "--undo carol@example.com").status, 0);
    assert_eq!(line(&here, CAROL_IS), "failed held");
}

fn begin(here: &Here, args: &str) -> Child {
    command(here, args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal_to(child: &Child, signal: &str) {
    let mut kill = Command::new("kill");
    kill.args(["-s", signal.trim_start_matches("SIG")]).arg(child.id().to_string());
    assert!(kill.status().unwrap().success());
}

fn ended(child: Child) -> Output {
    child.wait_with_output().unwrap()
}
