//! An mbox, as each server splits it.

use std::io::Cursor;

use uidl_keep::capture::disk::mbox::server::MboxServer;
use uidl_keep::capture::disk::mbox::split::{MboxMessage, split};
use uidl_keep::capture::keys::Keys;
use uidl_keep::format::UidlFormat;

use super::{check_message, check_uidl, parts};

/// A `pop3_uidl_format`, a NUL, an mbox.
pub fn check(octets: &[u8]) {
    let [format, mbox] = parts(octets);
    let format = std::str::from_utf8(format).ok().and_then(|text| UidlFormat::parse(text).ok());
    let format = format.unwrap_or_else(|| UidlFormat::parse("%v.%u").expect("a format"));
    for server in [
        MboxServer::Dovecot { format },
        MboxServer::Mailutils,
        MboxServer::Qpopper,
        MboxServer::Popa3d,
    ] {
        match split(Cursor::new(mbox), server.rules()) {
            Ok(messages) => check_messages(&server, mbox, &messages),
            Err(error) => check_message(error),
        }
    }
}

fn check_messages(server: &MboxServer, mbox: &[u8], messages: &[MboxMessage]) {
    let lines = mbox.split_inclusive(|&octet| octet == b'\n');
    let from_lines = lines.filter(|line| line.starts_with(b"From ")).count();
    assert!(messages.len() <= from_lines);
    assert!(messages.is_empty() == mbox.is_empty());
    for message in messages {
        assert!(message.fields.len() <= 32);
        assert!(message.fields.iter().all(|(_, value)| value.len() <= 2048));
    }
    if *server == MboxServer::Popa3d && !mbox.is_empty() {
        // One more message follows. It changes none before it except the last, whose header it may
        // end.
        let more = [mbox, b"\n\nFrom next\nSubject: next\n\n"].concat();
        let more = split(Cursor::new(more), server.rules()).expect("it was an mbox before");
        assert_eq!(more.len(), messages.len() + 1);
        let finished = &messages[..messages.len() - 1];
        assert!(more.iter().zip(finished).all(|(more, before)| more == before));
    }
    let keys = Keys { origin: true, ..Keys::default() };
    let draft = match server.draft(messages, keys) {
        Ok(draft) => draft,
        Err(error) => return check_message(error),
    };
    assert!(draft.entries.len() + draft.spent.len() <= messages.len());
    for uidl in draft.entries.iter().map(|entry| &entry.uidl).chain(&draft.spent) {
        check_uidl(uidl.as_bytes());
    }
    let (said, ..) = draft.remarks.into_parts();
    said.iter().for_each(check_message);
    let mut uids = draft.entries.iter().filter_map(|entry| entry.uid);
    assert!(uids.by_ref().try_fold(0, |last, uid| (uid > last).then_some(uid)).is_some());
    if let Some(counter) = draft.counter {
        assert!(draft.entries.iter().filter_map(|entry| entry.uid).all(|uid| uid < counter.next));
    }
}
