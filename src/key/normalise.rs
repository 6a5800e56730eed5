//! Our normaliser makes fingerprints from raw octets: [`Fingerprinter`]. They cover the parts of a
//! message that stay when it moves.
//!
//! Servers change the messages that they hand out: line ends, blanks, 8-bit octets, whole fields.
//! The rules here remove all of these differences and nothing else. So the same message has the
//! same fingerprints on both sides. The rules have a version, [`NORMALISER_VERSION`]. It goes up
//! when one rule changes, because fingerprints made before and after cannot be compared.
//!
//! Most rules come from the experience in Dovecot's pop3-migration plugin
//! (`pop3-migration-plugin.c`, `pop3_header_filter_callback`, and `message-header-hash.c`). The
//! table says where ours are stronger.
//!
//! # The header
//!
//! | octets | rule |
//! |---|---|
//! | CR | dropped everywhere, so a line of CRs alone is empty |
//! | the first empty line | ends the header and is not part of it; so does the end of the octets |
//! | LF within a field | dropped: fields are unfolded (stronger: Dovecot counts it) |
//! | space, tab | dropped everywhere |
//! | control, DEL, 8-bit, `?` | a run becomes one `?`, also across dropped octets (stronger) |
//! | field name | lower case (stronger) |
//! | a line without `:` | ignored: text folded after it belongs to the field before it |
//! | a name that is none (below) | the field is dropped |
//! | the fields of [`FieldKind::Store`] | dropped: see there |
//! | imapsync's `Message-ID` (below) | dropped |
//!
//! A name is none when it has octets up to 0x20 or from 0x7F, when it is empty, or when it has over
//! 256 octets. Blanks between name and `:` do not count. imapsync's `Message-ID` has only a number
//! and `@imapsync`, in brackets or not.
//!
//! The reasons, in the same order:
//!
//! * CR: line ends are CRLF, LF, or Courier's CR CR LF.
//! * The first empty line: TOP, IMAP and files differ in it. Courier's IMAP ends the header at CR
//!   CR LF.
//! * LF: relays and `fetchmail` fold anew.
//! * Space, tab: Zimbra strips them at line ends, and folding adds them. A line that has nothing
//!   else vanishes with them, as it does at Zimbra.
//! * Control, DEL, 8-bit: Dovecot makes NUL 0x80. Zimbra and Yahoo make 8-bit octets `?`; Yahoo
//!   makes one `?` of a UTF-8 sequence.
//! * Field name: no server changes its case. The rule does no harm and removes one worry.
//! * A line without `:`: Zimbra strips it; mbox writes `From ` lines.
//! * A name that is none: Yahoo's IMAP drops such fields. mbox's `From ` and `>From ` lines with a
//!   time in them look like such.
//! * imapsync's `Message-ID`: `imapsync --addheader` puts it into messages that have neither
//!   `Message-ID` nor `Received`.
//!
//! Order and repetition of fields count.
//!
//! # Whether it names its message
//!
//! Devices and scripts send the same few lines again and again, by a local delivery that adds
//! nothing. Two such mails are equal to the last octet. So each header is judged by itself: a later
//! mail can have the same, or not. The normalised header is judged, so equal headers are judged
//! equally.
//!
//! A header names its message when it has one of these:
//!
//! * A dated `Received`: one with a `;`, and a digit behind it. The server that passed the message
//!   on wrote the time in it, to the second, and mostly an id of its own.
//! * Both a `Message-ID` that is not empty and a `Date` with a digit. One alone is not enough:
//!   printers send one constant `Message-ID`, and scripts one `Date` for each run.
//!
//! `origin` has no `Received`, so only the second counts for it.
//!
//! # The body
//!
//! CR is dropped everywhere, and NUL becomes 0x80 as in Dovecot. Line ends at the end of the body
//! do not count: qmail-pop3d sends one more, and others add a missing one. Everything else is kept,
//! 8-bit octets too.
//!
//! When no field of a header is kept, the header is content, except for the fields of
//! [`FieldKind::Store`] and mbox's `From ` lines. It is then the start of the body, up to and with
//! its empty line, which some servers add when it is missing. So text that somebody wrote to a
//! mailbox without any field has a `message` fingerprint too. Only an empty message has none.
#![forbid(unsafe_code)]

use std::sync::LazyLock;

use crate::key::fingerprint::Fingerprint;

/// The version of the rules by which fingerprints are made. Fingerprints of another version name
/// nothing.
pub const NORMALISER_VERSION: u8 = 1;

/// The part of a message that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Depth {
    /// The header only: no `message` fingerprint.
    Header,
    /// The whole message.
    Message,
}

/// The octets that a [`Fingerprinter`] can use next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wants {
    /// More of the message.
    More,
    /// Nothing: the header has ended and the body is not asked for.
    Nothing,
}

/// The fingerprints that a message is recognised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprints {
    /// The fingerprint of the normalised header. `None` when no field of it is left: it would name
    /// every such message.
    pub header: Option<Fingerprint>,
    /// The fingerprint of the normalised header without the fields that relays add
    /// ([`FieldKind::Relay`]). `None` when no field is left.
    pub origin: Option<Fingerprint>,
    /// The fingerprint of the normalised header and body. `None` at [`Depth::Header`], and when
    /// both are empty.
    pub message: Option<Fingerprint>,
    /// The fingerprint of the body alone, also of an empty one. Copies that were delivered anew
    /// have it in common. `None` at [`Depth::Header`].
    pub body: Option<Fingerprint>,
    /// Whether no other message has this header, except copies of this one: it has a dated
    /// `Received`, or a `Message-ID` and a `Date`. When two `header` fingerprints are equal, so is
    /// this.
    pub names_itself: bool,
    /// As `names_itself`, for `origin`: it has a `Message-ID` and a `Date`.
    pub origin_names_itself: bool,
    /// Whether an empty line ended the header. If not, a server may have cut it short (Oracle IMS
    /// does at a line without `:`): ask for the whole message instead.
    pub header_ended: bool,
}

/// The part that a header field plays in a message that moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldKind {
    /// Made before the message first arrived. It is in all fingerprints.
    Author,
    /// Added at each delivery, so fetchmail, getmail or a forward adds more. It is in `header` but
    /// not in `origin`. `DKIM-Signature` and list fields are not among these: the sender adds them.
    Relay,
    /// Written by a message store or a copying program, and absent elsewhere. It is in no
    /// fingerprint.
    Store,
}

impl FieldKind {
    /// The kind of the field called `name`, in any case.
    pub fn of_field(name: &[u8]) -> Self {
        match &name.to_ascii_lowercase()[..] {
            name if is_stores(name) => Self::Store,
            name if is_relays(name) => Self::Relay,
            _ => Self::Author,
        }
    }
}

/// Whether a field is of [`FieldKind::Store`], by its name in lower case. The fields, by the
/// programs that write them:
///
/// * Yahoo: `Return-Path` (its IMAP shows it, its POP3 does not), `X-Yahoo-Newman-Property`.
/// * mboxes: `Content-Length`, `Status`, `X-Status`, `X-Keywords`, `X-UID`, `X-IMAP`, `X-IMAPbase`,
///   `X-UIDL`.
/// * other IMAP servers: `X-Message-Flag`.
/// * isync (mbsync): `X-TUID`, twelve random characters, into each message that it copies.
/// * `imapsync --disarmreadreceipts`: `Disposition-Notification-To`, which it renames to
///   `X-Disposition-Notification-To`.
/// * offlineimap: `X-OfflineIMAP`, when the new server has no UIDPLUS; Gmail's labels as
///   `X-Keywords`.
/// * Thunderbird: `X-Mozilla-Status`, `X-Mozilla-Status2`, `X-Mozilla-Keys`, `X-Account-Key`, in
///   its folders.
///
/// The first three are `hdr_hash_skip_headers` in Dovecot's `pop3-migration-plugin.c`.
fn is_stores(name: &[u8]) -> bool {
    matches!(
        name,
        b"content-length"
            | b"disposition-notification-to"
            | b"return-path"
            | b"status"
            | b"x-account-key"
            | b"x-disposition-notification-to"
            | b"x-imap"
            | b"x-imapbase"
            | b"x-keywords"
            | b"x-message-flag"
            | b"x-mozilla-keys"
            | b"x-mozilla-status"
            | b"x-mozilla-status2"
            | b"x-offlineimap"
            | b"x-status"
            | b"x-tuid"
            | b"x-uid"
            | b"x-uidl"
            | b"x-yahoo-newman-property"
    )
}

/// Whether a field is of [`FieldKind::Relay`], by its name in lower case. The fields, by the
/// programs that add them:
///
/// * every MTA, fetchmail, getmail: `Received` (Gmail `X-Received`), `Received-SPF`,
///   `Authentication-Results`, `ARC-*`.
/// * Postfix, qmail, Dovecot's LDA and LMTP, getmail: `Delivered-To`, `X-Original-To`.
/// * Exim: `Envelope-To`, `Delivery-Date`.
/// * popa3d, qmail's relatives: `X-Delivery-*`.
/// * getmail: `X-getmail-*`.
/// * fetchmail and MDAs: `X-Envelope-To`, `X-Envelope-From`, `X-Fetchmail-Warning`.
/// * SpamAssassin, rspamd, amavis, ClamAV: `X-Spam-*`, `X-Virus-*`.
fn is_relays(name: &[u8]) -> bool {
    let starts: [&[u8]; 5] = [b"arc-", b"x-delivery-", b"x-getmail-", b"x-spam-", b"x-virus-"];
    let is_one = matches!(
        name,
        b"authentication-results"
            | b"delivered-to"
            | b"delivery-date"
            | b"envelope-to"
            | b"received"
            | b"received-spf"
            | b"x-envelope-from"
            | b"x-envelope-to"
            | b"x-fetchmail-warning"
            | b"x-original-to"
            | b"x-received"
    );
    is_one || starts.iter().any(|start| name.starts_with(start))
}

/// The longest field name that we look at, in octets. RFC 5322 allows a line of 998; no name seen
/// is longer than 60.
const NAME_OCTETS: usize = 256;

/// Fields up to this size, in octets, stay in their run until they end. Then they are looked at as
/// a whole.
const WHOLE_OCTETS: usize = 64;

/// So many octets of a value are looked at together.
const WORD_OCTETS: usize = 8;

/// Runs begin with room for so many octets: most headers need no more.
const ROOM_OCTETS: usize = 4096;

/// Normalised octets are hashed in runs of this size: enough for BLAKE3 to use the whole width of
/// the processor.
const RUN_OCTETS: usize = 16_384;

/// Makes the fingerprints of one message from its raw octets, in slices of any size.
/// Memory is bounded (a few times 16 KiB), whatever the header holds. Small messages use 4 KiB for
/// each fingerprint. Cost: one pass, with BLAKE3 in runs.
pub struct Fingerprinter {
    depth: Depth,
    makes_origin: bool,
    at: At,
    /// The octets of the line's name that are left after the rules.
    name: Vec<u8>,
    /// Whether the name has an octet that no name has, or is too long.
    name_spoilt: bool,
    field: Field,
    /// The field's part in whether the header names itself.
    sign: Sign,
    signs: Signs,
    /// `has_field` and `signs` as they were before the field.
    before: (bool, Signs),
    /// Whether the last octet kept of the field is a `?`.
    question: bool,
    /// Whether a field was kept.
    has_field: bool,
    /// The start of a line in a header without a field, unchanged. It is content, unless it turns
    /// out to be a field of a store.
    line: Vec<u8>,
    header: HashRun,
    origin: HashRun,
    body: HashRun,
    /// Line ends seen in the body and not hashed yet, because they may be its last.
    line_ends: u64,
}

/// The part of a message that the next octet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    LineStart,
    /// In a text that is a field name if a `:` comes before the line ends.
    Name,
    Value,
    Body,
    /// Behind the header, when the body is not asked for.
    End,
}

/// The treatment of the value that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    /// A value of a store's field.
    Dropped,
    /// Not a field's value: dropped, but content of a header that has no field.
    Content,
    /// In `header`, and also in `origin` when that says so.
    Kept {
        origin: bool,
        /// The start in the header's run of the octets that are new for `origin`.
        start: usize,
        /// Whether all of it is in the header's run.
        is_whole: bool,
    },
}

/// A field's part in whether its header names itself, and what was seen of the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// No part, or its part is decided.
    Nothing,
    Received,
    /// A `Received` behind a `;`.
    ReceivedAt,
    MessageId,
    Date,
}

/// The things in a header that name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Signs {
    received: bool,
    message_id: bool,
    date: bool,
}

/// A hasher, and the octets that it gets next.
struct HashRun {
    key: Key,
    /// It is large, and made when it gets its first octets: most messages have few runs.
    hasher: Option<Box<blake3::Hasher>>,
    octets: Vec<u8>,
    is_empty: bool,
}

/// A hasher that has seen nothing but its key.
type Key = &'static LazyLock<blake3::Hasher>;

// The context of each key keeps the kinds apart, and the versions too.
static HEADER: LazyLock<blake3::Hasher> =
    LazyLock::new(|| blake3::Hasher::new_derive_key("uidl-keep header fingerprint 1"));
static ORIGIN: LazyLock<blake3::Hasher> =
    LazyLock::new(|| blake3::Hasher::new_derive_key("uidl-keep origin fingerprint 1"));
static MESSAGE: LazyLock<blake3::Hasher> =
    LazyLock::new(|| blake3::Hasher::new_derive_key("uidl-keep message fingerprint 1"));
static BODY: LazyLock<blake3::Hasher> =
    LazyLock::new(|| blake3::Hasher::new_derive_key("uidl-keep body fingerprint 1"));

impl HashRun {
    fn new(key: Key) -> Self {
        Self { key, hasher: None, octets: Vec::new(), is_empty: true }
    }

    fn hash(&mut self) {
        if self.octets.is_empty() {
            return;
        }
        self.is_empty = false;
        hasher_of(self.key, &mut self.hasher).update(&self.octets);
        self.octets.clear();
    }

    /// `None` when there was nothing to hash.
    fn finish(&mut self) -> Option<blake3::Hash> {
        self.hash();
        (!self.is_empty).then(|| self.hash_of_all())
    }

    /// The hash of what was hashed so far, and be it nothing.
    fn hash_of_all(&self) -> blake3::Hash {
        self.hasher.as_ref().map_or_else(|| self.key.finalize(), |hasher| hasher.finalize())
    }
}

/// The hasher of a run, which is made now if it was not.
fn hasher_of(key: Key, hasher: &mut Option<Box<blake3::Hasher>>) -> &mut blake3::Hasher {
    hasher.get_or_insert_with(|| Box::new(blake3::Hasher::clone(key)))
}

impl Sign {
    /// The sign of the field called `name`, in lower case.
    fn of_field(name: &[u8]) -> Self {
        match name {
            b"received" => Self::Received,
            b"message-id" => Self::MessageId,
            b"date" => Self::Date,
            _ => Self::Nothing,
        }
    }
}

impl Signs {
    /// Takes the kept octets of a field's value. Returns the part that the rest of the value can
    /// still play.
    fn take(&mut self, sign: Sign, kept: &[u8]) -> Sign {
        let has_digit = |octets: &[u8]| octets.iter().any(u8::is_ascii_digit);
        let dated = match sign {
            Sign::Nothing => return Sign::Nothing,
            Sign::MessageId => {
                self.message_id |= !kept.is_empty();
                return if self.message_id { Sign::Nothing } else { sign };
            }
            Sign::Date => {
                self.date |= has_digit(kept);
                return if self.date { Sign::Nothing } else { sign };
            }
            Sign::Received => match memchr::memchr(b';', kept) {
                None => return sign,
                Some(at) => &kept[at..],
            },
            Sign::ReceivedAt => kept,
        };
        self.received |= has_digit(dated);
        if self.received { Sign::Nothing } else { Sign::ReceivedAt }
    }
}

/// Whether this is the field that `imapsync --addheader` puts in front of a message that has
/// neither `Message-Id` nor `Received`: `Message-Id: <17@imapsync>`, with the message's UID on the
/// old server, in older versions without brackets.
fn is_imapsyncs(field: &[u8]) -> bool {
    let Some(id) = field.strip_prefix(b"message-id:") else { return false };
    let bare = id.strip_prefix(b"<").and_then(|id| id.strip_suffix(b">")).unwrap_or(id);
    let number = bare.strip_suffix(b"@imapsync");
    number.is_some_and(|number| number.len() <= 10 && number.iter().all(u8::is_ascii_digit))
}

fn cut(hash: &blake3::Hash) -> Fingerprint {
    let mut cut = [0; Fingerprint::OCTETS];
    cut.copy_from_slice(&hash.as_bytes()[..Fingerprint::OCTETS]);
    Fingerprint(cut)
}

/// The normalised form of an octet of a value.
const fn kept_as(octet: u8) -> u8 {
    match octet {
        b' ' | b'\t' | b'\r' => DROPPED,
        b'\n' => LINE_END,
        b'?' | 0x00..=0x1F | 0x7F.. => b'?',
        _ => octet,
    }
}

/// How many octets of the word, from its first on, are kept as they are: the others are what
/// [`kept_as`] changes, and `?`.
const fn plain_octets(word: [u8; WORD_OCTETS]) -> usize {
    const EACH: u64 = u64::MAX / 0xFF;
    const HIGH: u64 = 0x80 * EACH;
    let word = u64::from_le_bytes(word);
    // The high bit of each octet is set where that is in order. No octet takes from its neighbour.
    let above_space = (word | HIGH) - (b' ' as u64 + 1) * EACH;
    let no_question = (word ^ (b'?' as u64 * EACH) | HIGH) - EACH;
    // And here where it is not.
    let is_del = (word & !HIGH) + EACH;
    let changes = (word | is_del | !above_space | !no_question) & HIGH;
    changes.trailing_zeros() as usize / 8
}

const DROPPED: u8 = 0;
const LINE_END: u8 = 1;

/// [`kept_as`] of every octet.
const KEPT_AS: [u8; 256] = {
    let mut table = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        table[octet] = kept_as(octet as u8);
        octet += 1;
    }
    table
};

impl Fingerprinter {
    /// A fingerprinter that has seen nothing yet.
    pub fn new(depth: Depth) -> Self {
        Self {
            depth,
            makes_origin: true,
            at: At::LineStart,
            name: Vec::new(),
            name_spoilt: false,
            field: Field::Content,
            sign: Sign::Nothing,
            signs: Signs::default(),
            before: (false, Signs::default()),
            question: false,
            has_field: false,
            line: Vec::new(),
            header: HashRun::new(&HEADER),
            origin: HashRun::new(&ORIGIN),
            body: HashRun::new(&BODY),
            line_ends: 0,
        }
    }

    /// Leaves the [`Fingerprints::origin`] out. That spares half of the hashing of a header.
    pub fn without_origin(self) -> Self {
        Self { makes_origin: false, ..self }
    }

    /// Takes the next octets of the message, and says whether more can be used.
    pub fn update(&mut self, octets: &[u8]) -> Wants {
        let mut rest = octets;
        while !rest.is_empty() {
            rest = match self.at {
                At::LineStart => self.line_start(rest),
                At::Name => self.name(rest),
                At::Value => self.value(rest),
                At::Body => {
                    self.take_body(rest);
                    &[]
                }
                At::End => &[],
            };
        }
        if self.at == At::End { Wants::Nothing } else { Wants::More }
    }

    /// The fingerprints of the octets that were given.
    pub fn finish(mut self) -> Fingerprints {
        let header_ended = matches!(self.at, At::Body | At::End);
        if !header_ended {
            if self.at == At::Name {
                self.line_is_no_field();
            }
            self.close_field();
        }
        let (header, origin) = (self.header.finish(), self.origin.finish());
        let (mut message, mut body) = (None, None);
        if self.depth == Depth::Message {
            self.hash_body();
            let hash = self.body.hash_of_all();
            body = Some(cut(&hash));
            if header.is_some() || !self.body.is_empty {
                // The digests of header and body are combined, so that both are hashed once.
                let mut both = MESSAGE.clone();
                both.update(header.as_ref().map_or(&[][..], |header| header.as_bytes()));
                both.update(hash.as_bytes());
                message = Some(cut(&both.finalize()));
            }
        }
        let (header, origin) = (header.as_ref().map(cut), origin.as_ref().map(cut));
        let Signs { received, message_id, date } = self.signs;
        let origin_names_itself = message_id && date;
        let names_itself = received || origin_names_itself;
        Fingerprints {
            header,
            origin,
            message,
            body,
            names_itself,
            origin_names_itself,
            header_ended,
        }
    }

    fn line_start<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        match rest[0] {
            b'\r' => {}
            b'\n' => {
                self.close_field();
                if self.has_content() {
                    self.take_body(b"\n");
                }
                self.at = if self.depth == Depth::Header { At::End } else { At::Body };
            }
            // A folded line is more of the field before it, whether that was kept or not.
            b' ' | b'\t' => {
                self.at = At::Value;
                return rest;
            }
            _ => {
                self.drop_imapsyncs();
                self.name.clear();
                self.line.clear();
                self.name_spoilt = false;
                self.at = At::Name;
                return rest;
            }
        }
        &rest[1..]
    }

    fn name<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let end = memchr::memchr2(b':', b'\n', rest).unwrap_or(rest.len());
        let text = &rest[..end];
        let is_new = self.name.is_empty() && !self.name_spoilt;
        if is_new && text.len() <= NAME_OCTETS && text.iter().all(u8::is_ascii_graphic) {
            self.name.extend_from_slice(text);
        } else {
            self.take_name(text);
        }
        let line = &rest[..rest.len().min(end + 1)];
        self.take_line(line);
        match rest.get(end) {
            None => return &[],
            Some(b':') => {
                self.start_field();
                self.at = At::Value;
            }
            // A line without a name is ignored in a header that has fields.
            Some(_) => {
                self.line_is_no_field();
                self.at = At::LineStart;
            }
        }
        &rest[end + 1..]
    }

    /// Takes more of a name that may have blanks in it, or octets that no name has.
    fn take_name(&mut self, text: &[u8]) {
        for &octet in text.iter().filter(|&&octet| octet != b'\r') {
            let after_blank = matches!(self.name.last(), Some(b' ' | b'\t'));
            match octet {
                b' ' | b'\t' if after_blank => {}
                b' ' | b'\t' | 0x21..=0x7E if self.name.len() < NAME_OCTETS => {
                    self.name_spoilt |= after_blank;
                    self.name.push(octet);
                }
                _ => self.name_spoilt = true,
            }
            if self.name_spoilt {
                break;
            }
        }
    }

    /// Whether text that is no field is content so far.
    fn may_be_content(&self) -> bool {
        !self.has_field && self.depth == Depth::Message
    }

    /// Whether a header without a field had content so far.
    fn has_content(&self) -> bool {
        let is_empty = self.body.is_empty && self.body.octets.is_empty();
        !self.has_field && !is_empty
    }

    /// Takes more of the start of a line whose kind is not known yet.
    fn take_line(&mut self, octets: &[u8]) {
        if !self.may_be_content() {
            return;
        }
        for (at, &octet) in octets.iter().enumerate().filter(|&(_, &octet)| octet != b'\r') {
            // No field of a store has so long a name: the octets that follow need not wait.
            if self.line_was_taken() {
                self.take_body(&octets[at..]);
                break;
            }
            self.line.push(octet);
            if self.line_was_taken() {
                self.line_to_body();
            }
        }
    }

    fn line_was_taken(&self) -> bool {
        self.line.len() > NAME_OCTETS
    }

    fn line_to_body(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.take_body(&line);
        self.line = line;
    }

    /// The line that [`Fingerprinter::take_line`] took is no field. It is content, unless it is
    /// mbox's.
    fn line_is_no_field(&mut self) {
        if !self.may_be_content() {
            return;
        }
        let is_mboxs = self.line.starts_with(b"From ") || self.line.starts_with(b">From ");
        self.field = Field::Content;
        if is_mboxs && !self.line_was_taken() {
            self.field = Field::Dropped;
        } else if !self.line_was_taken() {
            self.line_to_body();
        }
    }

    fn start_field(&mut self) {
        self.close_field();
        while matches!(self.name.last(), Some(b' ' | b'\t')) {
            self.name.pop();
        }
        if self.name_spoilt || self.name.is_empty() {
            self.line_is_no_field();
            return;
        }
        self.name.make_ascii_lowercase();
        if is_stores(&self.name) {
            let was_taken = self.may_be_content() && self.line_was_taken();
            self.field = if was_taken { Field::Content } else { Field::Dropped };
            return;
        }
        if self.header.octets.len() >= RUN_OCTETS {
            self.header.hash();
        }
        if self.has_content() {
            self.body = HashRun::new(&BODY);
            self.line_ends = 0;
        }
        let start = self.header.octets.len();
        self.before = (self.has_field, self.signs);
        self.has_field = true;
        let origin = self.makes_origin && !is_relays(&self.name);
        self.field = Field::Kept { origin, start, is_whole: true };
        self.sign = match Sign::of_field(&self.name) {
            Sign::Received if self.signs.received => Sign::Nothing,
            sign => sign,
        };
        if self.header.octets.capacity() == 0 {
            self.header.octets.reserve(ROOM_OCTETS);
        }
        self.header.octets.extend_from_slice(&self.name);
        self.header.octets.push(b':');
        self.question = false;
    }

    fn close_field(&mut self) {
        self.drop_imapsyncs();
        if let Field::Kept { .. } = self.field {
            self.header.octets.push(b'\n');
            self.share_with_origin();
        }
        self.field = Field::Content;
    }

    /// Takes the field back if imapsync added it.
    fn drop_imapsyncs(&mut self) {
        if let Field::Kept { start, is_whole: true, .. } = self.field {
            if is_imapsyncs(&self.header.octets[start..]) {
                self.header.octets.truncate(start);
                (self.has_field, self.signs) = self.before;
                self.field = Field::Content;
            }
        }
    }

    /// Copies the new octets of the field to the run of `origin`, if it belongs there.
    fn share_with_origin(&mut self) {
        if let Field::Kept { origin: true, start, .. } = &mut self.field {
            if self.origin.octets.capacity() == 0 {
                self.origin.octets.reserve(ROOM_OCTETS);
            }
            self.origin.octets.extend_from_slice(&self.header.octets[*start..]);
            *start = self.header.octets.len();
            if self.origin.octets.len() >= RUN_OCTETS {
                self.origin.hash();
            }
        }
    }

    fn value<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        if !matches!(self.field, Field::Kept { .. }) {
            let end = memchr::memchr(b'\n', rest);
            let line = &rest[..end.map_or(rest.len(), |end| end + 1)];
            if self.field == Field::Content && self.may_be_content() {
                self.take_body(line);
            }
            if end.is_some() {
                self.at = At::LineStart;
            }
            return &rest[line.len()..];
        }
        let piece = &rest[..rest.len().min(RUN_OCTETS)];
        let from = self.header.octets.len();
        let taken = self.keep(piece);
        if self.sign != Sign::Nothing {
            self.sign = self.signs.take(self.sign, &self.header.octets[from..]);
        }
        if self.header.octets.len() >= RUN_OCTETS && self.is_long() {
            self.share_with_origin();
            self.header.hash();
            if let Field::Kept { start, is_whole, .. } = &mut self.field {
                (*start, *is_whole) = (0, false);
            }
        }
        &rest[taken..]
    }

    /// Takes octets of a kept field's value, up to the end of the line. Returns how many they are.
    fn keep(&mut self, piece: &[u8]) -> usize {
        let kept = &mut self.header.octets;
        let (mut rest, mut question) = (piece, self.question);
        while !rest.is_empty() {
            let word = rest.first_chunk().copied().unwrap_or_else(|| {
                let mut last = [b' '; WORD_OCTETS];
                last[..rest.len()].copy_from_slice(rest);
                last
            });
            let plain = plain_octets(word);
            // The whole word is copied, for a copy of a fixed size costs the least.
            let len = kept.len() + plain;
            kept.extend_from_slice(&word);
            kept.truncate(len);
            question &= plain == 0;
            rest = &rest[plain..];
            if plain == WORD_OCTETS || rest.is_empty() {
                continue;
            }
            let octet = rest[0];
            rest = &rest[1..];
            match KEPT_AS[usize::from(octet)] {
                LINE_END => {
                    self.at = At::LineStart;
                    break;
                }
                b'?' if !question => {
                    kept.push(b'?');
                    question = true;
                }
                _ => {}
            }
        }
        self.question = question;
        piece.len() - rest.len()
    }

    /// Whether the field is longer than any that is looked at as a whole.
    fn is_long(&self) -> bool {
        match self.field {
            Field::Kept { start, is_whole: true, .. } => {
                self.header.octets.len() - start > WHOLE_OCTETS
            }
            _ => true,
        }
    }

    fn take_body(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() {
            let end = memchr::memchr2(b'\r', 0, rest).unwrap_or(rest.len());
            for piece in rest[..end].chunks(RUN_OCTETS) {
                self.body.octets.extend_from_slice(piece);
                if self.body.octets.len() >= RUN_OCTETS {
                    self.hash_body();
                }
            }
            if rest.get(end) == Some(&0) {
                self.body.octets.push(0x80);
            }
            rest = rest.get(end + 1..).unwrap_or_default();
        }
    }

    /// Hashes the body's run, except for the line ends at its end.
    fn hash_body(&mut self) {
        const LINE_ENDS: [u8; 256] = [b'\n'; 256];
        let run = &self.body.octets;
        let kept = run.iter().rposition(|&octet| octet != b'\n').map_or(0, |last| last + 1);
        if kept > 0 {
            let hasher = hasher_of(self.body.key, &mut self.body.hasher);
            while self.line_ends > 0 {
                let now = self.line_ends.min(LINE_ENDS.len() as u64);
                hasher.update(&LINE_ENDS[..now as usize]);
                self.line_ends -= now;
            }
            hasher.update(&run[..kept]);
            self.body.is_empty = false;
        }
        self.line_ends += (run.len() - kept) as u64;
        self.body.octets.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(message: &[u8]) -> Fingerprints {
        let mut fingerprinter = Fingerprinter::new(Depth::Message);
        assert_eq!(fingerprinter.update(message), Wants::More);
        fingerprinter.finish()
    }

    fn header_of(message: &str) -> Option<Fingerprint> {
        of(message.as_bytes()).header
    }

    /// The headers of a group are one header to us, and no two groups are.
    #[test]
    fn headers_that_servers_change_keep_their_fingerprint() {
        let long_name = format!("a: b\n{}: x\n", "n".repeat(NAME_OCTETS + 1));
        let long_line = format!("a: b\n{}\n", "n".repeat(5000));
        let groups: [&[&str]; 24] = [
            // These are Dovecot's own vectors (test-pop3-migration-plugin.c), group H1. We are
            // stronger: the empty line that ends a header is no part of it, so "a: b\r\n\r\n" is in
            // the group.
            &[
                "a: b\r\n",
                "a: b \r\n",
                "a: b  \r\n",
                "a: b     \r\n",
                "a: b\t\t\t\t\r\n",
                "a: b\r\n\r\n",
                "a: b\r\n\r\r\n",
                "a: b\r\n\r\r\nc: d\r\n\r\n",
                "a: b\r\n \r\n",
                "a: b\r\n  \r\n",
                "a: b\r\n\t\r\n",
                "a: b\nfoo\n",
                // LF, no line end at all, Courier's CR CR LF, a lone CR.
                "a: b\n",
                "a: b",
                "a: b\r\r\n\r\r\nbody",
                "a: \rb\n",
                // Folded at the start, and with nothing but blanks.
                "a:\n b\n",
                "a: b\n \n\t\n \r\n\nbody",
                // The name: case, blanks before the colon.
                "A: b\n",
                "a : b\n",
                "a \t : b\n",
                // mbox, quoted mbox, a folded line before any field, lines without a colon.
                "From x@y Sat Jan  3 01:05:34 1996\na: b\n",
                ">From x@y Sat Jan  3 01:05:34 1996\na: b\n",
                "From x@y\na: b\n",
                " x: y\na: b\n",
                "\u{e9}\na: b\n",
                &long_line,
                // Names that are none, with lines folded after them.
                "a: b\nc d: e\n f\n",
                "a: b\nc\u{e9}: e\n",
                "a: b\nc\0: e\n",
                "a: b\nc\x7f: e\n",
                "a: b\n: e\n",
                &long_name,
                // Fields that stores write.
                "Content-Length: 7\nReturn-Path: <a@b>\nStatus: RO\nX-IMAP: 1\n\
                 X-IMAPbase: 1 2\na: b\n",
                "a: b\nX-Keywords: x\nX-Message-Flag: x\nX-Status: A\nX-UID: 7\n\
                 X-UIDL: x\n\tfolded\n",
                "X-Yahoo-Newman-Property: x\na: b\nSTATUS : O\n",
                // Fields that copying programs write.
                "a: b\nX-TUID: AbCdEf123456\nX-OfflineIMAP: x-1-2-3\n",
                "X-Account-Key: a\nX-Mozilla-Keys:  \na: b\nX-Mozilla-Status: 1\n\
                 X-Mozilla-Status2: 0\n",
                "Message-Id: <4711@imapsync>\r\na: b",
                "Message-Id: 4711@imapsync\na: b\nX-Disposition-Notification-To: c\n",
                "a: b\nDisposition-Notification-To: c\nmessage-id:1\n 2@imap\r\n sync\n",
            ],
            // H2.
            &["a: b\nc: d\n", "a:b\nc:d\n", "a: b\nfoo\nc: d\n"],
            &["c: d\na: b\n"],
            &["a: b\na: b\n"],
            &["a: \r\n", "a:\n\n", "a:\n \n"],
            // We are stronger than Dovecot: folding does not count. A line folded after a line
            // without a colon belongs to the field before, as if the server had stripped that line.
            &["a: bc\n", "a: b c\n", "a: b\n c\n", "a: b\r\n\tc\r\n", "a: b\nfoo\n c\n"],
            // Dovecot's NUL, Zimbra's and Yahoo's 8-bit; the blank between does not count.
            &[
                "a: b?\n",
                "a: b??\n",
                "a: b\0\n",
                "a: b\u{80}\n",
                "a: b\u{e9}\u{20ac}\n",
                "a: b\x01\x1f\x7f\n",
                "a: b? ?\n",
                "a: b\u{e9}\n \u{e9}\n",
            ],
            &["a: ?b\n"],
            &["a: b?c\n", "a: b\u{e9}c\n"],
            &["a: b?c?\n"],
            // A field's name and value are told apart, and so are two fields.
            &["a: b:c\n", "a: b\n :c\n"],
            &["ab: c\n"],
            &["a: bb: c\n"],
            &["x-uidls: b\n"],
            &["statu: b\n"],
            &["a: B\n"],
            &["a: b\nReceived: x\n"],
            &["a: bc:d\n"],
            // A run of `?` ends with its field.
            &["a: b?\nc: ?d\n", "a: b\u{e9}\nc: \u{e9}d\n"],
            &["a: b?\nc: d\n"],
            // Nearly the fields that copying programs write.
            &["Message-Id: <1@imapsync\na: b\n"],
            &["Message-Id: <1@imapsync.example>\na: b\n"],
            &["Message-Id: 12345678901@imapsync\na: b\n"],
            &["X-TUIDs: AbCdEf123456\na: b\n"],
        ];
        let mut seen = std::collections::HashMap::new();
        for (number, group) in groups.iter().enumerate() {
            for header in *group {
                let fingerprint = header_of(header).unwrap_or_else(|| panic!("{header:?}"));
                let first = *seen.entry(fingerprint).or_insert(number);
                assert_eq!(first, number, "{header:?}");
                assert_eq!(header_of(group[0]), Some(fingerprint), "{header:?}");
            }
        }
    }

    #[test]
    fn a_header_without_a_field_names_nothing() {
        for message in ["", "\n", "\r\n", "\r\r\n\n", "Status: R\n\n\r\n", "Status: R", "From a\n"]
        {
            let nothing = of(message.as_bytes());
            assert_eq!(
                (nothing.header, nothing.origin, nothing.message),
                (None, None, None),
                "{message:?}"
            );
        }
        let body = of(b"\nbody");
        assert_eq!((body.header, body.origin), (None, None));
        assert!(body.message.is_some());
        let relayed = of(b"Received: x\nDelivered-To: y\n\n");
        assert!(relayed.header.is_some() && relayed.message.is_some());
        assert_eq!(relayed.origin, None);
    }

    #[test]
    fn origin_is_what_the_sender_made() {
        let sent = of(b"Subject: s\nDKIM-Signature: d\nList-Id: l\n\nbody");
        let redelivered = of(b"Return-Path: <a@b>\nDelivered-To: a\n\
            Received: from x\n\tby y\nx-original-to: a\nEnvelope-To: a\nDelivery-Date: d\n\
            X-Delivery-ID: 7\nAuthentication-Results: r\nARC-Seal: a\nReceived-SPF: pass\n\
            X-Spam-Status: No\nX-Virus-Scanned: y\nX-getmail-retrieved-from-mailbox: INBOX\n\
            X-Envelope-From: a\nX-Envelope-To: a\nX-Received: r\n\
            Subject: s\nDKIM-Signature: d\nList-Id: l\n\nbody");
        assert_eq!(sent.origin, redelivered.origin);
        assert_ne!(sent.header, redelivered.header);
        assert_ne!(sent.message, redelivered.message);
        for other in
            ["Subject: s\nList-Id: l\n\n", "Subject: s\nDKIM-Signature: d\n\n", "x-arc: s\n\n"]
        {
            assert_ne!(of(other.as_bytes()).origin, sent.origin, "{other:?}");
        }
    }

    #[test]
    fn the_kinds_are_kept_apart() {
        let Fingerprints { header, origin, message, body, .. } = of(b"a: b\n\n");
        let kinds = [header, origin, message, body].map(Option::unwrap);
        let several: std::collections::HashSet<_> = kinds.into_iter().collect();
        assert_eq!(several.len(), 4);
    }

    /// The messages of a group are one message to us, and no two groups are. None has a header.
    #[test]
    fn a_header_without_a_field_is_content() {
        let long = "n".repeat(NAME_OCTETS + 1);
        let (long_line, long_stores) =
            (format!("{long}\nx"), format!("Status{}: R", " ".repeat(300)));
        let huge = "y".repeat(3 * RUN_OCTETS);
        let (huge_line, huge_other) = (format!("{huge}\n"), format!("{huge}z\n"));
        let groups: [&[&str]; 14] = [
            // With an empty line, as servers add one, and without.
            &[
                "foo",
                "foo\n",
                "foo\r\n\r\n",
                "\nfoo",
                "Status: R\nfoo\nX-UID: 7\n 8\n",
                "fo\ro\n\n\n",
            ],
            &["foo\nbar", "foo\r\nbar\r\n\r\n", "foo\nX-TUID: 1234\nbar"],
            &["foo\n bar", "Status: R\nfoo\n bar"],
            &["foo\n\nbar", "Status: O\nfoo\n\nbar\n"],
            &["baz\n\nbar"],
            &[" a: b\n", " a: b\nStatus: R\n"],
            &["Dear Bob: hello\n"],
            &["Dear Bob: hello!\n"],
            &[": x\n", "From a@b Sat Jan  3 01:05:34 1996\n: x\n", ">From a\n: x\n"],
            &["caf\u{e9}: x"],
            &[&long_line, &format!("{long}\r\nx\n")],
            &[&long_stores],
            &[&huge_line],
            &[&huge_other],
        ];
        let mut seen = std::collections::HashMap::new();
        for (number, group) in groups.iter().enumerate() {
            for message in *group {
                let found = of(message.as_bytes());
                assert_eq!((found.header, found.names_itself), (None, false), "{message:.40}");
                let message_of = found.message.unwrap_or_else(|| panic!("{message:.40}"));
                assert_eq!(*seen.entry(message_of).or_insert(number), number, "{message:.40}");
                assert_eq!(of(group[0].as_bytes()).message, Some(message_of), "{message:.40}");
            }
        }
        // When a field is there, text that is no field is ignored.
        for message in ["foo\na: b\n\nx", "a: b\nfoo\n\nx", &format!("{huge}\n{long}\na: b\n\nx")] {
            assert_eq!(of(message.as_bytes()), of(b"a: b\n\nx"), "{message:.40}");
        }
        // The field that imapsync puts in front changes nothing.
        assert_eq!(of(b"Message-Id: <7@imapsync>\r\nfoo\r\nbar"), of(b"foo\r\nbar"));
    }

    /// Runs are hashed when they are full. A field that is taken back must not be in one by then.
    #[test]
    fn what_is_taken_back_leaves_nothing_wherever_a_run_ends() {
        for len in RUN_OCTETS - 40..RUN_OCTETS + 3 {
            let filler = "y".repeat(len);
            let with = format!("x:{filler}\nMessage-Id: <7@imapsync>\nz: w\n\nbody");
            let without = format!("x:{filler}\nz: w\n\nbody");
            let mut by_octet = Fingerprinter::new(Depth::Message);
            with.as_bytes().chunks(1).for_each(|octet| {
                by_octet.update(octet);
            });
            assert_eq!(by_octet.finish(), of(without.as_bytes()), "{len}");
            assert_eq!(of(with.as_bytes()), of(without.as_bytes()), "{len}");
            // These are no field, until one comes.
            let content = format!("{filler}\na: b\n\nx");
            assert_eq!(of(content.as_bytes()), of(b"a: b\n\nx"), "{len}");
        }
    }

    #[test]
    fn copies_delivered_anew_have_a_body_in_common() {
        let body = |message: &str| of(message.as_bytes()).body.unwrap();
        assert_eq!(body("a: b\n\nx\n"), body("Received: y\nc: d\n\nx"));
        assert_ne!(body("a: b\n\nx\n"), body("a: b\n\ny\n"));
        assert_eq!(body("a: b\n\n"), body("c: d"));
        assert_eq!(body(""), body("\n\n"));
    }

    #[test]
    fn a_header_names_itself_by_what_no_other_message_has() {
        let names = |header: &str| {
            let found = of(format!("{header}\n\nbody").as_bytes());
            (found.names_itself, found.origin_names_itself)
        };
        let (neither, header, both) = ((false, false), (true, false), (true, true));
        for (text, named) in [
            ("From: a\nSubject: 80 % full", neither),
            ("Message-ID: <1@scanner>", neither),
            ("Date: Mon, 6 May 2024 10:26:40 +0000", neither),
            ("Message-ID: <1@scanner>\nDate: Mon, 6 May 2024 10:26:40 +0000", both),
            ("date : 6\nMESSAGE-ID\t: x", both),
            ("Date:\n Mon,\n 6\nMessage-Id:\n\t<x>", both),
            ("Message-ID: \nDate: Mon, 6 May 2024", neither),
            ("Message-ID: \r\n \nDate: Mon, 6 May 2024", neither),
            ("Message-ID: <1@scanner>\nDate: now", neither),
            ("Message-ID: <1@scanner>\nResent-Date: 6", neither),
            ("Message-ID: 17@imapsync\nDate: Mon, 6 May 2024", neither),
            ("Message-ID: <17@imapsync>\nDate: Mon, 6 May 2024", neither),
            ("Message-ID: <x>\nDate: 6\nMessage-Id: 17@imapsync", both),
            ("Received: by x; Mon, 6 May 2024 10:26:40 +0000", header),
            ("Received: from a (b [192.0.2.1])\r\n\tby x\r\n\t;\r\n\tMon,\r\n\t6", header),
            ("Received: by x;\nReceived: by y; 6 May", header),
            ("Received: from a (b [192.0.2.1]) by x", neither),
            ("Received: from 1 by x; now", neither),
            ("Received: from x\nDate: ;6", neither),
            ("X-Received: by x; 6", neither),
            ("Received: by x; 6\nMessage-ID: <1>\nDate: 6", both),
        ] {
            assert_eq!(names(text), named, "{text:?}");
        }
    }

    #[test]
    fn bodies_that_servers_change_keep_their_fingerprint() {
        let gap = "\n".repeat(3 * RUN_OCTETS);
        let (far, ended) = (format!("a: b\n\nx{gap}y"), format!("a: b\n\nx{gap}y{gap}"));
        let groups: [&[&str]; 9] = [
            &["a: b\n", "a: b\n\n", "a: b\r\n\r\n\r\n\r\n", "A: b\r\r\n\r\r\n\r\r\n"],
            &[
                "a: b\n\nx\n",
                "a: b\n\nx",
                "a: b\r\n\r\nx\r\n\r\n",
                "a: b\n\nx\r\r\n",
                "a: b\n\n\rx",
            ],
            // A header that ended at CR CR LF leaves the rest in the body, whoever serves it.
            &["a: b\n\r\r\nc: d\n\ne", "a: b\r\n\r\nc: d\r\n\r\ne\r\n"],
            &["a: b\n\n\nx"],
            &["a: b\n\nx y\n", "a: b\r\n\r\nx y"],
            &["a: b\n\nx  y\n"],
            &["a: b\n\nx\u{e9}\n"],
            &["a: b\n\nx\ny", "a: b\n\nx\r\ny\r\n"],
            &[&far, &ended],
        ];
        let mut seen = std::collections::HashMap::new();
        for (number, group) in groups.iter().enumerate() {
            for message in *group {
                let fingerprint = of(message.as_bytes()).message.unwrap();
                let first = *seen.entry(fingerprint).or_insert(number);
                assert_eq!(first, number, "{:?}", message.get(..30));
                assert_eq!(
                    of(group[0].as_bytes()).message,
                    Some(fingerprint),
                    "{:?}",
                    message.get(..30)
                );
            }
        }
        assert_eq!(of(b"a: b\n\nx\0y").message, of(b"a: b\n\nx\x80y").message);
    }

    #[test]
    fn header_depth_asks_for_the_header_and_no_more() {
        let mut fingerprinter = Fingerprinter::new(Depth::Header);
        assert_eq!(fingerprinter.update(b"a: b\r\n\r"), Wants::More);
        assert_eq!(fingerprinter.update(b"\nbody"), Wants::Nothing);
        assert_eq!(fingerprinter.update(b"\nc: d"), Wants::Nothing);
        let found = fingerprinter.finish();
        let whole = of(b"a: b\n\nbody");
        assert_eq!(found, Fingerprints { message: None, body: None, ..whole });
        assert!(found.header_ended);
        assert!(!of(b"a: b\r\n").header_ended);
    }

    #[test]
    fn a_huge_field_and_many_small_ones_take_bounded_memory() {
        let mut fingerprinter = Fingerprinter::new(Depth::Message);
        fingerprinter.update(&b"a: b\n:\nc:\n".repeat(RUN_OCTETS));
        fingerprinter.update(b"a: ");
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            fingerprinter.update(&chunk);
        }
        fingerprinter.update(b"\n");
        for _ in 0..20 {
            fingerprinter.update(&chunk);
        }
        fingerprinter.update(b": c\n\n");
        for _ in 0..20 {
            fingerprinter.update(&chunk);
        }
        let runs = [&fingerprinter.header, &fingerprinter.origin, &fingerprinter.body];
        for run in runs {
            assert!(run.octets.capacity() <= 4 * RUN_OCTETS, "{}", run.octets.capacity());
        }
        assert!(fingerprinter.name.capacity() <= 2 * NAME_OCTETS);
        assert!(fingerprinter.finish().message.is_some());
    }

    /// A changed rule shows here, and then [`NORMALISER_VERSION`] goes up.
    #[test]
    fn version_1_gives_these_for_ever() {
        assert_eq!(NORMALISER_VERSION, 1);
        let message = "Return-Path: <bob@example.net>\r\n\
            Received: from mx.example.net by mail.example.com;\r\n\
            \tMon, 6 May 2024 10:26:40 +0000\r\n\
            Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=  caf\u{e9}\r\n folded\r\n\
            From: bob@example.net\r\nX-UIDL: 4711\r\nno colon here\r\n\r\n\
            Hello\0,\r\n\r\ncaf\u{e9}\r\n\r\n";
        let Fingerprints { header, origin, message, body, names_itself, header_ended, .. } =
            of(message.as_bytes());
        let hex = |fingerprint: Option<Fingerprint>| fingerprint.unwrap().to_string();
        assert!(header_ended && names_itself);
        assert_eq!(
            [hex(header), hex(origin), hex(message), hex(body)],
            [
                "d237977a73f99b7ac4af7f832f64937b",
                "5cfef0fee751b0776a742c4f87e0aae4",
                "f7fd0eeacc626e16eb82b3f6d6ea55d0",
                "7fe4a47071448bc167a0964accb7c663"
            ],
        );
        assert_eq!(hex(header_of("a: b\n")), "86e0eb514064e6703a539977b0cc7347");
    }

    #[test]
    fn a_field_is_of_its_kind_in_any_case_and_one_with_a_longer_name_is_not() {
        for (name, kind) in [
            ("Status", FieldKind::Store),
            ("X-Status", FieldKind::Store),
            ("Statu", FieldKind::Author),
            ("Status2", FieldKind::Author),
            ("X-MOZILLA-STATUS2", FieldKind::Store),
            ("Received", FieldKind::Relay),
            ("received-spf", FieldKind::Relay),
            ("Received-", FieldKind::Author),
            ("ARC-Seal", FieldKind::Relay),
            ("arc-", FieldKind::Relay),
            ("arc", FieldKind::Author),
            ("X-Spam-Level", FieldKind::Relay),
            ("X-Spam", FieldKind::Author),
            ("X-Virus-Scanned", FieldKind::Relay),
            ("X-Getmail-Retrieved-From", FieldKind::Relay),
            ("X-Delivery-ID", FieldKind::Relay),
            ("X-Delivery", FieldKind::Author),
            ("", FieldKind::Author),
        ] {
            assert_eq!(FieldKind::of_field(name.as_bytes()), kind, "{name}");
        }
    }

    #[test]
    fn what_a_word_has_before_an_octet_that_changes_is_found_for_each_octet_at_each_place() {
        for octet in 0..=u8::MAX {
            let is_plain = KEPT_AS[usize::from(octet)] == octet && octet != b'?';
            for other in [b'!', b'>', b'@', b'~', octet] {
                for at in 0..WORD_OCTETS {
                    let mut word = [other; WORD_OCTETS];
                    word[at] = octet;
                    let changes = word.iter().position(|&o| o == octet && !is_plain);
                    let expected = changes.unwrap_or(WORD_OCTETS);
                    assert_eq!(plain_octets(word), expected, "{octet:#x} at {at} in {other:#x}");
                }
            }
        }
    }

    /// What is kept of a value, octet by octet.
    fn kept_slowly(value: &[u8]) -> Vec<u8> {
        let mut kept = Vec::new();
        for &octet in value {
            match kept_as(octet) {
                DROPPED | LINE_END => {}
                b'?' if kept.last() == Some(&b'?') => {}
                octet => kept.push(octet),
            }
        }
        kept
    }

    /// Gives `message` in slices that end at `cuts`.
    fn in_slices(message: &[u8], cuts: &[prop::sample::Index], depth: Depth) -> Fingerprints {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(message.len());
        let mut fingerprinter = Fingerprinter::new(depth);
        let mut start = 0;
        for cut in cuts {
            if fingerprinter.update(&message[start..cut]) == Wants::Nothing {
                break;
            }
            start = cut;
        }
        fingerprinter.finish()
    }

    /// Messages made of the parts that the rules are about.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => "(Subject|From |>From|a|X-UIDL|Received|status|Date|Message-Id)?[ \t]?:"
                .prop_map(String::into_bytes),
            4 => "[ -~]{0,12}".prop_map(String::into_bytes),
            4 => Just(b"\n".to_vec()),
            2 => Just(b"\n ".to_vec()),
            1 => Just(b"\n\n".to_vec()),
            2 => prop::collection::vec(any::<u8>(), 0..6),
            1 => "[?\u{e9} \t]{0,6}".prop_map(String::into_bytes),
            1 => Just(vec![b'x'; 300]),
            1 => "[;7]|Message-ID: <7@imapsync>\n".prop_map(String::into_bytes),
            1 => (0..40_000_usize, "[x\n]").prop_map(|(len, octet)| octet.repeat(len).into_bytes()),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn slices_and_line_ends_do_not_count(
            message in message(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
        ) {
            let bare: Vec<u8> = message.iter().copied().filter(|&octet| octet != b'\r').collect();
            let with = |line_end: &[u8]| {
                let lines: Vec<_> = bare.split(|&octet| octet == b'\n').collect();
                lines.join(line_end)
            };
            let whole = of(&bare);
            let mut without = Fingerprinter::new(Depth::Message).without_origin();
            without.update(&bare);
            prop_assert_eq!(without.finish(), Fingerprints { origin: None, ..whole });
            for same in [message, bare.clone(), with(b"\r\n"), with(b"\r\r\n")] {
                prop_assert_eq!(in_slices(&same, &cuts, Depth::Message), whole);
                let header = in_slices(&same, &cuts, Depth::Header);
                prop_assert_eq!(header, Fingerprints { message: None, body: None, ..whole });
            }
        }

        /// The same, decided on the normalised header, read back field by field.
        #[test]
        fn a_header_names_itself_by_what_is_left_of_it(
            message in message(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
        ) {
            let mut fingerprinter = Fingerprinter::new(Depth::Header);
            fingerprinter.update(&message);
            fingerprinter.close_field();
            // When a header was hashed in parts, its start is no longer there.
            prop_assume!(fingerprinter.header.is_empty);
            let kept = fingerprinter.header.octets.clone();
            let fields = || kept.split(|&octet| octet == b'\n');
            let has = |name: &[u8], says: &dyn Fn(&[u8]) -> bool| {
                fields().filter_map(|field| field.strip_prefix(name)).any(says)
            };
            let digit = |value: &[u8]| value.iter().any(u8::is_ascii_digit);
            let dated = |value: &[u8]| {
                let at = value.iter().position(|&octet| octet == b';');
                at.is_some_and(|at| digit(&value[at..]))
            };
            let origin = has(b"message-id:", &|id| !id.is_empty()) && has(b"date:", &digit);
            let header = origin || has(b"received:", &dated);
            let found = in_slices(&message, &cuts, Depth::Header);
            prop_assert_eq!((found.names_itself, found.origin_names_itself), (header, origin));
        }

        #[test]
        fn of_a_value_is_kept_what_is_kept_octet_by_octet(
            lines in prop::collection::vec("[ -~\r?\u{0}\u{e9}]{0,40}|[a-z]{0,9}[?\t]{0,3}", 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
        ) {
            let value = lines.join("\n ").into_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(value.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(value.len());
            let mut fingerprinter = Fingerprinter::new(Depth::Header);
            fingerprinter.update(b"x:");
            let mut start = 0;
            for cut in cuts {
                fingerprinter.update(&value[start..cut]);
                start = cut;
            }
            let kept = &fingerprinter.header.octets;
            let expected = [b"x:".as_slice(), &kept_slowly(&value)].concat();
            prop_assert_eq!(kept, &expected);
        }

        #[test]
        fn every_kept_octet_counts(
            before in "(x: [ -~]{0,9}\n){0,2}",
            value in "[!->@-~]{1,30}",
            after in "[?\u{e9} ]{0,3}(\n [ -~]{0,9})?\n(y: z\n)?\n[a-z]{0,5}",
            at in any::<prop::sample::Index>(),
            octet in 0x21_u8..0x7F,
        ) {
            let mut changed = value.clone().into_bytes();
            let at = at.index(changed.len());
            prop_assume!(changed[at] != octet && octet != b'?');
            changed[at] = octet;
            let changed = String::from_utf8(changed).unwrap();
            let was = of(format!("{before}subject: {value}{after}").as_bytes());
            let is = of(format!("{before}subject: {changed}{after}").as_bytes());
            prop_assert_ne!(was.header, is.header);
            prop_assert_ne!(was.origin, is.origin);
            prop_assert_ne!(was.message, is.message);
        }
    }
}
