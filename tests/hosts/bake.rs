//! `uidl-keep bake`: what Dovecot alone then tells is what the plugin would have told.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use uidl_keep::bake::Dotlock;

use crate::shared::tree::below;
use crate::support::OWNER;
use crate::support::dovecot::{Config, Dovecot, Store, mail_at};
use crate::support::helper;
use crate::support::host::{Host, Line, asked};
use crate::support::imap::Imap;
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::scenario::{Listing, Scenario, USER, by_header, uidl, uidl_of, uidlist};

/// How many messages were captured.
const CAPTURED: u32 = 12;

/// A maildrop that moved here by files, and what the plugin would tell of it. One message of two
/// that came since has a native UIDL that is spent, for the old server had counted so far.
struct Twin {
    /// The server that has the plugin, and the site.
    with_us: Scenario,
    /// What it has told.
    told: Vec<String>,
    /// The server without the plugin, over the same mail.
    alone: Dovecot,
}

impl Twin {
    /// `is_opened`: Dovecot has opened the mailbox before, and has an index of it.
    fn start(line: Line, extra: &str, is_opened: bool) -> Option<Self> {
        let mut with_us = Scenario::begin_with(line, Config::default().with_plugin())?;
        let maildir = with_us.maildir();
        for _ in 0..CAPTURED {
            with_us.deliver();
        }
        // The old order is not that of the UIDs.
        let mut files = maildir.files();
        let list = uidlist(17, &files);
        files.reverse();
        let listing = Listing::of_files(&files).field("counter 14 %08Xu%08Xv");
        with_us.capture(&listing);
        maildir.deliver(&Message::plain(1001), Naming::Dovecot, 901);
        maildir.deliver(&Message::plain(1002), Naming::Dovecot, 904);
        let all = maildir.files();
        let new: Vec<&PathBuf> = all.iter().filter(|file| !files.contains(file)).collect();
        let (list, mut next) = (list.replacen("N13", "N15", 1), CAPTURED);
        let list = new.iter().fold(list, |list, file| {
            next += 1;
            let base = file.file_name().unwrap().to_str().unwrap().split(':').next().unwrap();
            list + &format!("{next} :{base}\n")
        });
        maildir.write_state("dovecot-uidlist", &list);

        let host = Host::dovecot(line)?;
        let extra = extra.to_owned();
        let alone = Dovecot::start(&host, Config { extra, ..Config::default() })?;
        copy(maildir.path(), &alone.home(USER));
        if is_opened {
            alone.doveadm_ok(["mailbox", "status", "-u", USER, "uidnext", "INBOX"]);
        }
        let told = with_us.uidls();
        assert_eq!(told[..CAPTURED as usize], uidl_of(1..=CAPTURED));
        let ours = told.iter().filter(|uidl| uidl.starts_with('~')).count();
        assert_eq!((told.len(), ours), (14, 2), "{told:?}");
        Some(Self { with_us, told, alone })
    }

    fn list(&self) -> String {
        fs::read_to_string(self.alone.mail(USER).join("dovecot-uidlist")).unwrap()
    }

    fn bake(&self, more: &[&str]) -> Output {
        let maildir = self.alone.home("{local}@{domain}").join("Maildir");
        let mut bake = helper::uidl_keep();
        bake.args(["bake", "--all", "--format", "%08Xu%08Xv", "--site"]);
        bake.arg(self.with_us.dovecot.site()).arg("--maildir").arg(maildir).args(more);
        bake.output().expect("the helper")
    }

    fn bakes(&self) {
        let baked = self.bake(&[]);
        let said = String::from_utf8_lossy(&baked.stdout).into_owned();
        assert!(baked.status.success(), "{baked:?}");
        let expected = format!("baked {USER}: 14 messages (12 kept, 2 with a UIDL of ours)\n");
        assert_eq!(said, expected);
    }

    /// Insists that nothing in the log is worse than information.
    #[track_caller]
    fn is_silent(&self) {
        let log = self.alone.settled_log();
        let bad = |line: &&str| {
            ["Error: ", "Warning: ", "Panic: ", "Fatal: "].iter().any(|it| line.contains(it))
        };
        assert_eq!(log.lines().find(bad), None);
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a", "--"]).arg(from).arg(to).status();
    assert!(status.expect("cp").success());
}

#[test]
fn dovecot_alone_tells_what_the_plugin_tells_with_sessions_open() {
    for line in Line::asked() {
        let Some(twin) = Twin::start(line, "", true) else { continue };
        let mut imap = Imap::login(twin.alone.imap(), USER);
        imap.command("SELECT INBOX");
        let mut pop3 = twin.alone.login(USER).unwrap();
        let before = pop3.uidl().unwrap();
        assert_ne!(before, twin.told, "{line:?}: not baked yet");
        twin.bakes();
        assert_eq!(twin.alone.uidl(USER), twin.told, "{line:?}");
        // The sessions that were open go on, and what comes and goes through them is right.
        assert_eq!(pop3.uidl().unwrap(), before, "{line:?}: a session tells one thing");
        pop3.dele(1).unwrap();
        pop3.quit().unwrap();
        imap.append(&Message::plain(1003).on_the_wire());
        imap.command("NOOP");
        imap.logout();
        let after = twin.alone.uidl(USER);
        let first = uidl_of_native(&before[0]);
        let kept: Vec<String> = twin.told.iter().filter(|uidl| **uidl != first).cloned().collect();
        assert_eq!(after[..kept.len()], kept, "{line:?}: after an expunge and new mail");
        let next = 14 + 65_536;
        let new = &after[kept.len()..];
        assert_eq!(new, [format!("{next:08x}00000011")], "{line:?}: above every spent number");
        twin.is_silent();
    }
}

/// What was captured of the message that had that native UIDL: the old order was the opposite.
fn uidl_of_native(native: &str) -> String {
    let uid = u32::from_str_radix(&native[..8], 16).unwrap();
    uidl_of([CAPTURED + 1 - uid]).remove(0)
}

#[test]
fn what_was_baked_survives_what_dovecot_does_to_its_list_and_index() {
    for line in Line::asked() {
        let Some(twin) = Twin::start(line, "", false) else { continue };
        twin.bakes();
        let mut told = twin.told.clone();
        assert_eq!(twin.alone.uidl(USER), told, "{line:?}");
        // Dovecot writes its list anew when a quarter of it has gone.
        let mut session = twin.alone.login(USER).unwrap();
        for number in [2, 3, 5, 8, 13] {
            session.dele(number).unwrap();
        }
        session.quit().unwrap();
        let mut number = 0;
        told.retain(|_| {
            number += 1;
            ![2, 3, 5, 8, 13].contains(&number)
        });
        twin.alone.deliver(USER, &Message::plain(1004).on_the_wire());
        let maildir = Maildir::open(twin.alone.mail(USER));
        maildir.deliver(&Message::plain(1005), Naming::Qmail, 999);
        let after = twin.alone.uidl(USER);
        assert_eq!(after[..told.len()], told, "{line:?}: after an expunge and new mail");
        assert_eq!(after.len(), told.len() + 2);
        assert!(after[told.len()..].iter().all(|uidl| uidl.starts_with("0001")), "{after:?}");
        twin.alone.remove_index_files(USER);
        assert_eq!(twin.alone.uidl(USER), after, "{line:?}: without an index");
        twin.alone.doveadm_ok(["force-resync", "-u", USER, "INBOX"]);
        assert_eq!(twin.alone.uidl(USER), after, "{line:?}: after a resync");
        // A second bake has nothing to say of what it baked.
        let again = twin.bake(&[]);
        assert!(again.status.success(), "{again:?}");
        assert_eq!(twin.alone.uidl(USER), after, "{line:?}: after a second bake");
    }
}

#[test]
fn a_list_of_a_mailbox_that_had_none_is_taken_by_dovecot() {
    for line in Line::asked() {
        let Some(twin) = Twin::start(line, "", false) else { continue };
        fs::remove_file(twin.alone.mail(USER).join("dovecot-uidlist")).unwrap();
        let baked = twin.bake(&[]);
        assert!(baked.status.success(), "{baked:?}");
        let list = twin.list();
        let meta = twin.alone.mail(USER).join("dovecot-uidlist").metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (OWNER, OWNER));
        let told = twin.alone.uidl(USER);
        assert_eq!(told[..CAPTURED as usize], uidl_of(1..=CAPTURED), "{line:?}");
        let mut all = told.clone();
        all.dedup();
        assert_eq!(all.len(), 14, "{line:?}: each message once");
        let head = |list: &str| list.lines().next().unwrap().to_owned();
        assert_eq!(head(&twin.list()), head(&list), "{line:?}: UIDVALIDITY, next UID and GUID");
        twin.is_silent();
    }
}

#[test]
fn a_plugin_that_comes_later_tells_the_same() {
    for line in Line::asked() {
        let Some(twin) = Twin::start(line, "", true) else { continue };
        twin.bakes();
        // The mail with what was baked, under the plugin, without any memory of a listing.
        let theirs = twin.with_us.dovecot.mail(USER);
        fs::remove_dir_all(&theirs).unwrap();
        copy(&twin.alone.mail(USER), theirs.parent().unwrap());
        assert!(below(&theirs).iter().all(|path| !path.ends_with("uidl-keep.ledger")));
        assert_eq!(twin.with_us.uidls(), twin.told, "{line:?}");
        assert!(twin.with_us.ledger().exists());
        // And a bake of what the plugin has told changes nothing.
        let pattern = twin.with_us.dovecot.home("{local}@{domain}").join("Maildir");
        let list = || fs::read(theirs.join("dovecot-uidlist")).unwrap();
        let before = list();
        let mut bake = helper::uidl_keep();
        bake.args(["bake", "--all", "--format", "%08Xu%08Xv", "--site"]);
        helper::run(bake.arg(twin.with_us.dovecot.site()).arg("--maildir").arg(pattern));
        assert_eq!(list(), before, "{line:?}");
    }
}

#[test]
fn a_bake_and_dovecot_wait_for_each_other() {
    for line in Line::asked() {
        let Some(twin) = Twin::start(line, "", true) else { continue };
        let directory = File::open(twin.alone.mail(USER)).unwrap();
        let lock = Dotlock::take(directory.as_fd(), (OWNER, OWNER), Duration::ZERO).unwrap();
        let before = twin.list();
        thread::scope(|scope| {
            let baked = scope.spawn(|| twin.bake(&[]));
            thread::sleep(Duration::from_millis(1500));
            // Dovecot needs the lock for new mail alone.
            let maildir = Maildir::open(twin.alone.mail(USER));
            maildir.deliver(&Message::plain(1006), Naming::Qmail, 999);
            let told = scope.spawn(|| twin.alone.uidl(USER));
            thread::sleep(Duration::from_millis(1500));
            assert!(!told.is_finished() && !baked.is_finished(), "{line:?}: both wait");
            assert_eq!(twin.list(), before, "{line:?}");
            drop(lock);
            assert_eq!(told.join().unwrap().len(), 15, "{line:?}");
            let baked = baked.join().unwrap();
            // Where Dovecot was first, the bake has looked again.
            assert!(baked.status.success(), "{baked:?}");
        });
        let told = twin.alone.uidl(USER);
        assert_eq!((&told[..14], told.len()), (&twin.told[..], 15), "{line:?}");
        assert!(!twin.alone.mail(USER).join("dovecot-uidlist.lock").exists());
    }
}

/// Makes the mail of a server old, and has it take note.
fn an_hour_ago(server: &Dovecot) {
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let times = fs::FileTimes::new().set_modified(before);
    for name in ["cur", "new"] {
        let dir = fs::File::open(server.mail(USER).join(name)).unwrap();
        dir.set_times(times).unwrap();
    }
    server.doveadm_ok(["mailbox", "status", "-u", USER, "uidnext", "INBOX"]);
}

/// What the copy is told is also where new mail begins: a new mail that had a number of before
/// could have a UIDL that a client holds.
#[test]
fn a_dsync_to_another_store_carries_what_was_baked() {
    for (line, store) in
        asked([(Line::V23, Store::Mdbox), (Line::V24, Store::Mdbox), (Line::V23, Store::Sdbox)])
    {
        let Some(twin) = Twin::start(line, "", true) else { continue };
        // Nothing has come or gone for an hour: Dovecot does not look into the directories.
        an_hour_ago(&twin.alone);
        twin.bakes();
        let host = Host::dovecot(line).unwrap();
        let target = Dovecot::start(&host, Config::default().store(store)).unwrap();
        target.home(USER);
        let place = target.inside(&target.mail(USER));
        let location = format!("{}:{}", store.word(), place.display());
        twin.alone.doveadm_ok(["backup", "-u", USER, &location]);
        assert_eq!(target.uidl(USER), twin.told, "{line:?} {store:?}");
        target.deliver(USER, &Message::plain(1007).on_the_wire());
        let with_new = target.uidl(USER);
        assert_eq!(with_new[..14], twin.told, "{line:?} {store:?}");
        assert!(with_new[14].starts_with("0001"), "{with_new:?}: the next UID came along");
    }
}

#[test]
fn dovecot_is_asked_where_its_lists_are_and_opens_what_it_has_an_index_of() {
    let places = [("CONTROL", "~/control"), ("INDEX", "~/index")];
    let extra = mail_at(Line::subject(), "maildir", "~/Maildir", &places);
    let Some(twin) = Twin::start(Line::subject(), &extra, true) else { return };
    let home = twin.alone.home(USER);
    let theirs = home.join("control/.INBOX/dovecot-uidlist");
    // Its own copy of the list, with mail that it has not seen since.
    assert!(home.join("index/.INBOX/dovecot.index.log").exists(), "{:?}", below(&home));
    fs::copy(home.join("Maildir/dovecot-uidlist"), &theirs).unwrap();
    chown(&theirs, Some(OWNER), Some(OWNER)).unwrap();
    for file in fs::read_dir(home.join("index/.INBOX")).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    twin.alone.doveadm_ok(["mailbox", "status", "-u", USER, "uidnext", "INBOX"]);
    fs::remove_file(home.join("Maildir/dovecot-uidlist")).unwrap();
    let maildir = Maildir::open(home.join("Maildir"));
    maildir.deliver(&Message::plain(1008), Naming::Qmail, 990);
    let host = Host::dovecot(Line::subject()).unwrap();
    let in_the_host = |path: &Path| host.inside(path);
    let bake = || {
        let mut bake = twin.alone.helper();
        bake.args(["bake", "--all", "--site"]).arg(in_the_host(&twin.with_us.dovecot.site()));
        bake.arg(twin.alone.doveadm_args());
        bake.output().expect("the helper")
    };
    let baked = bake();
    assert!(baked.status.success(), "{baked:?}");
    let list = fs::read_to_string(&theirs).unwrap();
    assert_eq!(list.lines().filter(|line| line.contains(" O10485")).count(), 15, "{list}");
    assert!(!home.join("Maildir/dovecot-uidlist").exists());
    let told = twin.alone.uidl(USER);
    assert_eq!(told[..12], twin.told[..12]);
    assert_eq!(String::from_utf8_lossy(&bake().stdout), "");

    // Where headers go before what is stored, a bake would be of no use.
    let mut twin = twin;
    twin.alone.restart_with(&format!("{extra}pop3_reuse_xuidl = yes\n"));
    let mut again = twin.alone.helper();
    again.args(["bake", "--all", "--site"]).arg(in_the_host(&twin.with_us.dovecot.site()));
    again.arg(twin.alone.doveadm_args());
    let refused = again.output().expect("the helper");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("pop3_reuse_xuidl is on"));
}

// --- bake --into

fn bake_into(moved: &Scenario, location: &str, more: &[&str]) -> Output {
    let conf = moved.dovecot.inside(&moved.dovecot.conf());
    let mut bake = moved.dovecot.helper();
    bake.args(["bake", USER, "--into", location]);
    bake.arg("--doveadm-args").arg(format!("-c {}", conf.display())).args(more);
    bake.output().expect("the helper")
}

#[test]
fn a_copy_to_mdbox_tells_the_same_without_the_plugin() {
    for line in Line::asked() {
        let Some(twin) = Twin::start(line, "", true) else { continue };
        let Twin { with_us: moved, told, .. } = twin;
        let location = "mdbox:~/baked";
        let baked = bake_into(&moved, location, &["--dry-run"]);
        assert!(baked.status.success(), "{line:?}: {baked:?}");
        assert_eq!(
            String::from_utf8_lossy(&baked.stdout),
            format!("would copy {USER}: 14 messages\n")
        );
        let place = moved.dovecot.home(USER).join("baked");
        assert!(!place.exists());
        let baked = bake_into(&moved, location, &[]);
        assert!(baked.status.success(), "{line:?}: {baked:?}");
        assert_eq!(String::from_utf8_lossy(&baked.stdout), format!("copied {USER}: 14 messages\n"));
        let host = Host::dovecot(line).unwrap();
        let bare = Dovecot::start(&host, Config::default().store(Store::Mdbox)).unwrap();
        bare.home(USER);
        copy(&place, &bare.mail(USER));
        assert_eq!(bare.uidl(USER), told, "{line:?}");

        // The mailbox itself is no place for a copy.
        let refused = bake_into(&moved, "maildir:~/Maildir", &[]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("is the user's mailbox itself"), "{line:?}: {said}");
    }
}

#[test]
fn a_copy_of_a_store_that_keeps_no_uidls_has_them_from_the_plugin() {
    // On 2.3 the server has doveadm load other plugins.
    let without = "protocol doveadm {\n  mail_plugins = quota\n}\n";
    for line in Line::asked() {
        let extra = if line == Line::V23 { without } else { "" };
        let config = Config { extra: extra.to_owned(), ..Config::default() };
        let config = config.store(Store::Sdbox).with_plugin();
        let Some(moved) = Scenario::begin_with(line, config) else { continue };
        let order = [3, 1, 2];
        let listing = order.into_iter().fold(Listing::new(), |listing, number| {
            listing.message(&uidl(number), &by_header(&Message::plain(number)))
        });
        (1..=3).for_each(|number| moved.receive(&Message::plain(number)));
        moved.capture(&listing);
        // Where doveadm has no plugin, it does not say what clients are told.
        assert_eq!(moved.dovecot.uidl(USER), uidl_of(order));
        let baked = bake_into(&moved, "mdbox:~/baked", &[]);
        assert!(baked.status.success(), "{line:?}: {baked:?}");
        let host = Host::dovecot(line).unwrap();
        let bare = Dovecot::start(&host, Config::default().store(Store::Mdbox)).unwrap();
        copy(&moved.dovecot.home(USER).join("baked"), &bare.mail(USER));
        assert_eq!(bare.uidl(USER), uidl_of(order), "{line:?}");
    }
}

#[test]
fn a_mailbox_that_was_not_listed_is_not_copied() {
    for line in Line::asked() {
        let Some(mut moved) = Scenario::migrated_on(line, 3, Config::default().with_plugin())
        else {
            continue;
        };
        moved.deliver();
        let refused = bake_into(&moved, "mdbox:~/baked", &[]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{line:?}: {said}");
        assert!(said.contains("1 of 4 messages were not listed yet"), "{line:?}: {said}");
        assert!(!moved.dovecot.home(USER).join("baked").exists());
    }
}
