//! dsync through the plugin, within a process and over a pipe: what arrives is right without us.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use support::dovecot::{Config, Dovecot, Store};
use support::helper;
use support::host::{Host, Line, unix_mode};
use support::mail::Message;
use support::maildir::{Maildir, Naming};
use support::moved::{Keys, Moved, USER, Way};

/// What `pop3_uidl_format` gives for the message that came since, as UIDs and UIDVALIDITY are.
const OWN: &str = "00000007499602d2";

/// A server with the plugin and a Maildir of captured mail, and a message that came since, whose UID
/// is amid theirs.
struct Source {
    dovecot: Dovecot,
    old: Moved,
    new_mail: Message,
}

/// Whether the old server has given [`OWN`] to another message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    Unspent,
    Spent,
}

impl Source {
    fn start(line: Line, keys: Keys, own: Own) -> Option<Self> {
        let host = Host::dovecot(line)?;
        let dovecot = Dovecot::start(&host, Config::default().with_plugin())?;
        let mut old = Moved::new(keys);
        if own == Own::Spent {
            let listing = old.listing_mut();
            *listing = listing.replacen("\n1 ", &format!("\nspent {OWN}\n1 "), 1);
        }
        old.move_to(&dovecot, Way::Files);
        let maildir = Maildir::open(dovecot.mail(USER));
        let uidlist = "3 V1234567890 N1 G0123456789abcdef0123456789abcdef\n";
        maildir.write_state("dovecot-uidlist", uidlist);
        let new_mail = Message::plain(1001);
        maildir.deliver(&new_mail, Naming::Dovecot, 5);
        Some(Self { dovecot, old, new_mail })
    }

    /// What is in the maildrop, in the order in which POP3 lists it.
    fn messages(&self) -> impl Iterator<Item = &Message> {
        self.old.messages.iter().chain([&self.new_mail])
    }

    /// What POP3 lists as long as nothing is known of the message that came since.
    fn uidls_with(&self, last: &str) -> Vec<String> {
        self.old.uidls.iter().map(String::as_str).chain([last]).map(str::to_owned).collect()
    }

    /// `doveadm backup` to that place, which may be a command.
    fn backup(&self, to: &str) -> Output {
        self.dovecot.doveadm(["backup", "-u", USER, to])
    }
}

/// A server without the plugin and without mail.
fn bare(line: Line, store: Store) -> Dovecot {
    let host = Host::dovecot(line).expect("asked for before");
    let server = Dovecot::start(&host, Config::default().store(store)).expect("needs no plugin");
    server.home(USER);
    server
}

/// A server's mail, for a dsync within a process that runs as its owner too.
fn location(server: &Dovecot, store: Store) -> String {
    format!("{}:{}", store.word(), server.inside(&server.mail(USER)).display())
}

/// A command that is the other end of a dsync, on that server.
fn remote(server: &Dovecot) -> String {
    let script = server.dir().join("dsync-server");
    let conf = server.inside(&server.conf());
    // As over ssh: nothing is left of the caller's environment, which has its configuration in it.
    let text = format!(
        "#!/bin/sh\nexec env -i PATH=/usr/bin:/bin doveadm -c {} dsync-server -u {USER}\n",
        conf.display(),
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, unix_mode(0o755)).unwrap();
    server.inside(&script).display().to_string()
}

/// Either end may be the one that is started, and both may be one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pipe {
    None,
    Push,
    Pull,
}

const EVERY_WAY: [(Line, Store, Keys, Pipe); 9] = [
    (Line::V23, Store::Mdbox, Keys::File, Pipe::None),
    (Line::V23, Store::Sdbox, Keys::Header, Pipe::None),
    (Line::V23, Store::Sdbox, Keys::File, Pipe::Push),
    (Line::V23, Store::Mdbox, Keys::Header, Pipe::Push),
    (Line::V23, Store::Mdbox, Keys::File, Pipe::Pull),
    (Line::V23, Store::Sdbox, Keys::Header, Pipe::Pull),
    (Line::V24, Store::Mdbox, Keys::Header, Pipe::None),
    (Line::V24, Store::Sdbox, Keys::Header, Pipe::Push),
    (Line::V24, Store::Mdbox, Keys::File, Pipe::Pull),
];

fn back_up(source: &Source, target: &Dovecot, store: Store, pipe: Pipe) -> Output {
    match pipe {
        Pipe::None => source.backup(&location(target, store)),
        Pipe::Push => source.backup(&remote(target)),
        Pipe::Pull => target.doveadm(["backup", "-R", "-u", USER, &remote(&source.dovecot)]),
    }
}

#[track_caller]
fn succeeds(output: &Output) {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// The UIDLs in this order, each with its message, and again at the next login.
#[track_caller]
fn serves<'a>(
    target: &Dovecot,
    uidls: &[String],
    messages: impl Iterator<Item = &'a Message>,
    way: &str,
) {
    let mut session = target.login(USER).unwrap();
    assert_eq!(session.uidl().unwrap(), uidls, "{way}: the first login");
    for (number, message) in (1..).zip(messages) {
        let body = Message { octets: session.retr(number).unwrap() }.saved_and_retrieved();
        let len = body.len();
        assert!(body == message.saved_and_retrieved(), "{way}: message {number}, {len} octets");
    }
    session.quit().unwrap();
    assert_eq!(target.uidl(USER), uidls, "{way}: the second login");
}

#[test]
fn backup_after_a_listing_carries_all_of_it_with_whole_bodies_and_is_right_without_us() {
    for (line, store, keys, pipe) in EVERY_WAY {
        let Some(source) = Source::start(line, keys, Own::Spent) else { continue };
        let listed = source.dovecot.uidl(USER);
        let (last, kept) = listed.split_last().unwrap();
        assert_eq!(kept, source.old.uidls);
        assert!(last.starts_with('~'), "{last} is one that uidl-keep made, for {OWN} is spent");
        let target = bare(line, store);
        succeeds(&back_up(&source, &target, store, pipe));
        serves(
            &target,
            &listed,
            source.messages(),
            &format!("{line:?} {store:?} {keys:?} {pipe:?}"),
        );
        assert_eq!(source.dovecot.uidl(USER), listed, "the source is as it was");
    }
}

#[test]
fn backup_before_any_listing_carries_what_is_kept_and_invents_nothing() {
    for (line, store, keys, pipe) in EVERY_WAY {
        let Some(source) = Source::start(line, keys, Own::Unspent) else { continue };
        let target = bare(line, store);
        succeeds(&back_up(&source, &target, store, pipe));
        assert!(!source.dovecot.mail(USER).join("uidl-keep.ledger").exists(), "nothing is frozen");
        let uidls = source.uidls_with(OWN);
        serves(
            &target,
            &uidls,
            source.messages(),
            &format!("{line:?} {store:?} {keys:?} {pipe:?}"),
        );
        assert_eq!(source.dovecot.uidl(USER), uidls, "the source says the same later");
    }
}

#[test]
fn a_mailbox_that_is_held_can_be_moved_on() {
    let Some(source) = Source::start(Line::V23, Keys::File, Own::Unspent) else { return };
    let site = source.dovecot.site();
    helper::run(helper::uidl_keep().args(["hold", "--site"]).arg(&site).arg(USER));
    // A roster that is written anew belongs to who wrote it.
    helper::give_to_reader(&site);
    let mut session = source.dovecot.login(USER).unwrap();
    session.uidl().expect_err("held");
    for pipe in [Pipe::None, Pipe::Push] {
        let target = bare(Line::V23, Store::Mdbox);
        succeeds(&back_up(&source, &target, Store::Mdbox, pipe));
        assert_eq!(target.uidl(USER), source.uidls_with(OWN), "{pipe:?}");
    }
}

#[test]
fn what_came_since_is_safe_from_spent_uidls_only_where_the_plugin_is() {
    for keys in [Keys::File, Keys::Header] {
        let Some(source) = Source::start(Line::V23, keys, Own::Spent) else { return };
        let host = Host::dovecot(Line::V23).unwrap();
        let config = Config::default().store(Store::Mdbox).with_plugin();
        let target = Dovecot::start(&host, config).unwrap();
        target.home(USER);
        source.old.build_site(&target);
        succeeds(&source.backup(&remote(&target)));
        let uidls = target.uidl(USER);
        let (last, kept) = uidls.split_last().unwrap();
        assert_eq!(kept, source.old.uidls);
        assert!(last.starts_with('~'), "{last}");
        serves(&target, &uidls, source.messages(), "with the plugin at both ends");

        // No client was ever told a UIDL of it, so none goes along: Dovecot alone makes the spent one.
        let target = bare(Line::V23, Store::Mdbox);
        succeeds(&source.backup(&remote(&target)));
        assert_eq!(target.uidl(USER), source.uidls_with(OWN));

        // Once it is told one, that does not reach what is there already.
        let listed = source.dovecot.uidl(USER);
        assert!(listed.last().unwrap().starts_with('~'), "{listed:?}");
        succeeds(&source.backup(&remote(&target)));
        assert_eq!(target.uidl(USER), source.uidls_with(OWN));
    }
}

#[test]
fn a_second_backup_brings_what_came_and_takes_what_went() {
    for (line, store, keys, pipe) in EVERY_WAY.into_iter().step_by(3) {
        let Some(source) = Source::start(line, keys, Own::Spent) else { continue };
        let mut listed = source.dovecot.uidl(USER);
        let target = bare(line, store);
        succeeds(&back_up(&source, &target, store, pipe));

        let later = Message::plain(1002);
        Maildir::open(source.dovecot.mail(USER)).deliver(&later, Naming::Dovecot, 900);
        let mut session = source.dovecot.login(USER).unwrap();
        for number in [3, 17] {
            session.dele(number).unwrap();
        }
        session.quit().unwrap();
        let mut messages: Vec<&Message> = source.messages().chain([&later]).collect();
        for number in [17, 3] {
            listed.remove(number - 1);
            messages.remove(number - 1);
        }
        let now = source.dovecot.uidl(USER);
        assert_eq!(now[..listed.len()], listed);
        assert_eq!(now.len(), messages.len());

        succeeds(&back_up(&source, &target, store, pipe));
        let way = format!("{line:?} {store:?} {keys:?} {pipe:?}");
        serves(&target, &now, messages.into_iter(), &way);
    }
}

#[test]
fn backup_fails_rather_than_write_messages_without_their_uidls() {
    for (line, pipe) in [
        (Line::V23, Pipe::None),
        (Line::V23, Pipe::Push),
        (Line::V23, Pipe::Pull),
        (Line::V24, Pipe::None),
        (Line::V24, Pipe::Push),
    ] {
        let Some(mut source) = Source::start(line, Keys::File, Own::Unspent) else { continue };
        let index = source.dovecot.site().join("domain/example.com.idx");
        let away = source.dovecot.dir().join("index");
        fs::rename(&index, &away).unwrap();
        let target = bare(line, Store::Mdbox);
        fails(
            &back_up(&source, &target, Store::Mdbox, pipe),
            "no index, but its roster names the user",
        );
        assert_eq!(target.uidl(USER), [""; 0], "{line:?} {pipe:?}");

        fs::rename(&away, &index).unwrap();
        let whole = fs::read(&index).unwrap();
        fs::write(&index, &whole[..whole.len() - 1]).unwrap();
        fails(&back_up(&source, &target, Store::Mdbox, pipe), "build and install it again");
        assert_eq!(target.uidl(USER), [""; 0], "{line:?} {pipe:?}");

        fs::write(&index, &whole).unwrap();
        succeeds(&back_up(&source, &target, Store::Mdbox, pipe));
        assert_eq!(target.uidl(USER), source.uidls_with(OWN), "{line:?} {pipe:?}");

        let failed = "state failed\nremark the disk was on fire\nsource";
        let listing = source.old.listing_mut();
        let head = &listing[..listing.find("\n1 ").unwrap()];
        *listing = format!("{}\n.\n", head.replace("state captured\nsource", failed));
        fs::remove_dir_all(source.dovecot.site()).unwrap();
        fs::create_dir(source.dovecot.site()).unwrap();
        source.old.build_site(&source.dovecot);
        let target = bare(line, Store::Mdbox);
        fails(
            &back_up(&source, &target, Store::Mdbox, pipe),
            "the capture of alice@example.com failed",
        );
        assert_eq!(target.uidl(USER), [""; 0], "{line:?} {pipe:?}");
    }
}

/// Whatever runs doveadm can see that it went wrong, and whoever reads what it says, why.
#[track_caller]
fn fails(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert_eq!(said.matches("uidl-keep: ").count(), 1, "{said}");
    assert!(said.contains(why), "{said}");
}

#[test]
fn a_baked_maildir_becomes_an_mdbox_by_dsync_mirror_with_nothing_of_ours() {
    for line in [Line::V23, Line::V24] {
        let Some(source) = Source::start(line, Keys::Header, Own::Spent) else { continue };
        let listed = source.dovecot.uidl(USER);
        // The panel's own Dovecot has never heard of us. It is given the Maildir as it lies there.
        let panel = bare(line, Store::Maildir);
        let maildir = copy_whole(&source.dovecot.mail(USER), &panel);
        let target = bare(line, Store::Mdbox);
        let later = Message::plain(1002);
        // cPanel runs it until nothing more is to be done, at least three times.
        for round in 1..=3 {
            if round == 2 {
                maildir.deliver(&later, Naming::Dovecot, 900);
            }
            mirror(line, &panel, &location(&target, Store::Mdbox));
        }
        let mut uidls = listed;
        uidls.push(target.uidl(USER).pop().unwrap());
        assert!(!source.old.uidls.contains(uidls.last().unwrap()), "{uidls:?}");
        let messages = source.messages().chain([&later]);
        serves(&target, &uidls, messages, &format!("{line:?}"));
        assert_eq!(panel.uidl(USER), uidls, "what the Maildir says");
    }
}

/// A Maildir with all that lies in it.
fn copy_whole(maildir: &Path, to: &Dovecot) -> Maildir {
    let copied = Command::new("cp").args(["-a", "--"]).arg(maildir).arg(to.mail(USER)).status();
    assert!(copied.unwrap().success());
    Maildir::open(to.mail(USER))
}

fn mirror(line: Line, from: &Dovecot, to: &str) {
    let output = match line {
        Line::V23 => {
            let host = Host::dovecot(line).unwrap();
            let conf = from.inside(&from.conf());
            let mut dsync = host.command("dsync");
            dsync.arg("-c").arg(conf).args(["-u", USER, "mirror", to]).output().unwrap()
        }
        // There is no other name for it any more.
        Line::V24 => from.doveadm(["sync", "-u", USER, to]),
    };
    // 2: something changed meanwhile, run it again.
    assert!(output.status.success(), "{output:?}");
}
