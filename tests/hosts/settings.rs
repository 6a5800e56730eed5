//! Dovecot's own settings, and the kept UIDLs under each: docs/dovecot.md says it, and this shows
//! it.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shared::tree::below;
use crate::support::dovecot::{Config, Dovecot, Store, mail_at};
use crate::support::helper;
use crate::support::host::{Host, Line, Unfit, asked, unix_mode};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming, make_owned};
use crate::support::pop3::Refused;
use crate::support::scenario::{Keys, OldMaildrop, USER, Way};
use uidl_keep::key::{Depth, Fingerprinter, Fingerprints, NORMALISER_VERSION};

const LATER: &str = "-ERR [SYS/TEMP] Mailbox is temporarily not available, please try again later.";

/// A Dovecot with the plugin, and with those lines in its configuration.
fn start(line: Line, store: Store, extra: &str) -> Option<Dovecot> {
    let host = Host::dovecot(line)?;
    let config = Config { extra: extra.into(), ..Config::default() };
    Dovecot::start(&host, config.store(store).with_plugin())
}

/// A way that keeps the file names and one that loses them, each captured with the keys that are
/// left.
fn ways(store: Store) -> [(Keys, Way); 2] {
    match store {
        Store::Maildir => [(Keys::File, Way::Files), (Keys::Header, Way::Append)],
        Store::Mdbox | Store::Sdbox => [(Keys::File, Way::Import), (Keys::Header, Way::Append)],
    }
}

/// Moves a maildrop under those lines of configuration, on 2.3 to each of the stores and on 2.4 to
/// the first, by every way, and insists that all is kept; `then` looks closer.
fn kept_under(
    stores: &[Store],
    extra: impl Fn(Line) -> String,
    then: impl Fn(&mut Dovecot, &OldMaildrop),
) {
    let cases = stores.iter().map(|&store| (Line::V23, store));
    for (line, store) in asked(cases.chain([(Line::V24, stores[0])])) {
        for (keys, way) in ways(store) {
            let Some(mut new) = start(line, store, &extra(line)) else { continue };
            let old = OldMaildrop::numbered(keys);
            old.move_to(&new, way);
            serves(&new, &old);
            then(&mut new, &old);
        }
    }
}

/// Insists on the cold login and the warm one: all kept, byte for byte and in order, with the right
/// bodies.
#[track_caller]
fn serves(new: &Dovecot, old: &OldMaildrop) {
    assert_eq!(new.uidl(USER), old.uidls, "the first login");
    assert_eq!(new.uidl(USER), old.uidls, "the second login");
    let mut session = new.login(USER).unwrap();
    for (number, message) in (1..).zip(&old.messages()) {
        let body = without_cr_cr(session.retr(number).unwrap());
        assert!(body == message.saved_and_retrieved(), "message {number}");
    }
    session.quit().unwrap();
}

/// Dovecot drops the CR of CR CR LF when it saves a message, not when it finds one in a Maildir.
fn without_cr_cr(body: Vec<u8>) -> Vec<u8> {
    Message { octets: body }.saved_and_retrieved()
}

/// The line that a client is told instead of its listing.
fn refusal(new: &Dovecot) -> String {
    let mut session = new.login(USER).expect("+OK comes before the mailbox is opened");
    let Err(Refused(line)) = session.uidl() else { panic!("served") };
    line
}

/// The lines that load a plugin of Dovecot's beside ours in every program that opens mail.
fn loading(line: Line, plugin: &str) -> String {
    match line {
        Line::V23 => format!(
            "protocol pop3 {{\n  mail_plugins = uidl_keep {plugin}\n}}\n\
             protocol doveadm {{\n  mail_plugins = {plugin}\n}}\n\
             protocol imap {{\n  mail_plugins = {plugin}\n}}\n"
        ),
        Line::V24 => format!("mail_plugins {{\n  {plugin} = yes\n}}\n"),
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    below(dir).into_iter().filter(|path| !path.is_dir()).collect()
}

/// Whether a message is stored there so that anybody can read it.
fn has_plain_mail(dir: &Path) -> bool {
    let is_plain = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap();
        !name.contains("index") && fs::read(file).unwrap().windows(7).any(|part| part == b"Subject")
    };
    files_below(dir).iter().any(is_plain)
}

fn count_of(new: &Dovecot, text: &str) -> usize {
    new.settled_log().lines().filter(|line| line.contains(text)).count()
}

// --- the use that POP3 makes of the answers

#[test]
fn renamed_duplicates_change_what_the_old_server_repeated_and_nothing_that_is_remembered() {
    for line in Line::asked() {
        let rename = "pop3_uidl_duplicates = rename\n";
        let Some(mut new) = start(line, Store::Maildir, rename) else { continue };
        let old = OldMaildrop::with_uidls(Keys::File, |n| {
            format!("UID{}-17", if n == 20 { 10 } else { n })
        });
        old.move_to(&new, Way::Files);
        let mut renamed = old.uidls.clone();
        // Dovecot goes by UID: it changes the first of both in the old order.
        renamed[9] = "UID10-17-2".into();
        assert_eq!(new.uidl(USER), renamed);
        assert_eq!(new.uidl(USER), renamed);
        let uidlist = fs::read_to_string(new.mail(USER).join("dovecot-uidlist")).unwrap();
        assert_eq!(uidlist.matches(" PUID10-17 ").count(), 2, "{uidlist}");
        new.restart_with("");
        assert_eq!(new.uidl(USER), old.uidls, "allow");
    }
}

#[test]
fn messages_flagged_as_deleted_are_not_listed_and_keep_their_uidls() {
    for line in Line::asked() {
        let flag = "pop3_delete_type = flag\npop3_deleted_flag = \"$POP3Deleted\"\n";
        for (keys, way) in ways(Store::Maildir) {
            let Some(new) = start(line, Store::Maildir, flag) else { continue };
            let old = OldMaildrop::numbered(keys);
            old.move_to(&new, way);
            // The first in the old order is flagged before anybody has listed it.
            let flags = |which| {
                let query = ["-u", USER, "$POP3Deleted", "mailbox", "INBOX", "all"];
                new.doveadm_ok(["flags", which].iter().chain(&query));
            };
            let first = String::from_utf8(old.messages()[0].octets.clone()).unwrap();
            let id = first.lines().find_map(|line| line.strip_prefix("Message-ID: ")).unwrap();
            let one = ["-u", USER, "$POP3Deleted", "mailbox", "INBOX", "header", "Message-ID", id];
            new.doveadm_ok(["flags", "add"].iter().chain(&one));
            assert_eq!(new.uidl(USER), old.uidls[1..], "the first listing");
            // The first is not listed, so the messages behind it have moved up.
            let number = old.first_copy() - 1;
            let mut session = new.login(USER).unwrap();
            session.dele(number).unwrap();
            session.quit().unwrap();
            let mut left = old.uidls[1..].to_vec();
            left.remove(number - 1);
            assert_eq!(new.uidl(USER), left, "after DELE");

            // The same message is there once more: its UIDL is taken, though nobody sees by which
            // message.
            let again = &old.messages()[number];
            Maildir::open(new.mail(USER)).deliver(again, Naming::Qmail, 1000);
            let uidls = new.uidl(USER);
            assert_eq!(uidls[..left.len()], left);
            assert_eq!(uidls.len(), left.len() + 1);
            assert!(!old.uidls.contains(&uidls[left.len()]), "{uidls:?}");

            flags("remove");
            assert_eq!(new.uidl(USER)[..old.uidls.len()], old.uidls, "no longer flagged");
        }
    }
}

#[test]
fn fast_size_lookups_change_no_uidl() {
    kept_under(
        &[Store::Maildir, Store::Mdbox],
        |_| "pop3_fast_size_lookups = yes\n".into(),
        |_, _| {},
    );
}

#[test]
fn equal_headers_are_told_apart_by_their_bodies_also_with_fast_size_lookups() {
    for line in Line::asked() {
        let fast = "pop3_fast_size_lookups = yes\n";
        let Some(new) = start(line, Store::Maildir, fast) else { continue };
        let short = Message::plain(1);
        let long = Message { octets: [&short.octets[..], b"PS: one more line.\n"].concat() };
        let maildir = Maildir::create(new.mail(USER));
        for (seconds, message) in (0..).zip([&short, &long]) {
            maildir.deliver(message, Naming::Qmail, seconds);
        }
        // The old server had them the other way round.
        let keys = [&long, &short].map(|message| {
            let (octets, prints) = (message.on_the_wire().len(), fingerprints(message));
            let (header, whole) = (prints.header.unwrap(), prints.message.unwrap());
            format!("octets={octets} header={header} message={whole}")
        });
        let listing = format!(
            "uidl-keep-listing 1\nmaildrop {USER}\nstate captured\nkeys {NORMALISER_VERSION}\n\
             1 long-17 {}\n2 short-17 {}\n.\n",
            keys[0], keys[1],
        );
        let file = new.dir().join("alice.uidl");
        fs::write(&file, listing).unwrap();
        helper::build_site(&new.site(), &file);
        assert_eq!(new.uidl(USER), ["long-17", "short-17"]);
        assert_eq!(new.uidl(USER), ["long-17", "short-17"]);
    }
}

/// Sizes are a veto: true ones, however fast Dovecot may find them. Here there are more line ends
/// than may be explained, and a fast size leaves them out.
#[test]
fn a_true_size_that_nothing_explains_is_a_veto_also_with_fast_size_lookups() {
    for line in Line::asked() {
        let fast = "pop3_fast_size_lookups = yes\n";
        for is_true in [true, false] {
            let Some(new) = start(line, Store::Maildir, fast) else { continue };
            let mut message = Message::plain(1);
            message.octets.extend(b"\n".repeat(1200));
            let maildir = Maildir::create(new.mail(USER));
            maildir.deliver(&message, Naming::Qmail, 1);
            let header = fingerprints(&message).header.unwrap();
            let size = if is_true { message.on_the_wire().len() } else { message.octets.len() };
            let listing = format!(
                "uidl-keep-listing 1\nmaildrop {USER}\nstate captured\n\
                 keys {NORMALISER_VERSION}\n1 old-17 octets={size} header={header}\n.\n",
            );
            let file = new.dir().join("alice.uidl");
            fs::write(&file, listing).unwrap();
            helper::build_site(&new.site(), &file);
            if is_true {
                assert_eq!(new.uidl(USER), ["old-17"]);
            } else {
                assert_eq!(refusal(&new), LATER);
            }
        }
    }
}

/// The fingerprints of a message, as a capture finds them.
fn fingerprints(message: &Message) -> Fingerprints {
    let mut printer = Fingerprinter::new(Depth::Message);
    printer.update(&message.octets);
    printer.finish()
}

#[test]
fn a_locked_session_keeps_the_second_login_out_and_all_uidls_in_place() {
    for line in Line::asked() {
        let Some(new) = start(line, Store::Maildir, "pop3_lock_session = yes\n") else { continue };
        let old = OldMaildrop::numbered(Keys::Header);
        old.move_to(&new, Way::Files);
        let mut first = new.login(USER).unwrap();
        assert_eq!(first.uidl().unwrap(), old.uidls, "the first listing");
        let second = new.login(USER).and_then(|mut session| session.uidl());
        let Err(Refused(told)) = second else { panic!("served") };
        assert_eq!(told, "-ERR [IN-USE] Mailbox is locked by another POP3 session.");
        first.quit().unwrap();
        serves(&new, &old);
    }
}

#[test]
fn the_order_stays_where_dovecot_may_read_two_messages_for_sorting() {
    kept_under(
        &[Store::Maildir, Store::Mdbox],
        |_| "mail_sort_max_read_count = 2\n".into(),
        |_, _| {},
    );
}

// --- how mail is stored

#[test]
fn wrong_sizes_in_file_names_change_no_uidl_once_dovecot_is_told_of_them() {
    for line in Line::asked() {
        for keys in [Keys::File, Keys::Header] {
            let Some(mut new) = start(line, Store::Maildir, "") else { continue };
            let old = OldMaildrop::numbered(keys);
            old.move_to(&new, Way::Files);
            for file in files_below(&new.mail(USER)) {
                let name = file.file_name().unwrap().to_str().unwrap();
                let (base, flags) = name.find(':').map_or((name, ""), |at| name.split_at(at));
                fs::rename(&file, file.with_file_name(format!("{base},S=7{flags}"))).unwrap();
            }
            if keys == Keys::File {
                // Dovecot cannot say how long the messages are, with us or without.
                let told = refusal(&new);
                assert!(told.starts_with("-ERR [SYS/TEMP] Internal error occurred."), "{told}");
            }
            new.restart_with("maildir_broken_filename_sizes = yes\n");
            serves(&new, &old);
        }
    }
}

#[test]
fn compressed_mail_keeps_its_uidls() {
    let zlib = |line| match line {
        Line::V23 => loading(line, "zlib") + "plugin {\n  zlib_save = gz\n}\n",
        Line::V24 => loading(line, "mail_compress") + "mail_compress_write_method = gz\n",
    };
    for (line, store) in
        asked([(Line::V23, Store::Maildir), (Line::V23, Store::Mdbox), (Line::V24, Store::Sdbox)])
    {
        for (keys, way) in [(Keys::File, Way::Import), (Keys::Header, Way::Append)] {
            let Some(mut new) = start(line, store, &zlib(line)) else { continue };
            let old = OldMaildrop::numbered(keys);
            old.move_to(&new, way);
            assert!(!has_plain_mail(&new.mail(USER)), "it is not compressed");
            if keys == Keys::Header {
                // As long as Dovecot cannot uncompress it, POP3 is told nothing.
                new.restart_with("");
                assert_eq!(refusal(&new), LATER);
                let told = "30 messages were captured last, 30 are here, 0 of them recognised";
                assert_eq!(count_of(&new, told), 1, "{}", new.log());
                new.restart_with(&zlib(line));
            }
            serves(&new, &old);
        }
    }
}

#[test]
fn encrypted_mail_keeps_its_uidls_and_without_the_key_nobody_is_told_others() {
    for (line, store) in asked([(Line::V23, Store::Maildir), (Line::V24, Store::Mdbox)]) {
        for (keys, way) in [(Keys::File, Way::Import), (Keys::Header, Way::Append)] {
            let Some(mut new) = start(line, store, "") else { continue };
            let (private, public) = make_keys(&new);
            let crypt = |private: &str| match line {
                Line::V23 => format!(
                    "{}plugin {{\n  mail_crypt_global_private_key = <{private}\n  \
                         mail_crypt_global_public_key = <{public}\n  \
                         mail_crypt_save_version = 2\n}}\n",
                    loading(line, "mail_crypt")
                ),
                Line::V24 => format!(
                    "{}crypt_global_private_key main {{\n  crypt_private_key_file = {private}\n}}\n\
                         crypt_global_public_key_file = {public}\n\
                         crypt_write_algorithm = aes-256-gcm-sha256\n",
                    loading(line, "mail_crypt")
                ),
            };
            new.restart_with(&crypt(&private));
            let old = OldMaildrop::numbered(keys);
            old.move_to(&new, way);
            assert!(!has_plain_mail(&new.mail(USER)), "it is not encrypted");

            if keys == Keys::Header {
                let (stranger, _) = make_keys(&new);
                new.restart_with(&crypt(&stranger));
                assert_eq!(refusal(&new), LATER);
                let why = "UID 1 cannot be read (read(";
                assert_eq!(count_of(&new, why), 1, "{}", new.log());
                new.restart_with(&crypt(&private));
            }
            serves(&new, &old);
        }
    }
}

/// A new pair of keys, private and public, where that Dovecot finds them.
fn make_keys(new: &Dovecot) -> (String, String) {
    let at = (1..).map(|n| new.dir().join(format!("key{n}"))).find(|at| !at.exists()).unwrap();
    fs::create_dir(&at).unwrap();
    let (private, public) = (at.join("private.pem"), at.join("public.pem"));
    let openssl = |args: &[&str], out: &Path| {
        let made = Command::new("openssl").args(args).arg("-out").arg(out).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    };
    let curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    openssl(&[&["genpkey"], &curve[..]].concat(), &private);
    openssl(&["pkey", "-pubout", "-in", private.to_str().unwrap()], &public);
    for file in [&private, &public] {
        fs::set_permissions(file, unix_mode(0o644)).unwrap();
    }
    [private, public].map(|file| new.inside(&file).display().to_string()).into()
}

#[test]
fn messages_moved_to_alternative_storage_and_purged_keep_their_uidls() {
    for line in Line::asked() {
        let alt = match line {
            Line::V23 => "mail_location = mdbox:~/mdbox:ALT=~/alt\nmdbox_rotate_size = 4k\n",
            Line::V24 => "mail_alt_path = ~/alt\nmdbox_rotate_size = 4k\n",
        };
        for (keys, way) in ways(Store::Mdbox) {
            let Some(new) = start(line, Store::Mdbox, alt) else { continue };
            let old = OldMaildrop::numbered(keys);
            old.move_to(&new, way);
            let all = ["mailbox", "INBOX", "all"];
            new.doveadm_ok(["altmove", "-u", USER].iter().chain(&all));
            let moved = files_below(&new.home(USER).join("alt/storage"));
            assert!(moved.len() > 2, "{moved:?}");
            serves(&new, &old);

            let mut session = new.login(USER).unwrap();
            for number in [3, 17] {
                session.dele(number).unwrap();
            }
            session.quit().unwrap();
            let mut left = old.uidls.clone();
            left.remove(16);
            left.remove(2);
            new.doveadm_ok(["purge", "-u", USER]);
            assert_ne!(files_below(&new.home(USER).join("alt/storage")), moved);
            assert_eq!(new.uidl(USER), left, "purged");
            assert_eq!(count_of(&new, "Error"), 0, "{}", new.log());
        }
    }
}

// --- where Dovecot keeps its indexes

#[test]
fn where_mmap_is_disabled_the_index_of_a_site_is_read() {
    kept_under(
        &[Store::Maildir, Store::Mdbox],
        |_| {
            "mmap_disable = yes\nmail_fsync = always\n\
             mail_nfs_storage = yes\nmail_nfs_index = yes\n"
                .into()
        },
        |_, _| {},
    );
}

#[test]
fn with_indexes_in_memory_the_ledger_still_lies_with_the_mail() {
    kept_under(
        &[Store::Maildir],
        |line| match line {
            Line::V23 => "mail_location = maildir:~/Maildir:INDEX=MEMORY\n".into(),
            Line::V24 => "mail_index_path = MEMORY\n".into(),
        },
        |new, old| {
            let files = files_below(&new.home(USER));
            let named = |part: &str| {
                let is_named = |file: &&PathBuf| file.to_string_lossy().contains(part);
                files.iter().filter(is_named).count()
            };
            assert_eq!(named("/dovecot.index"), 0, "{files:?}");
            assert_eq!(named("/uidl-keep.ledger"), 1, "{files:?}");
            let number = old.first_copy();
            let mut session = new.login(USER).unwrap();
            session.dele(number).unwrap();
            session.quit().unwrap();
            let mut left = old.uidls.clone();
            left.remove(number - 1);
            // Only the ledger knows that it was there.
            let maildir = Maildir::open(new.mail(USER));
            maildir.deliver(&old.messages()[number - 1], Naming::Qmail, 1000);
            let uidls = new.uidl(USER);
            assert_eq!(uidls[..left.len()], left);
            assert_eq!(uidls.len(), left.len() + 1);
            assert!(!old.uidls.contains(&uidls[left.len()]), "{uidls:?}");
        },
    );
}

#[test]
fn a_directory_for_indexes_that_cannot_be_written_costs_no_uidl() {
    for line in Line::asked() {
        let elsewhere = match line {
            Line::V23 => "mail_location = maildir:~/Maildir:INDEX=~/index\n",
            Line::V24 => "mail_index_path = ~/index\n",
        };
        for keys in [Keys::File, Keys::Header] {
            let Some(new) = start(line, Store::Maildir, elsewhere) else { continue };
            let old = OldMaildrop::numbered(keys);
            old.move_to(&new, Way::Files);
            let dir = new.home(USER).join("index");
            make_owned(&dir.join(".INBOX"));
            lock_up(&dir);
            serves(&new, &old);
            assert!(files_below(&dir).is_empty());
            assert!(new.mail(USER).join("uidl-keep.ledger").exists());
        }
    }
}

#[test]
fn an_index_that_cannot_be_written_is_refused_by_dovecot_and_costs_no_uidl() {
    // 2.4.1 crashes here, with the plugin and without.
    if Unfit::Crashes.is_asked() {
        return;
    }
    for keys in [Keys::File, Keys::Header] {
        let elsewhere = "mail_location = maildir:~/Maildir:INDEX=~/index\n";
        let Some(new) = start(Line::V23, Store::Maildir, elsewhere) else { return };
        let old = OldMaildrop::numbered(keys);
        old.move_to(&new, Way::Files);
        new.doveadm_ok(["fetch", "-u", USER, "uid", "mailbox", "INBOX", "all"]);
        let dir = new.home(USER).join("index");
        lock_up(&dir);
        let told = refusal(&new);
        assert!(told.starts_with("-ERR [SYS/TEMP] Internal error occurred."), "{told}");
        assert_eq!(count_of(&new, "uidl-keep: "), 0, "{}", new.log());
        give_back(&dir);
        serves(&new, &old);
    }
}

fn lock_up(dir: &Path) {
    for path in [dir.to_owned()].into_iter().chain(below(dir)) {
        chown(&path, Some(0), Some(0)).unwrap();
        fs::set_permissions(&path, unix_mode(if path.is_dir() { 0o555 } else { 0o444 })).unwrap();
    }
}

fn give_back(dir: &Path) {
    for path in [dir.to_owned()].into_iter().chain(below(dir)) {
        chown(&path, Some(crate::support::OWNER), Some(crate::support::OWNER)).unwrap();
        fs::set_permissions(&path, unix_mode(if path.is_dir() { 0o700 } else { 0o600 })).unwrap();
    }
}

// --- an INBOX that is made of others

/// The INBOX shows the mail in `real/INBOX`; the mail was moved there before.
fn virtual_inbox(line: Line, path: &str, places: &[(&str, &str)]) -> String {
    let location = mail_at(line, "virtual", path, places).replace("mail_location", "location");
    loading(line, "virtual")
        + &format!(
            "namespace inbox {{\n  inbox = no\n  prefix = real/\n}}\n\
             namespace virtual {{\n  prefix =\n  inbox = yes\n  separator = /\n{location}}}\n"
        )
}

fn write_owned(file: &Path, text: &str) {
    make_owned(file.parent().unwrap());
    fs::write(file, text).unwrap();
    chown(file, Some(crate::support::OWNER), Some(crate::support::OWNER)).unwrap();
}

#[test]
fn a_virtual_inbox_is_a_maildrop_like_any_other() {
    for line in Line::asked() {
        for (keys, way) in ways(Store::Mdbox) {
            let Some(mut new) = start(line, Store::Mdbox, "") else { continue };
            let old = OldMaildrop::numbered(keys);
            old.move_to(&new, way);
            write_owned(
                &new.home(USER).join("virtual/INBOX/dovecot-virtual"),
                "real/INBOX\n  all\n",
            );
            new.restart_with(&virtual_inbox(line, "~/virtual", &[]));
            serves(&new, &old);
            let ledger = new.home(USER).join("virtual/INBOX/uidl-keep.ledger");
            assert!(ledger.exists());
            // Its UIDs live in its index alone.
            let mut removed = 0;
            for file in files_below(&new.home(USER).join("virtual")) {
                if file.to_string_lossy().contains("dovecot.index") {
                    fs::remove_file(file).unwrap();
                    removed += 1;
                }
            }
            assert_ne!(removed, 0);
            serves(&new, &old);
        }
    }
}

#[test]
fn a_virtual_inbox_in_a_shared_directory_needs_a_control_directory_of_its_own() {
    let Some(mut new) = start(Line::subject(), Store::Mdbox, "") else { return };
    let old = OldMaildrop::numbered(Keys::Header);
    old.move_to(&new, Way::Append);
    let shared = new.dir().join("shared/INBOX");
    fs::create_dir_all(&shared).unwrap();
    fs::write(shared.join("dovecot-virtual"), "real/INBOX\n  all\n").unwrap();
    let place = new.inside(&new.dir().join("shared")).display().to_string();
    new.restart_with(&virtual_inbox(Line::subject(), &place, &[("INDEX", "~/virtual")]));
    // The directory that is there to be written into is root's, and everybody's at once.
    serves(&new, &old);
    assert_ne!(
        count_of(&new, "cannot be written (uidl-keep.lock: Permission denied"),
        0,
        "{}",
        new.log()
    );

    let places = [("INDEX", "~/virtual"), ("CONTROL", "~/control")];
    new.restart_with(&virtual_inbox(Line::subject(), &place, &places));
    serves(&new, &old);
    assert!(new.home(USER).join("control/INBOX/uidl-keep.ledger").exists());
    assert_eq!(files_below(&shared), [shared.join("dovecot-virtual")]);
}

/// Dovecot's own documentation has a location in which users share a control directory; here it
/// belongs to the mail's owner.
#[test]
fn a_ledger_of_another_user_is_never_answered_from() {
    let bob = "bob@example.com";
    let Some(mut new) = start(Line::subject(), Store::Mdbox, "") else { return };
    let old = OldMaildrop::numbered(Keys::File);
    old.move_to(&new, Way::Import);
    // Bob has copies of the same mail, and other UIDLs for them.
    let listing = fs::read_to_string(new.dir().join("alice.uidl")).unwrap();
    let both = format!("{listing}{}", listing.replace(USER, bob).replace("-17 ", "-18 "));
    fs::write(new.dir().join("both.uidl"), both).unwrap();
    fs::remove_dir_all(new.site()).unwrap();
    fs::create_dir(new.site()).unwrap();
    helper::build_site(&new.site(), &new.dir().join("both.uidl"));
    new.home(bob);
    let mail = format!("maildir:{}", new.inside(&new.dir().join("old/Maildir")).display());
    new.doveadm_ok(["import", "-u", bob, &mail, "", "mailbox", "INBOX", "all"]);
    let shared = new.dir().join("shared");
    write_owned(&shared.join("INBOX/dovecot-virtual"), "real/INBOX\n  all\n");
    let place = new.inside(&shared).display().to_string();
    new.restart_with(&virtual_inbox(Line::subject(), &place, &[("INDEX", "~/virtual")]));
    assert_eq!(new.uidl(USER), old.uidls);
    assert!(new.login(bob).unwrap().uidl().is_err());
    let told = format!("it is the ledger of {USER:?}; give each user a control directory");
    assert_eq!(count_of(&new, &told), 1, "{}", new.log());
    assert_eq!(new.uidl(USER), old.uidls, "again");
    let places = [("INDEX", "~/virtual"), ("CONTROL", "~/control")];
    new.restart_with(&virtual_inbox(Line::subject(), &place, &places));
    let bobs: Vec<String> = old.uidls.iter().map(|u| u.replace("-17", "-18")).collect();
    assert_eq!(new.uidl(bob), bobs);
}
