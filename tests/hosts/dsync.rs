//! dsync through the plugin, within a process and over a pipe: the mail that arrives is right
//! without us.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::shared::program::write_program;
use crate::support::dovecot::{Config, Dovecot, Store};
use crate::support::helper;
use crate::support::host::{Host, Line, asked};
use crate::support::imap::Imap;
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming};
use crate::support::scenario::{Keys, OldMaildrop, USER, Way};

/// The UIDL by `pop3_uidl_format` of the message that came since, with these UIDs and UIDVALIDITY.
const OWN: &str = "00000007499602d2";

/// A server with the plugin and a Maildir of captured mail, and a message that came since, whose
/// UID is amid theirs.
struct Source {
    dovecot: Dovecot,
    old: OldMaildrop,
    /// The messages of the old server.
    messages: Vec<Message>,
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
        Self::start_with(line, keys, own, String::new())
    }

    /// The same with more lines of dovecot.conf.
    fn start_with(line: Line, keys: Keys, own: Own, extra: String) -> Option<Self> {
        let host = Host::dovecot(line)?;
        let config = Config { extra, ..Config::default() }.with_plugin();
        let dovecot = Dovecot::start(&host, config)?;
        let mut old = OldMaildrop::numbered(keys);
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
        let messages = old.messages();
        Some(Self { dovecot, old, messages, new_mail })
    }

    /// The messages in the maildrop, in the order in which POP3 lists them.
    fn messages(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().chain([&self.new_mail])
    }

    /// The UIDLs that POP3 lists as long as nothing is known of the message that came since.
    fn uidls_with(&self, last: &str) -> Vec<String> {
        self.old.uidls.iter().map(String::as_str).chain([last]).map(str::to_owned).collect()
    }

    /// Runs `doveadm backup` to that place, which may be a command.
    fn backup(&self, to: &str) -> Output {
        self.dovecot.doveadm_with_us(["backup", "-u", USER, to])
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
    let loading = if server.has_plugin() { server.loading_us().join(" ") } else { String::new() };
    // Nothing is left of the caller's environment, which has its configuration in it: this is as
    // over ssh.
    let text = format!(
        "#!/bin/sh\nexec env -i PATH=/usr/bin:/bin \\\n\
         doveadm -c {} {loading} dsync-server -u {USER}\n",
        conf.display(),
    );
    write_program(&script, &text);
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
        Pipe::Pull => {
            let backup = ["backup", "-R", "-u", USER, &remote(&source.dovecot)];
            source.dovecot.doveadm_on(target, backup)
        }
    }
}

#[track_caller]
fn succeeds(output: &Output) {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// Insists on the UIDLs in this order, each with its message, and again at the next login.
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
    for (line, store, keys, pipe) in asked(EVERY_WAY) {
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
    for (line, store, keys, pipe) in asked(EVERY_WAY) {
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
    let Some(source) = Source::start(Line::subject(), Keys::File, Own::Unspent) else { return };
    let site = source.dovecot.site();
    helper::run(helper::uidl_keep().args(["hold", "--site"]).arg(&site).arg(USER));
    // A roster that is written anew belongs to the one who wrote it.
    helper::give_to_reader(&site);
    let mut session = source.dovecot.login(USER).unwrap();
    session.uidl().expect_err("held");
    for pipe in [Pipe::None, Pipe::Push] {
        let target = bare(Line::subject(), Store::Mdbox);
        succeeds(&back_up(&source, &target, Store::Mdbox, pipe));
        assert_eq!(target.uidl(USER), source.uidls_with(OWN), "{pipe:?}");
    }
}

#[test]
fn what_came_since_is_safe_from_spent_uidls_only_where_the_plugin_is() {
    for keys in [Keys::File, Keys::Header] {
        let Some(source) = Source::start(Line::subject(), keys, Own::Spent) else { return };
        let host = Host::dovecot(Line::subject()).unwrap();
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

        // No client was ever told a UIDL of it, so none goes along: Dovecot alone makes the spent
        // one.
        let target = bare(Line::subject(), Store::Mdbox);
        succeeds(&source.backup(&remote(&target)));
        assert_eq!(target.uidl(USER), source.uidls_with(OWN));

        // Once it is told one, that does not reach the copy that is there already.
        let listed = source.dovecot.uidl(USER);
        assert!(listed.last().unwrap().starts_with('~'), "{listed:?}");
        succeeds(&source.backup(&remote(&target)));
        assert_eq!(target.uidl(USER), source.uidls_with(OWN));
    }
}

#[test]
fn a_second_backup_brings_what_came_and_takes_what_went() {
    for (line, store, keys, pipe) in asked(EVERY_WAY).into_iter().step_by(3) {
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
    for (line, pipe) in asked([
        (Line::V23, Pipe::None),
        (Line::V23, Pipe::Push),
        (Line::V23, Pipe::Pull),
        (Line::V24, Pipe::None),
        (Line::V24, Pipe::Push),
    ]) {
        let Some(source) = Source::start(line, Keys::File, Own::Unspent) else { continue };
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
    }
}

/// The reasons why nothing can be told of what the old server had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unknown {
    /// His capture failed.
    Failed,
    /// His captured maildrop was taken back.
    Forgotten,
    /// He may be one of a domain that could not be searched.
    Missed,
}

const EVERY_UNKNOWN: [Unknown; 3] = [Unknown::Failed, Unknown::Forgotten, Unknown::Missed];

impl Unknown {
    /// Brings this about on that server.
    fn bring(self, old: &mut OldMaildrop, server: &Dovecot) {
        let listing = old.listing_mut();
        let captured = listing.clone();
        let failed = "state failed\nremark the disk was on fire\nsource";
        let head = &listing[..listing.find("\n1 ").unwrap()];
        let head = head.lines().filter(|line| !line.starts_with("spent ")).collect::<Vec<_>>();
        let head = head.join("\n").replace("state captured\nsource", failed);
        match self {
            Self::Failed => *listing = format!("{head}\n.\n"),
            Self::Missed => *listing = format!("{}\n.\n", head.replace(USER, "*@example.com")),
            Self::Forgotten => {}
        }
        let site = server.site();
        let _ = fs::remove_dir_all(&site);
        fs::create_dir(&site).unwrap();
        old.build_site(server);
        *old.listing_mut() = captured;
        if self == Self::Forgotten {
            helper::run(helper::uidl_keep().args(["forget", "--site"]).arg(&site).arg(USER));
            helper::give_to_reader(&site);
        }
    }

    /// The words of the log about it.
    fn words(self) -> &'static str {
        match self {
            Self::Failed => "the capture of alice@example.com failed",
            Self::Forgotten => "alice@example.com was forgotten",
            Self::Missed => "alice@example.com may be one of *@example.com",
        }
    }
}

/// Insists that a copy was made, and said once what does not go along with it.
#[track_caller]
fn copies(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said.matches("uidl-keep: ").count(), 1, "{said}");
    for words in [why, "Warning: ", "its mail is copied"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
}

/// Insists that POP3 gives these messages, whole, in whatever order.
#[track_caller]
fn has_whole<'a>(server: &Dovecot, messages: impl Iterator<Item = &'a Message>, way: &str) {
    let mut session = server.login(USER).unwrap();
    let numbers = 1..=session.uidl().unwrap().len();
    let mut there: Vec<Vec<u8>> = numbers
        .map(|number| Message { octets: session.retr(number).unwrap() }.saved_and_retrieved())
        .collect();
    let mut sent: Vec<Vec<u8>> = messages.map(Message::saved_and_retrieved).collect();
    there.sort();
    sent.sort();
    assert_eq!(there.len(), sent.len(), "{way}");
    assert!(there == sent, "{way}: a message is another");
}

/// Returns how many messages a server has, whoever may list them by POP3. All of each can be read.
#[track_caller]
fn count(server: &Dovecot, way: &str) -> usize {
    let fetch = ["fetch", "-u", USER, "uid text", "mailbox", "INBOX", "all"];
    let output =
        if server.has_plugin() { server.doveadm_with_us(fetch) } else { server.doveadm(fetch) };
    assert!(output.status.success() && output.stderr.is_empty(), "{way}: {output:?}");
    let lines = output.stdout.split(|octet| *octet == b'\n');
    lines.filter(|line| line.starts_with(b"uid: ")).count()
}

const SOME_WAYS: [(Line, Store, Pipe); 6] = [
    (Line::V23, Store::Mdbox, Pipe::None),
    (Line::V23, Store::Maildir, Pipe::Push),
    (Line::V23, Store::Mdbox, Pipe::Pull),
    (Line::V24, Store::Mdbox, Pipe::None),
    (Line::V24, Store::Maildir, Pipe::Pull),
    (Line::V24, Store::Mdbox, Pipe::Push),
];

#[test]
fn mail_of_which_nothing_can_be_told_is_copied_without_a_uidl() {
    for (line, store, pipe) in asked(SOME_WAYS) {
        for unknown in EVERY_UNKNOWN {
            let Some(mut source) = Source::start(line, Keys::File, Own::Unspent) else { continue };
            let way = format!("{line:?} {store:?} {pipe:?} {unknown:?}");
            write_uidlist(&source, |uid| format!("Pplanted-{uid} O{uid}"));
            unknown.bring(&mut source.old, &source.dovecot);
            let target = bare(line, store);
            copies(&back_up(&source, &target, store, pipe), unknown.words());
            has_whole(&target, source.messages(), &way);
            let uidls = target.uidl(USER);
            assert!(
                uidls.iter().all(|uidl| uidl.len() == 16 && uidl.ends_with("499602d2")),
                "{way}: what was planted or captured went along: {uidls:?}"
            );

            // The question for what clients will see cannot be answered: so the answer is not
            // empty, for a capture would believe that.
            let fetch = ["fetch", "-u", USER, "pop3.uidl", "mailbox", "INBOX", "all"];
            fails(&source.dovecot.doveadm_with_us(fetch), unknown.words());
            let mut session = source.dovecot.login(USER).unwrap();
            session.uidl().expect_err("refused");
        }
    }
}

/// Writes a list of UIDs that no session made, with those words for each UID.
fn write_uidlist(source: &Source, words: impl Fn(u32) -> String) {
    let maildir = Maildir::open(source.dovecot.mail(USER));
    let mut list = "3 V1234567890 N900 G0123456789abcdef0123456789abcdef\n".to_owned();
    for (uid, file) in (1..).zip(maildir.files()) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let base = name.split(':').next().unwrap();
        list += &format!("{uid} {} :{base}\n", words(uid));
    }
    maildir.write_state("dovecot-uidlist", &list);
}

#[test]
fn mail_is_copied_to_a_server_that_refuses_its_user_and_served_once_he_is_captured() {
    for (line, store, unknown) in asked([
        (Line::V23, Store::Mdbox, Unknown::Failed),
        (Line::V23, Store::Maildir, Unknown::Missed),
        (Line::V23, Store::Mdbox, Unknown::Forgotten),
        (Line::V24, Store::Mdbox, Unknown::Failed),
        (Line::V24, Store::Maildir, Unknown::Missed),
    ]) {
        let Some(mut source) = Source::start(line, Keys::File, Own::Unspent) else { continue };
        let way = format!("{line:?} {store:?} {unknown:?}");
        let host = Host::dovecot(line).unwrap();
        let config = Config::default().store(store).with_plugin();
        let Some(target) = Dovecot::start(&host, config) else { continue };
        target.home(USER);
        unknown.bring(&mut source.old, &target);
        // The old server has never heard of us.
        source.dovecot.reconfigure(|config| config.plugin = None);
        let backup = ["backup", "-R", "-u", USER, &remote(&source.dovecot)];
        let pull = || target.doveadm_with_us(backup);
        for round in 1..=2 {
            let output = pull();
            assert!(output.status.success(), "{way}: pass {round}: {output:?}");
            assert_eq!(count(&target, &way), source.messages().count(), "{way}: pass {round}");
            let mut session = target.login(USER).unwrap();
            session.uidl().expect_err("refused");
        }
        if unknown != Unknown::Forgotten {
            fs::remove_dir_all(target.site()).unwrap();
            fs::create_dir(target.site()).unwrap();
            source.old.build_site(&target);
            let uidls = target.uidl(USER);
            assert_eq!(uidls[..source.old.uidls.len()], source.old.uidls, "{way}");
        }
    }
}

/// The mailbox that is opened to pull from is another server's, though it is opened as this user's
/// INBOX.
#[test]
fn mail_is_pulled_by_imap_whomever_pop3_refuses() {
    let Some(mut source) = Source::start(Line::subject(), Keys::File, Own::Unspent) else { return };
    source.dovecot.reconfigure(|config| config.plugin = None);
    let host = Host::dovecot(Line::subject()).unwrap();
    for unknown in EVERY_UNKNOWN {
        let config = Config::default().store(Store::Mdbox).with_plugin();
        let target = Dovecot::start(&host, config).unwrap();
        target.home(USER);
        unknown.bring(&mut source.old, &target);
        let port = format!("imapc_port={}", source.dovecot.imap().port());
        let (user, password) = (format!("imapc_user={USER}"), "imapc_password=pw");
        let from = ["imapc_host=127.0.0.1", &port, &user, password];
        let options = from.iter().flat_map(|option| ["-o", option]);
        let backup = ["backup", "-R", "-u", USER, "imapc:"];
        let output = target.doveadm_with_us(options.chain(backup));
        let (way, said) = (format!("{unknown:?}"), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !said.contains("uidl-keep: "), "{way}: {said}");
        assert_eq!(count(&target, &way), source.messages().count(), "{way}");
        target.login(USER).unwrap().uidl().expect_err("refused");
    }
}

#[test]
fn what_was_listed_goes_along_when_a_later_capture_failed() {
    for (line, store, pipe) in asked(SOME_WAYS) {
        let Some(mut source) = Source::start(line, Keys::Header, Own::Spent) else { continue };
        let way = format!("{line:?} {store:?} {pipe:?}");
        let mut listed = source.dovecot.uidl(USER);
        let later = Message::plain(1002);
        Maildir::open(source.dovecot.mail(USER)).deliver(&later, Naming::Dovecot, 900);
        Unknown::Failed.bring(&mut source.old, &source.dovecot);
        let target = bare(line, store);
        copies(&back_up(&source, &target, store, pipe), Unknown::Failed.words());
        listed.push(target.uidl(USER).pop().unwrap());
        assert!(listed.last().unwrap().ends_with("499602d2"), "{way}: {listed:?}");
        serves(&target, &listed, source.messages().chain([&later]), &way);

        // The earlier answer is taken back: nothing of it is handed on.
        helper::run(
            helper::uidl_keep()
                .args(["forget", "--site"])
                .args([source.dovecot.site().as_os_str(), USER.as_ref()]),
        );
        helper::give_to_reader(&source.dovecot.site());
        let target = bare(line, store);
        copies(&back_up(&source, &target, store, pipe), Unknown::Forgotten.words());
        let uidls = target.uidl(USER);
        assert!(uidls.iter().all(|uidl| uidl.ends_with("499602d2")), "{way}: {uidls:?}");
    }
}

#[test]
fn copies_of_one_message_keep_a_uidl_each_when_a_later_capture_failed() {
    for line in Line::asked() {
        let Some(mut source) = Source::start(line, Keys::Header, Own::Spent) else { continue };
        // There are pairs of one GUID, as a conversion from an mbox leaves them.
        write_uidlist(&source, |uid| format!("G0123456789abcdef0123456789abcd{:02x}", uid / 2));
        let listed = source.dovecot.uidl(USER);
        Unknown::Failed.bring(&mut source.old, &source.dovecot);
        let target = bare(line, Store::Mdbox);
        let copied = back_up(&source, &target, Store::Mdbox, Pipe::Push);
        copies(&copied, Unknown::Failed.words());
        assert_eq!(target.uidl(USER), listed, "{line:?}");
    }
}

/// The plugin need not be loaded for IMAP and delivery. If it is, it stands in nobody's way.
#[test]
fn whomever_pop3_refuses_imap_delivery_and_copies_to_here_go_on() {
    for line in Line::asked() {
        let loading = match line {
            Line::V23 => "mail_plugins = uidl_keep",
            Line::V24 => "mail_plugins {\n    uidl_keep = yes\n  }",
        };
        let protocols = ["imap", "lda", "lmtp"];
        let extra = protocols.map(|name| format!("protocol {name} {{\n  {loading}\n}}\n")).concat();
        let source = Source::start_with(line, Keys::File, Own::Unspent, extra);
        let Some(mut source) = source else { continue };
        let domain = source.dovecot.site().join("domain");
        let lost: [(&str, &str); 2] = [
            ("example.com.idx", "no index, but its roster names the user"),
            ("example.com.roster", "not there, but its index is"),
        ];
        let faults = EVERY_UNKNOWN.map(Ok).into_iter().chain(lost.map(Err));
        let mut there = source.messages().count();
        for (number, fault) in (2000..).zip(faults) {
            let way = format!("{line:?} {fault:?}");
            let words = match fault {
                Ok(unknown) => {
                    unknown.bring(&mut source.old, &source.dovecot);
                    unknown.words()
                }
                Err((file, words)) => {
                    fs::remove_dir_all(source.dovecot.site()).unwrap();
                    fs::create_dir(source.dovecot.site()).unwrap();
                    source.old.build_site(&source.dovecot);
                    fs::remove_file(domain.join(file)).unwrap();
                    words
                }
            };
            source.dovecot.login(USER).unwrap().uidl().expect_err("refused");
            let fetch = ["fetch", "-u", USER, "pop3.uidl", "mailbox", "INBOX", "all"];
            fails(&source.dovecot.doveadm_with_us(fetch), words);

            source.dovecot.deliver(USER, &Message::plain(number).octets);
            there += 1;
            let mut imap = Imap::login(source.dovecot.imap(), USER);
            imap.command(&format!("CREATE copies-{number}"));
            imap.command("SELECT INBOX");
            let fetched = imap.command("FETCH 1:* (UID FLAGS RFC822.SIZE)");
            assert_eq!(fetched.len(), there, "{way}");
            imap.command(&format!("COPY 1:* copies-{number}"));
            imap.logout();
            assert_eq!(count(&source.dovecot, &way), there, "{way}");
            let copies = format!("copies-{number}");
            let copy = ["copy", "-u", USER, &copies, "mailbox", "INBOX", "all"];
            source.dovecot.doveadm_with_us_ok(copy);

            let from = bare(line, Store::Maildir);
            Maildir::create(from.mail(USER)).deliver(
                &Message::plain(number + 100),
                Naming::Dovecot,
                number,
            );
            let sync = ["sync", "-R", "-1", "-u", USER, &remote(&from)];
            source.dovecot.doveadm_with_us_ok(sync);
            there += 1;
            assert_eq!(count(&source.dovecot, &way), there, "{way}");
        }
    }
}

/// A program that runs doveadm can see that it went wrong, and the reader of its messages can see
/// why.
#[track_caller]
fn fails(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert_eq!(said.matches("uidl-keep: ").count(), 1, "{said}");
    assert!(said.contains(why), "{said}");
}

#[test]
fn a_baked_maildir_becomes_an_mdbox_by_dsync_mirror_with_nothing_of_ours() {
    for line in Line::asked() {
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

/// Copies a Maildir with all that lies in it.
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
    // Status 2 says: something changed meanwhile, run it again.
    assert!(output.status.success(), "{output:?}");
}
