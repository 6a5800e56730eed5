//! Maildirs as they should not be: what is foretold of them, and what a real Dovecot then tells.
//!
//! A forecast may say that it cannot tell. It may never say anything that does not come true.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::support::dovecot::{Config, Store};
use crate::support::foretold::ForetoldUser;
use crate::support::host::{Line, unix_mode};
use crate::support::mail::Message;
use crate::support::maildir::{Maildir, Naming, give_to_owner};
use crate::support::scenario::{
    Listing, Scenario, USER, base, by_header, by_message, header_of, uidl, uidlist,
};

/// The GUID of a mailbox, as a list has it.
const GUID: &str = "G0123456789abcdef0123456789abcdef";

/// How the six messages were captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    File,
    Header,
    Message,
}

/// A Maildir with six messages, which `change` then makes odd, and what is foretold of it. What is
/// foretold comes true; a login that is refused was foretold as refused, or not at all.
#[track_caller]
fn odd(line: Line, by: By, change: impl Fn(&Maildir, &[PathBuf])) -> Option<ForetoldUser> {
    let config = Config::default().store(Store::Maildir).with_plugin();
    let moved = Scenario::begin_with(line, config)?;
    let maildir = moved.maildir();
    let messages: Vec<Message> = (1..=6).map(Message::plain).collect();
    let mut listing = Listing::new();
    let mut files = Vec::new();
    for (number, message) in (1..).zip(&messages) {
        let file = maildir.deliver(message, Naming::Qmail, number);
        let keys = match by {
            By::File => format!("file={} {}", base(&file), header_of(message)),
            By::Header => by_header(message),
            By::Message => by_message(message),
        };
        listing = listing.message(&uidl(number), &keys);
        files.push(file);
    }
    moved.capture(&listing);
    change(&maildir, &files);
    let foretold = ForetoldUser::of(&moved.dovecot, USER).expect("he is on the roster");
    let login = moved.dovecot.login(USER).and_then(|mut session| {
        let listing = session.uidl()?;
        session.quit()?;
        Ok(listing)
    });
    match login {
        Ok(listing) if foretold.sign() != "!" => {
            foretold.comes_true(&moved.dovecot, &listing, true);
        }
        Ok(_) => {}
        Err(_) => assert!(foretold.is_refused() || foretold.sign() == "!", "refused"),
    }
    Some(foretold)
}

/// The same on both lines of Dovecot, captured in each way.
#[track_caller]
fn everywhere(change: impl Fn(&Maildir, &[PathBuf])) -> Vec<ForetoldUser> {
    let ways = [By::File, By::Header, By::Message];
    let lines = Line::asked().into_iter();
    lines
        .flat_map(|line| ways.map(|by| (line, by)))
        .filter_map(|(line, by)| odd(line, by, &change))
        .collect()
}

fn rename(file: &PathBuf, name: impl AsRef<[u8]>) -> PathBuf {
    let to = file.with_file_name(OsStr::from_bytes(name.as_ref()));
    fs::rename(file, &to).expect("our Maildir");
    to
}

fn put(maildir: &Maildir, name: &str, octets: &[u8]) -> PathBuf {
    let file = maildir.path().join(name);
    fs::write(&file, octets).expect("our Maildir");
    give_to_owner(&file);
    file
}

#[test]
fn odd_names_are_names() {
    everywhere(|_, files| {
        rename(&files[0], "a b c");
        rename(&files[1], b"latin1 \xe9\xe8:2,S");
        rename(&files[3], "x:1,:2,S");
        rename(&files[4], format!("{}:2,FRS", "n".repeat(200)));
        rename(&files[5], "1714990000");
    });
}

#[test]
fn a_file_without_a_name_is_not_told() {
    let told = everywhere(|_, files| drop(rename(&files[2], ":2,S")));
    assert!(told.iter().all(|told| told.sign() == "!"));
}

#[test]
fn names_that_are_equal_up_to_the_comma_are_told_apart_or_not_at_all() {
    everywhere(|_, files| {
        for (number, file) in files.iter().enumerate() {
            rename(file, format!("1714990000.same,S={},W=1:2,S", 400 + number));
        }
    });
}

#[test]
fn two_files_of_one_base_name_are_told_as_dovecot_does_or_not_at_all() {
    everywhere(|maildir, files| {
        let name = base(&files[0]).to_owned();
        put(maildir, &format!("new/{name}"), &Message::plain(60).octets);
        let name = base(&files[1]).to_owned();
        put(maildir, &format!("cur/{name}:2,T"), &fs::read(&files[1]).expect("mail"));
    });
}

#[test]
fn a_list_of_the_first_version_is_read() {
    everywhere(|maildir, files| {
        let lines: Vec<String> =
            (1..).zip(&files[..4]).map(|(n, f)| format!("{} {}\n", n * 3, base(f))).collect();
        maildir.write_state("dovecot-uidlist", &format!("1 17 40\n{}", lines.concat()));
    });
}

#[test]
fn stored_uidls_and_orders_that_are_none_are_none() {
    everywhere(|maildir, files| {
        let base: Vec<&str> = files.iter().map(|file| base(file)).collect();
        let list = format!(
            "3 V17 N20 G0123456789abcdef0123456789abcdef\n1 P\u{1}x O1 :{}\n2 PUID2-17 Oabc :{}\n\
             3 P O4294967296 :{}\n4 Pcaf\u{e9} O-1 :{}\n5 P{} O0007 :{}\n6 PUID1-17 O3 :{}\n",
            base[0],
            base[1],
            base[2],
            base[3],
            "u".repeat(300),
            base[4],
            base[5],
        );
        maildir.write_state("dovecot-uidlist", &list);
    });
}

#[test]
fn a_list_that_says_other_things_than_the_directory_is_read_as_dovecot_reads_it() {
    // Empty; for files that are gone; with a next UID that was given; with a UID twice; with a name
    // twice; with CR LF; with GUIDs.
    let of = |lines: &str, next: u32| format!("3 V17 N{next} {GUID}\n{lines}");
    type List<'a> = &'a dyn Fn(&[&str]) -> String;
    let lists: [List<'_>; 8] = [
        &|_| String::new(),
        &|_| of("1 :gone\n8 :gone.too\n", 9),
        &|f| of(&format!("1 :{}\n9 :{}\n", f[0], f[1]), 3),
        &|f| of(&format!("1 :{}\n1 :{}\n2 :{}\n", f[0], f[1], f[2]), 9),
        &|f| of(&format!("1 :{}\n2 :{}\n3 :{}\n", f[0], f[0], f[1]), 9),
        &|f| of(&format!("1 :{}\n2 :{}\n", f[0], f[1]), 9).replace('\n', "\r\n"),
        &|f| of(&format!("1 G{} :{}\n2 Gxyz :{}\n", f[3], f[0], f[1]), 9),
        &|f| of(&format!("5 :{}\n3 :{}\n4 :{}\n", f[0], f[1], f[2]), 9),
    ];
    for (number, list) in lists.iter().enumerate() {
        eprintln!("list {number}");
        everywhere(|maildir, files| {
            let base: Vec<&str> = files.iter().map(|file| base(file)).collect();
            maildir.write_state("dovecot-uidlist", &list(&base));
        });
    }
}

#[test]
fn a_list_whose_lines_are_none_is_not_told() {
    for bad in ["no line\n", "0 :x\n", "\n"] {
        let told = everywhere(|maildir, files| {
            let list = uidlist(17, files);
            let (header, lines) = list.split_once('\n').expect("a header");
            maildir.write_state("dovecot-uidlist", &format!("{header}\n{bad}{lines}"));
        });
        assert!(told.iter().all(|told| told.sign() == "!"), "{bad:?}");
    }
}

#[test]
fn what_is_no_message_beside_messages_is_told_as_dovecot_tells_it() {
    everywhere(|maildir, _| {
        put(maildir, "tmp/1714990000.t.h", b"A: b\n\n");
        put(maildir, "cur/.hidden", b"A: b\n\n");
        put(maildir, "cur/1714990999.empty.h:2,", b"");
        put(maildir, "new/1714990998.no.header", b"\n\n\n");
        put(maildir, "new/1714990997.nul:2,S", b"Subject: \0\n\n\0\n");
    });
}

#[test]
fn a_directory_among_messages_is_told_as_dovecot_tells_it() {
    everywhere(|maildir, _| {
        let path = maildir.path().join("cur/1714990996.directory.h:2,S");
        fs::create_dir(&path).expect("our Maildir");
        give_to_owner(&path);
    });
}

#[test]
fn a_message_that_dovecot_may_not_read_is_not_told_by_what_root_reads() {
    everywhere(|_, files| {
        fs::set_permissions(&files[2], unix_mode(0)).expect("root");
        std::os::unix::fs::chown(&files[3], Some(0), Some(0)).expect("root");
        fs::set_permissions(&files[3], unix_mode(0o600)).expect("root");
    });
}

#[test]
fn sizes_in_names_and_in_the_list_count_as_they_do_for_dovecot() {
    everywhere(|_, files| {
        let name = |number: usize, sizes: &str| format!("171499000{number}.size,{sizes}:2,S");
        rename(&files[0], name(0, "S=1"));
        rename(&files[1], name(1, "W=999999"));
        rename(&files[2], name(2, "S=99999,W=1"));
        rename(&files[3], name(3, "W=x,S=y"));
    });
    everywhere(|maildir, files| {
        let base: Vec<&str> = files.iter().map(|file| base(file)).collect();
        let list = format!(
            "3 V17 N9 {GUID}\n1 W999999 :{}\n2 S1 :{}\n3 W1 S99999 :{}\n",
            base[0], base[1], base[2]
        );
        maildir.write_state("dovecot-uidlist", &list);
    });
}

#[test]
fn a_message_that_is_a_link_is_not_told() {
    let told = everywhere(|maildir, files| {
        let elsewhere = maildir.path().join("elsewhere");
        fs::rename(&files[0], &elsewhere).expect("our Maildir");
        std::os::unix::fs::symlink(&elsewhere, &files[0]).expect("our Maildir");
    });
    assert!(told.iter().all(|told| told.sign() == "!"));
}

#[test]
fn a_maildir_of_one_directory_is_told_as_dovecot_tells_it() {
    for (left, other) in [("cur", "new"), ("new", "cur")] {
        everywhere(|maildir, files| {
            for file in files {
                let to = maildir.path().join(left).join(base(file));
                fs::rename(file, to).expect("our Maildir");
            }
            fs::remove_dir(maildir.path().join(other)).expect("it is empty");
        });
    }
}
