//! The block that the findings of an account make: [`block`].
#![forbid(unsafe_code)]

use std::collections::HashSet;

use crate::capture::draft::{Captured, Draft, Remarks};
use crate::capture::keys::Keys;
use crate::capture::pop3::fetch::Wire;
use crate::capture::pop3::findings::{Finding, Findings};
use crate::capture::pop3::listing::Listed;
use crate::capture::pop3::uidl_shape::UidlShape;
use crate::key::Fingerprints;
use crate::maildrop::{Entry, Name};
use crate::text::printable;
use crate::uidl::Uidl;

/// Makes the block of an account. `seen` is every UIDL that was ever listed.
pub(super) fn block(
    findings: &Findings,
    (user, source): (String, String),
    keys: Keys,
    seen: HashSet<Box<[u8]>>,
    mut remarks: Remarks,
) -> Captured {
    let says_little = findings.saying_little();
    let uidls = uidls_of(&findings.listed, &mut remarks);
    let mut spent: Vec<Uidl> = seen.into_iter().filter_map(|uidl| Uidl::new(uidl).ok()).collect();
    spent.sort_unstable();
    let known: Vec<Uidl> = uidls.iter().flatten().chain(&spent).cloned().collect();
    let shape = UidlShape::of(&known);

    let mut draft = Draft { user, source, spent, ..Draft::default() };
    let mut half_known = HalfKnown::default();
    for (at, (listed, uidl)) in findings.listed.iter().zip(uidls).enumerate() {
        let Some(uidl) = uidl else { continue };
        let found = &findings.found[at];
        let wants_message = keys.message || (keys.header && says_little[at] == Some(true));
        let entry = entry(listed, uidl, found, &shape, Keys { message: wants_message, ..keys });
        say_why(listed, &entry, found, &mut remarks);
        let is_known = found.fetched().is_some();
        let is_half_known = is_known && found.whole().is_none();
        match draft.keep(entry) {
            None => half_known.too_little += usize::from(wants_message && is_half_known),
            Some(keyless) if is_half_known => half_known.count_nameless(listed, &keyless),
            Some(keyless) if is_known => draft.keyless.get_or_insert((0, keyless)).0 += 1,
            // Its remark says why nothing is known of it.
            Some(_) => {}
        }
    }
    half_known.say(&mut remarks);
    let UidlShape { uidvalidity, counter, .. } = shape;
    Draft { uidvalidity, counter, remarks, ..draft }.finish()
}

/// The UIDLs that are listed, where they are such.
fn uidls_of(listed: &[Listed], remarks: &mut Remarks) -> Vec<Option<Uidl>> {
    let uidl_of = |listed: &Listed| match Uidl::new(listed.uidl.clone()) {
        Ok(uidl) => Some(uidl),
        Err(bad) => {
            let shown = printable(&listed.uidl);
            remarks.loss(format!("message {}: {bad}: {shown}", listed.number));
            None
        }
    };
    listed.iter().map(uidl_of).collect()
}

/// The entry of one message, with the `keys` that are wanted and known.
fn entry(listed: &Listed, uidl: Uidl, found: &Finding, shape: &UidlShape, keys: Keys) -> Entry {
    let entry = Entry {
        uid: shape.uid_of(&uidl),
        octets: found.whole().and_then(|wire| octets(wire, listed)),
        file: (keys.file && shape.are_file_names).then(|| Name::Spelled(uidl.as_bytes().into())),
        ..Entry::new(uidl)
    };
    let Some(fetched) = found.fetched() else { return entry };
    let message = fetched.of.message.filter(|_| keys.message);
    keys.with_prints(entry, &Fingerprints { message, ..fetched.of })
}

/// Says why a message was not read, or not retrieved.
fn say_why(listed: &Listed, entry: &Entry, found: &Finding, remarks: &mut Remarks) {
    let Listed { number, .. } = listed;
    match found {
        Finding::Unread { ask, why } => {
            let command = ask.command();
            let lacks = if entry.file.is_some() { "it has no fingerprints" } else { NO_KEY };
            remarks.loss(format!("message {number}, {}: {command} {why}; {lacks}", entry.uidl));
        }
        Finding::Fetched { not_retrieved: Some(why), .. } => {
            remarks.note(format!("message {number}, {}: RETR {why}", entry.uidl));
        }
        Finding::Fetched { .. } | Finding::Nothing => {}
    }
}

const NO_KEY: &str = "nothing is known to recognise it by, and it will be downloaded again";

/// The size of a message that was retrieved, where it is as LIST has it: servers list sizes of
/// files, add what they add to the mail, and end the last line where the message does not.
fn octets(wire: Wire, listed: &Listed) -> Option<u64> {
    (wire.octets == listed.octets && !wire.has_cr_cr_lf).then_some(wire.octets)
}

/// Messages that did not come whole, though their header says too little.
#[derive(Default)]
struct HalfKnown {
    /// Those without any key: how many, and the first.
    nameless: Option<(usize, String)>,
    /// Those that another key names.
    too_little: usize,
}

impl HalfKnown {
    fn count_nameless(&mut self, listed: &Listed, uidl: &Uidl) {
        let first = || (0, format!("message {}, {uidl}", listed.number));
        self.nameless.get_or_insert_with(first).0 += 1;
    }

    fn say(self, remarks: &mut Remarks) {
        if let Some((count, first)) = self.nameless {
            remarks.loss(format!(
                "{count} messages have a header that does not name them, and did not come whole \
                 (first: {first}): their unique-ids are spent, and they will be downloaded again, \
                 unless you allow RETR (--retrieve) or capture them on the old server's disk"
            ));
        }
        let too_little = self.too_little;
        if too_little > 0 {
            remarks.note(format!(
                "{too_little} messages did not come whole and have a header that does not tell \
                 them apart, or no end of it: what is known by nothing else there may be \
                 downloaded again"
            ));
        }
    }
}
