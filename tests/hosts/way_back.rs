//! There and back: from an old server to a Dovecot with the plugin, and years later on from there
//! to a third one. A real client, with one memory for all three, downloads nothing twice.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use uidl_keep::listing::Reader;
use uidl_keep::maildrop::Maildrop;

use crate::support::clients::{Client, Program};
use crate::support::courier::Courier;
use crate::support::dovecot::{Config, Store};
use crate::support::helper::{self, uidl_keep};
use crate::support::host::{Host, Line, Unfit};
use crate::support::mail::Message;
use crate::support::maildir::{Naming, make_owned};
use crate::support::scenario::{Scenario, USER};

const FORMAT: &str = "%08Xu%08Xv";

/// How many messages the old server has.
const COUNT: u32 = 12;

/// A maildrop that has moved once, from a Courier whose client has polled it there and here. Its
/// newest message has been listed by nobody.
struct There {
    moved: Scenario,
    client: Client,
    first_listing: String,
    /// What the client was told here last.
    told: Vec<String>,
    /// The UIDL of a message that it was told of and then deleted.
    deleted: String,
}

fn there(line: Line, store: Store) -> Option<There> {
    let courier = Courier::new(&Host::courier()?);
    let moved = Scenario::begin_with(line, Config::default().store(store).with_plugin())?;
    let client = Client::new(Program::FetchmailByHalves, USER)?;
    let maildir = courier.maildir(USER);
    // Courier lists by name, and its numbers go by another order.
    for number in (1..=COUNT).rev() {
        maildir.deliver(&Message::plain(number), Naming::Courier, number);
        if number == COUNT / 2 {
            courier.uidl(USER);
        }
    }
    assert_eq!(client.poll(courier.listen(USER).pop3()), COUNT as usize);
    let mut capture = uidl_keep();
    capture.args(["capture", "courier", "--layout", "plesk", "--root"]).arg(courier.root());
    let first_listing = String::from_utf8(helper::run(&mut capture)).expect("text");
    moved.build(&first_listing);
    if store == Store::Maildir {
        moved.copy_files(&maildir);
    } else {
        moved.copy_files(&maildir.copy_mail_to(&moved.dovecot.dir().join("old/Maildir")));
    }
    let pop3 = moved.dovecot.pop3();
    assert_eq!(client.poll(pop3), 0, "{line:?} {store:?}: first move");
    moved.receive(&Message::plain(101));
    moved.receive(&Message::plain(102));
    assert_eq!(client.poll(pop3), 2);
    let deleted = moved.uidls()[1].clone();
    moved.delete(2);
    let told = moved.uidls();
    moved.receive(&Message::plain(103));
    Some(There { moved, client, first_listing, told, deleted })
}

/// Adds what a capture must know of this server.
fn of_this_server<'a>(command: &'a mut Command, moved: &Scenario) -> &'a mut Command {
    let conf = format!("-c {}", moved.dovecot.conf().display());
    command.arg("--site").arg(moved.dovecot.site()).args(["--doveadm-args", &conf])
}

/// The capture of the Maildir.
fn capture_maildir(moved: &Scenario) -> Command {
    let pattern = moved.dovecot.home("{local}@{domain}").join("Maildir");
    let mut command = uidl_keep();
    command.args(["capture", "dovecot", "--format", FORMAT, "--pattern"]).arg(&pattern);
    if moved.dovecot.inside(&pattern) == pattern {
        of_this_server(&mut command, moved);
    } else {
        // Its doveadm lies in a tree.
        command.arg("--site").arg(moved.dovecot.site()).arg("--control").arg(&pattern);
    }
    command
}

/// The capture of what doveadm prints, which has been given those options.
fn capture_doveadm(moved: &Scenario, options: &[&str], more: &[&str]) -> Output {
    let doveadm = |args: &[&str]| moved.dovecot.doveadm_ok(options.iter().chain(args));
    let fields = "messages uidvalidity uidnext";
    let mut printed = doveadm(&["-f", "json", "mailbox", "status", "-u", USER, fields, "INBOX"]);
    let fields = "uid guid pop3.uidl pop3.order size.virtual hdr";
    printed += &doveadm(&["-f", "json", "fetch", "-u", USER, fields, "mailbox", "INBOX"]);
    let mut command = uidl_keep();
    command.args(["capture", "doveadm", "--format", FORMAT, "--user", USER]).args(more);
    if more.is_empty() {
        of_this_server(&mut command, moved);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the helper");
    let _ = child.stdin.take().expect("a pipe").write_all(printed.as_bytes());
    child.wait_with_output().expect("the helper")
}

fn only_block(listing: &str) -> Maildrop {
    let mut blocks = Reader::new(listing.as_bytes());
    let block = blocks.next().expect("a block").expect("a listing");
    assert!(blocks.next().is_none());
    block
}

/// Insists that a capture says exactly what the client was told, and of the newest message what
/// Dovecot gives it.
#[track_caller]
fn says_what_was_told(there: &There, listing: &str) {
    let block = only_block(listing);
    let uidls: Vec<String> = block.entries.iter().map(|entry| entry.uidl.to_string()).collect();
    assert_eq!(uidls[..there.told.len()], there.told);
    assert!(uidls.len() <= there.told.len() + 1, "{uidls:?}");
    let spent: Vec<String> = block.spent.iter().map(ToString::to_string).collect();
    assert!(spent.contains(&there.deleted), "{spent:?}");
}

/// The third server has the mail: its client downloads what is new to it, once, and nothing else.
fn goes_on(there: &There, third: &mut Scenario) {
    let There { client, told, deleted, .. } = there;
    let pop3 = third.dovecot.pop3();
    assert_eq!(client.poll(pop3), 1, "the message that came last, and nothing else");
    let uidls = third.uidls();
    assert_eq!(uidls[..told.len()], *told, "in the same order");
    assert_eq!(uidls.len(), told.len() + 1);
    third.receive(&Message::plain(104));
    assert_eq!(client.poll(pop3), 1);
    let uidls = third.uidls();
    assert!(!uidls.contains(deleted), "{uidls:?}");
    assert_eq!(client.poll(pop3), 0);
    assert_eq!(client.times_downloaded("Subject: "), client.downloaded());
    if third.store() == Store::Maildir {
        third.take_the_plugin_out();
        assert_eq!(third.uidls(), uidls, "baked");
        assert_eq!(client.poll(third.dovecot.pop3()), 0);
    }
}

fn other(line: Line) -> Line {
    if line == Line::V23 { Line::V24 } else { Line::V23 }
}

#[test]
fn a_maildir_goes_there_and_on_by_its_ledger() {
    for line in Line::asked() {
        let Some(there) = there(line, Store::Maildir) else { continue };
        // Dovecot's list has lost what the bake wrote there: the ledger alone says it.
        let list = there.moved.maildir().path().join("dovecot-uidlist");
        let text = fs::read_to_string(&list).expect("a list");
        let is_ours = |word: &&str| !word.starts_with(['P', 'O']);
        let text: Vec<String> = text
            .lines()
            .map(|line| line.split(' ').filter(is_ours).collect::<Vec<_>>().join(" "))
            .collect();
        there.moved.maildir().write_state("dovecot-uidlist", &(text.join("\n") + "\n"));
        let listing = helper::run(&mut capture_maildir(&there.moved));
        let listing = String::from_utf8(listing).expect("text");
        says_what_was_told(&there, &listing);

        let config = Config::default().with_plugin();
        let Some(mut third) = Scenario::begin_with(other(line), config) else { continue };
        // What the first server's clients know beside it stays spent: both listings are built.
        third.build(&there.first_listing);
        let (site, next) = (third.dovecot.site(), third.dovecot.dir().join("next.listing"));
        fs::write(&next, &listing).expect("our directory");
        let mut build = uidl_keep();
        build.args(["build", "--final", "--base"]).arg(&site).arg("-o").arg(&site).arg(next);
        helper::run(&mut build);
        helper::give_to_reader(&site);
        third.copy_files(&there.moved.maildir());
        goes_on(&there, &mut third);
    }
}

#[test]
fn an_mdbox_goes_there_and_on_whether_doveadm_has_the_plugin_or_not() {
    // A copy goes from the root directory of one server to that of the other.
    if Unfit::ThisMachine.is_asked() {
        return;
    }
    let Some(there) = there(Line::V23, Store::Mdbox) else { return };
    let without: &[&str] = &[];
    let with = there.moved.dovecot.loading_us();
    let mut listings = Vec::new();
    for options in [without, &with] {
        let ran = capture_doveadm(&there.moved, options, &[]);
        assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
        let listing = String::from_utf8(ran.stdout).expect("text");
        says_what_was_told(&there, &listing);
        listings.push(listing);
    }
    // Where nobody says that this server has ledgers, Dovecot's own UIDLs are all there is; but
    // where the plugin was loaded, it says what was told.
    let none: &[&str] = &["--site", "none"];
    let bare = capture_doveadm(&there.moved, without, none);
    let bare = only_block(&String::from_utf8(bare.stdout).expect("text"));
    assert_ne!(bare.entries[0].uidl.to_string(), there.told[0]);
    let loaded = capture_doveadm(&there.moved, &with, none);
    let loaded = only_block(&String::from_utf8(loaded.stdout).expect("text"));
    assert_eq!(loaded.entries[0].uidl.to_string(), there.told[0]);

    let config = Config::default().store(Store::Mdbox).with_plugin();
    let Some(mut third) = Scenario::begin_with(Line::V24, config) else { return };
    third.build(&listings[0]);
    let copy = third.dovecot.dir().join("from/Maildir");
    make_owned(copy.parent().expect("ours"));
    let target = format!("maildir:{}", copy.display());
    there.moved.dovecot.doveadm_ok(["backup", "-u", USER, &target]);
    third.dovecot.home(USER);
    third.dovecot.import(USER, &copy);
    goes_on(&there, &mut third);
}

#[test]
fn whom_no_client_has_listed_here_goes_on_as_the_first_server_told_him() {
    let Some(moved) = Scenario::begin(Store::Maildir) else { return };
    let Some(client) = Client::new(Program::Fetchmail, USER) else { return };
    let Some(tree) = Host::courier() else { return };
    let courier = Courier::new(&tree);
    let maildir = courier.maildir(USER);
    for number in 1..=COUNT {
        maildir.deliver(&Message::plain(number), Naming::Courier, number);
    }
    assert_eq!(client.poll(courier.listen(USER).pop3()), COUNT as usize);
    let mut capture = uidl_keep();
    capture.args(["capture", "courier", "--layout", "plesk", "--root"]).arg(courier.root());
    moved.build(&String::from_utf8(helper::run(&mut capture)).expect("text"));
    moved.copy_files(&maildir);
    // He reads by IMAP here.
    let mut session = moved.imap();
    session.command("SELECT INBOX");
    session.logout();
    let listing = helper::run(&mut capture_maildir(&moved));
    let listing = String::from_utf8(listing).expect("text");

    let Some(third) = Scenario::begin(Store::Maildir) else { return };
    third.build(&listing);
    third.copy_files(&moved.maildir());
    assert_eq!(client.poll(third.dovecot.pop3()), 0);
    assert_eq!(third.uidls(), courier.uidl(USER));
}
