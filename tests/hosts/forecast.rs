//! The forecast of a Maildir, and what its clients are then told: message for message.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use uidl_keep::capture::find::source::Source;
use uidl_keep::forecast::{
    ControlPlace, Forecast, ForecastSign, Foretold, MailPlace, MissingBecause, Terms, forecast,
};
use uidl_keep::format::UidlFormat;
use uidl_keep::site::{Site, SiteSettings};

use crate::support::OWNER;
use crate::support::dovecot::{Config, Store, loads, mail_at};
use crate::support::foretold::ForetoldUser;
use crate::support::helper;
use crate::support::host::Line;
use crate::support::imap;
use crate::support::mail::Message;
use crate::support::maildir::Naming;
use crate::support::scenario::{
    Keys, LATER, Listing, OldMaildrop, Scenario, USER, Way, base, by_header, by_message, uidl,
    uidl_of, uidlist, with_body,
};

/// The forecast of the user's Maildir as it is now, and the base names of the messages that clients
/// would download.
fn foretold(moved: &Scenario) -> (Forecast, BTreeSet<String>) {
    let terms = Terms {
        site: Site::new(moved.dovecot.site()),
        native: UidlFormat::parse("%08Xu%08Xv").ok(),
        settings: SiteSettings::default(),
        keys: None,
    };
    let source = Source::named(USER, moved.dovecot.mail(USER));
    let inbox = MailPlace::Maildir { mail: &source, control: ControlPlace::Beside };
    let told = forecast(&terms, USER, inbox);
    let Foretold::Told { forecast, survey: Some(survey) } = told else { panic!("{told:?}") };
    let name = |at| String::from_utf8(survey.file_name(at).to_owned()).expect("ASCII");
    let new = forecast.new.iter().map(|new| name(new.at)).collect();
    (*forecast, new)
}

/// Insists that a client that knows what was captured downloads what was foretold, and finds
/// everything else under the UIDL that it knows.
#[track_caller]
fn comes_true(moved: &Scenario, captured: &[String]) -> Forecast {
    let (forecast, new) = foretold(moved);
    // The helper says the same, and nothing was written.
    let pattern = moved.dovecot.home("{local}@{domain}").join("Maildir");
    let said = helper::uidl_keep()
        .args(["forecast", "--json", "--format", "%08Xu%08Xv", "--site"])
        .arg(moved.dovecot.site())
        .arg("--maildir")
        .arg(&pattern)
        .output()
        .expect("the helper");
    let first = String::from_utf8(said.stdout).expect("text");
    let first = first.lines().next().unwrap_or_else(|| panic!("{:?}", said.stderr));
    let said: serde_json::Value = serde_json::from_str(first).expect("JSON");
    assert_eq!(said["sign"], forecast.sign().as_char().to_string());
    assert_eq!(said["kept"], forecast.kept);
    assert_eq!(said["again"], forecast.again());
    assert!(!moved.ledger().exists(), "a forecast writes nothing");

    let known: BTreeSet<&String> = captured.iter().collect();
    let told = uidl_by_file(moved);
    let downloads = told.iter().filter(|(_, uidl)| !known.contains(uidl));
    let downloads: BTreeSet<String> = downloads.map(|(file, _)| file.clone()).collect();
    assert_eq!(downloads, new, "{forecast:?}");
    let heard: BTreeSet<&String> = told.values().collect();
    let missing: BTreeSet<String> =
        forecast.missing.iter().map(|missing| missing.uidl.to_string()).collect();
    let lost: BTreeSet<String> = known.difference(&heard).map(|uidl| (*uidl).clone()).collect();
    assert_eq!(lost, missing, "{forecast:?}");
    assert_eq!(told.len(), forecast.messages);
    forecast
}

/// What a POP3 client is told of each file. doveadm, asked afterwards, says which is which: the
/// GUID of a message that no dsync brought is its base file name.
fn uidl_by_file(moved: &Scenario) -> BTreeMap<String, String> {
    let mut uidls = moved.uidls();
    let fetch = ["-f", "tab", "fetch", "-u", USER, "guid pop3.uidl", "mailbox", "INBOX", "all"];
    let shown = moved.dovecot.doveadm_with_us_ok(fetch);
    let lines = shown.lines().skip(1).map(|line| line.split_once('\t').expect("two columns"));
    let told: BTreeMap<String, String> =
        lines.map(|(guid, uidl)| (guid.to_owned(), uidl.to_owned())).collect();
    let mut shown: Vec<String> = told.values().cloned().collect();
    uidls.sort();
    shown.sort();
    assert_eq!(uidls, shown, "doveadm sees the same");
    let files: BTreeSet<String> =
        moved.maildir().files().iter().map(|file| base(file).to_owned()).collect();
    assert_eq!(told.keys().cloned().collect::<BTreeSet<String>>(), files);
    told
}

fn moved_by(old: &OldMaildrop, way: Way) -> Option<Scenario> {
    let moved = Scenario::begin(Store::Maildir)?;
    old.move_to(&moved.dovecot, way);
    Some(moved)
}

/// A Maildir to which messages were copied by file; the listing has them all.
fn with(count: u32) -> Option<(Scenario, Listing)> {
    let moved = Scenario::begin(Store::Maildir)?;
    let maildir = moved.maildir();
    for number in 1..=count {
        maildir.deliver(&Message::plain(number), Naming::Qmail, number);
    }
    let listing = Listing::of_files(&maildir.files());
    Some((moved, listing))
}

#[test]
fn a_copy_by_files_is_foretold_whole() {
    let old = OldMaildrop::qmail(48);
    let Some(moved) = moved_by(&old, Way::Files) else { return };
    let forecast = comes_true(&moved, &old.uidls);
    assert_eq!(forecast.sign(), ForecastSign::Whole);
    assert_eq!((forecast.kept, forecast.missing.len()), (48, 0));
    // Now there are a ledger, and P and O in the list.
    assert_eq!(foretold(&moved), (forecast, BTreeSet::new()));
}

#[test]
fn a_copy_by_imap_is_foretold_by_header() {
    let old = OldMaildrop::numbered(Keys::Header);
    let Some(moved) = moved_by(&old, Way::Append) else { return };
    let forecast = comes_true(&moved, &old.uidls);
    assert_eq!((forecast.sign(), forecast.kept), (ForecastSign::Whole, 30));
}

#[test]
fn a_message_that_was_not_copied_is_foretold_missing() {
    let Some((moved, listing)) = with(4) else { return };
    moved.capture(&listing);
    fs::remove_file(&moved.maildir().files()[2]).expect("mail");
    let forecast = comes_true(&moved, &uidl_of(1..=4));
    assert_eq!(forecast.sign(), ForecastSign::Missing);
    assert_eq!(forecast.missing[0].uidl.to_string(), uidl(3));
    assert_eq!(forecast.missing[0].because, MissingBecause::NotCopied);
}

#[test]
fn a_copy_that_has_only_begun_is_foretold_refused() {
    let Some((moved, listing)) = with(5) else { return };
    moved.capture(&listing);
    let files = moved.maildir().files();
    files[..3].iter().for_each(|file| fs::remove_file(file).expect("mail"));
    let (forecast, _) = foretold(&moved);
    assert_eq!((forecast.kept, forecast.is_refused), (2, true));
    assert_eq!(moved.refusal(), LATER);
    moved.gate(&["release", "--unguarded", "--no-check"]);
    let forecast = comes_true(&moved, &uidl_of(1..=5));
    assert_eq!((forecast.kept, forecast.is_refused), (2, false));
}

#[test]
fn new_mail_is_foretold_new_before_and_after_a_first_listing() {
    let Some((moved, listing)) = with(4) else { return };
    moved.capture(&listing);
    moved.maildir().deliver(&Message::plain(5), Naming::Dovecot, 900);
    let forecast = comes_true(&moved, &uidl_of(1..=4));
    assert_eq!((forecast.sign(), forecast.new.len()), (ForecastSign::NewOnly, 1));
    assert!(!forecast.new[0].is_again);

    let late = moved.maildir().deliver(&Message::plain(6), Naming::Dovecot, 901);
    let (forecast, new) = foretold(&moved);
    assert_eq!(new, BTreeSet::from([base(&late).to_owned()]));
    assert_eq!((forecast.kept, forecast.listed), (4, 1));
    let before = moved.uidls();
    assert_eq!(foretold(&moved).1, BTreeSet::new(), "{before:?}");
}

#[test]
fn a_uidl_that_two_messages_share_is_foretold_for_both() {
    let Some((moved, listing)) = with(4) else { return };
    let extra = moved.maildir().deliver(&Message::plain(5), Naming::Qmail, 5);
    moved.capture(&listing.message(&uidl(2), &format!("file={}", base(&extra))));
    let forecast = comes_true(&moved, &uidl_of(1..=4));
    assert_eq!((forecast.sign(), forecast.repeated), (ForecastSign::Whole, 2));
}

#[test]
fn what_was_changed_or_says_too_little_is_foretold_for_another_download() {
    let Some((moved, listing)) = with(4) else { return };
    let (fifth, robot) = (Message::plain(5), Message::of_a_robot("80 % full"));
    let listing = listing.message(&uidl(5), &by_message(&fifth));
    moved.capture(&listing.message(&uidl(6), &by_message(&robot)));
    let changed = with_body(&fifth, "Scanned, and found clean.");
    let wire = [changed.on_the_wire(), robot.on_the_wire()];
    imap::append(moved.dovecot.imap(), USER, wire.iter().map(Vec::as_slice));
    let forecast = comes_true(&moved, &uidl_of(1..=6));
    assert_eq!((forecast.sign(), forecast.again()), (ForecastSign::Changed, 2));
    let because: Vec<MissingBecause> =
        forecast.missing.iter().map(|missing| missing.because).collect();
    assert_eq!(because, [MissingBecause::Changed, MissingBecause::Ambiguous]);
}

#[test]
fn uids_of_a_list_that_travelled_are_taken_from_it() {
    let Some((moved, listing)) = with(4) else { return };
    let (fifth, maildir) = (Message::plain(5), moved.maildir());
    moved.capture(&listing.message(&uidl(5), &format!("uid=5 {}", by_header(&fifth))));
    maildir.write_state("dovecot-uidlist", &uidlist(17, &maildir.files()));
    maildir.deliver(&fifth, Naming::Dovecot, 800);
    let forecast = comes_true(&moved, &uidl_of(1..=5));
    assert_eq!((forecast.sign(), forecast.kept), (ForecastSign::Whole, 5));
}

/// What the helper says of the user, and all that it says on its standard error.
fn told_by_dovecot(moved: &Scenario, more: &[&str]) -> (serde_json::Value, String) {
    let output = moved.dovecot.forecast(&["--json"]).args(more).output().expect("the helper");
    let text = |octets| String::from_utf8(octets).expect("text");
    let (said, stderr) = (text(output.stdout), text(output.stderr));
    let first = said.lines().next().unwrap_or_else(|| panic!("{stderr}"));
    (serde_json::from_str(first).expect("JSON"), stderr)
}

/// Every store of both lines of Dovecot.
fn everywhere() -> impl Iterator<Item = (Line, Config)> {
    let stores = [Store::Maildir, Store::Mdbox, Store::Sdbox];
    let lines = Line::asked().into_iter();
    let configs = stores.map(|store| Config::default().store(store).with_plugin());
    lines.flat_map(move |line| configs.clone().into_iter().map(move |config| (line, config)))
}

#[test]
fn dovecot_is_asked_where_mail_lies_and_reads_what_is_no_maildir() {
    for (line, config) in everywhere() {
        let Some(moved) = Scenario::begin_with(line, config) else { continue };
        let (old, from) = (OldMaildrop::numbered(Keys::Header), format!("{line:?}"));
        old.build_site(&moved.dovecot);
        // Nothing is there yet, and nothing is made by looking.
        let (said, _) = told_by_dovecot(&moved, &[]);
        assert_eq!((&said["sign"], &said["refused"]), (&"-".into(), &true.into()), "{from}");
        assert!(!moved.dovecot.mail(USER).exists(), "{from}");

        let wire: Vec<Vec<u8>> = old.messages().iter().map(Message::on_the_wire).collect();
        imap::append(moved.dovecot.imap(), USER, wire[..20].iter().map(Vec::as_slice));
        let (said, _) = told_by_dovecot(&moved, &[]);
        assert_eq!((&said["sign"], &said["kept"]), (&"-".into(), &20.into()), "{from}: {said}");
        imap::append(moved.dovecot.imap(), USER, wire[20..].iter().map(Vec::as_slice));
        let (said, stderr) = told_by_dovecot(&moved, &[]);
        assert_eq!((&said["sign"], &*stderr), (&"=".into(), ""), "{from}: {said}");
        assert_eq!(said["kept"], 30, "{from}: {said}");
        // The first listing is what was foretold; so is the next, by the ledger.
        assert_eq!(moved.uidls(), old.uidls, "{from}");
        moved.receive(&Message::plain(400));
        let foretold = ForetoldUser::of(&moved.dovecot, USER).expect("he is on the roster");
        assert_eq!((foretold.sign(), foretold.count("new")), ("+", 1), "{from}");
        foretold.comes_true(&moved.dovecot, &moved.dovecot.uidl(USER), true);
        let foretold = ForetoldUser::of(&moved.dovecot, USER).expect("he is on the roster");
        assert_eq!((foretold.count("kept"), foretold.count("listed")), (30, 1), "{from}");
        foretold.comes_true(&moved.dovecot, &moved.dovecot.uidl(USER), true);
    }
}

#[test]
fn a_message_that_dovecot_cannot_read_is_told_from_the_others() {
    let config = Config::default().store(Store::Sdbox).with_plugin();
    let Some(moved) = Scenario::begin_with(Line::subject(), config) else { return };
    let messages: Vec<Message> = (1..=30).map(Message::plain).collect();
    moved.capture(&Listing::of_contents(&messages));
    let wire: Vec<Vec<u8>> = messages.iter().map(Message::on_the_wire).collect();
    imap::append(moved.dovecot.imap(), USER, wire.iter().map(Vec::as_slice));
    let file = moved.dovecot.mail(USER).join("mailboxes/INBOX/dbox-Mails/u.7");
    fs::remove_file(&file).expect("the seventh message");
    fs::create_dir(&file).expect("our directory");
    let (said, _) = told_by_dovecot(&moved, &[]);
    assert_eq!((&said["sign"], &said["unreadable"]), (&"!".into(), &1.into()), "{said}");
    assert_eq!(said["kept"], 29, "{said}");
}

#[test]
fn octets_that_doveadm_does_not_print_are_read_one_by_one() {
    for line in Line::asked() {
        let config = Config::default().store(Store::Mdbox).with_plugin();
        let Some(moved) = Scenario::begin_with(line, config) else { continue };
        // Their texts are no UTF-8.
        let odd = |number: u32| {
            let plain = Message::plain(number).octets;
            Message { octets: [&plain[..], b"\xe9\xe8\n"].concat() }
        };
        let messages: Vec<Message> = [odd(1), Message::plain(2), odd(3)].into();
        moved.capture(&Listing::of_contents(&messages));
        let wire: Vec<Vec<u8>> = messages.iter().map(Message::on_the_wire).collect();
        imap::append(moved.dovecot.imap(), USER, wire.iter().map(Vec::as_slice));
        let foretold = ForetoldUser::of(&moved.dovecot, USER).expect("he is on the roster");
        foretold.comes_true(&moved.dovecot, &moved.dovecot.uidl(USER), true);
        assert_eq!((foretold.sign(), foretold.count("kept")), ("=", 3), "{line:?}");
    }
}

#[test]
fn a_control_directory_elsewhere_is_where_the_list_and_the_ledger_are_read() {
    for store in [Store::Maildir, Store::Mdbox] {
        let word = store.word();
        let at = if store == Store::Maildir { "Maildir" } else { word };
        let (place, places) = (format!("~/{at}"), [("CONTROL", "~/control")]);
        let extra = mail_at(Line::subject(), word, &place, &places);
        let config = Config { extra, ..Config::default() }.store(store).with_plugin();
        let Some(moved) = Scenario::begin_with(Line::subject(), config) else { return };
        let messages: Vec<Message> = (1..=6).map(Message::plain).collect();
        moved.capture(&Listing::of_contents(&messages[..4]));
        let wire: Vec<Vec<u8>> = messages.iter().map(Message::on_the_wire).collect();
        imap::append(moved.dovecot.imap(), USER, wire[..5].iter().map(Vec::as_slice));
        let foretold = ForetoldUser::of(&moved.dovecot, USER).expect("he is on the roster");
        foretold.comes_true(&moved.dovecot, &moved.dovecot.uidl(USER), true);
        assert_eq!((foretold.count("kept"), foretold.count("new")), (4, 1), "{word}");
        imap::append(moved.dovecot.imap(), USER, [&*wire[5]]);
        // Now a ledger tells which of the two is new.
        let (said, _) = told_by_dovecot(&moved, &[]);
        assert_eq!((&said["listed"], &said["new"]), (&1.into(), &1.into()), "{word}: {said}");
        if store == Store::Mdbox {
            continue;
        }
        let homes = moved.dovecot.dir().join("home/{local}@{domain}");
        let homes = moved.dovecot.inside(&homes);
        let pattern = |name: &str| homes.join(name).to_str().expect("UTF-8").to_owned();
        let (mail, control) = (pattern("Maildir"), pattern("control/.INBOX"));
        let by_pattern = ["--maildir", &mail, "--control", &control];
        assert_eq!(told_by_dovecot(&moved, &by_pattern).0, said);
        let (said, _) = told_by_dovecot(&moved, &by_pattern[..2]);
        let why = said["why"].as_str().unwrap_or_else(|| panic!("{said}"));
        assert!(why.contains("say --control"), "{why}");
    }
}

#[test]
fn mail_that_only_dovecot_can_unpack_is_read_by_dovecot() {
    let line = Line::subject();
    let first = match line {
        Line::V23 => loads(line, "zlib") + "plugin {\n  zlib_save = gz\n}\n",
        Line::V24 => loads(line, "mail_compress") + "mail_compress_write_method = gz\n",
    };
    let config = Config { first, ..Config::default() }.with_plugin();
    let Some(moved) = Scenario::begin_with(Line::subject(), config) else { return };
    let old = OldMaildrop::numbered(Keys::Header);
    old.build_site(&moved.dovecot);
    let wire: Vec<Vec<u8>> = old.messages().iter().map(Message::on_the_wire).collect();
    imap::append(moved.dovecot.imap(), USER, wire.iter().map(Vec::as_slice));
    let packed = moved.maildir().files().iter().any(|f| fs::read(f).unwrap().starts_with(b"\x1f"));
    assert!(packed, "it is compressed");
    let (said, _) = told_by_dovecot(&moved, &[]);
    assert_eq!((&said["sign"], &said["kept"]), (&"=".into(), &30.into()), "{said}");
    assert_eq!(moved.uidls(), old.uidls);
}

#[test]
fn nobody_is_told_by_a_ledger_to_which_a_user_has_made_a_link() {
    let Some((moved, listing)) = with(4) else { return };
    moved.capture(&listing);
    let (mail, elsewhere) = (moved.dovecot.mail(USER), moved.dovecot.home(USER).join("elsewhere"));
    fs::rename(&mail, &elsewhere).expect("our directory");
    std::os::unix::fs::symlink("elsewhere", &mail).expect("our directory");
    std::os::unix::fs::lchown(&mail, Some(OWNER), Some(OWNER)).expect("root");
    let (said, _) = told_by_dovecot(&moved, &[]);
    let why = said["why"].as_str().unwrap_or_else(|| panic!("{said}"));
    assert!(why.contains("is a symbolic link, which is not followed"), "{why}");
    assert_eq!(moved.dovecot.uidl(USER), uidl_of(1..=4));
}
