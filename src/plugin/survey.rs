//! Finding out what the rules ask about a mailbox's messages, with a mail of our own.

use arrayvec::ArrayVec;

use super::dovecot::mail_fetch_field as field;
use super::host::{Failed, Frame, Level, Mail, Mailbox, OwnMail, View};
use crate::key::{Depth, FileKey, Fingerprinter, Wants};
use crate::resolve::{Fact, Message, Need};
use crate::uidl::Uidl;

/// A message went while we looked: no fault, but a reason to look again at the whole.
#[derive(Debug)]
pub struct Expunged;

/// The messages of a mailbox, as far as they were asked about.
pub struct Survey {
    mail: OwnMail,
    mailbox: Mailbox,
    /// What the survey sees.
    pub view: View,
    /// By UID.
    pub messages: Vec<Message>,
    sizes: Sizes,
}

/// Whether the caller will ask Dovecot for each message's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// It will, right after: found while the message is open, they cost no second reading.
    Wanted,
    /// It will not.
    NotWanted,
}

impl Survey {
    /// Lists the messages; nothing is known of them yet but their UIDs.
    pub fn begin(mailbox: Mailbox, sizes: Sizes) -> Self {
        let mail = OwnMail::open(mailbox);
        let transaction = mail.transaction();
        let messages =
            transaction.uids().map(|uid| Message { uid, ..Message::default() }).collect();
        Self { view: transaction.view(), mail, mailbox, messages, sizes }
    }

    /// Finds out what is asked. A message that cannot be read is marked so, and that is an answer.
    ///
    /// # Errors
    ///
    /// [`Expunged`]: the survey is out of date.
    pub fn find_out(&mut self, asked: &[(usize, Need)]) -> Result<(), Expunged> {
        for &(m, need) in asked {
            let _frame = Frame::push();
            let seq = u32::try_from(m + 1).expect("fewer messages than sequence numbers");
            let mut mail = self.mail.turn_to(seq);
            let message = &mut self.messages[m];
            let found = match need {
                Need::Names => find_names(&mut mail, message),
                Need::Header => find_prints(&mut mail, message, Depth::Header),
                Need::Message => find_prints(&mut mail, message, Depth::Message),
                Need::Octets => mail.virtual_size().map(|size| message.octets = Fact::Is(size)),
                Need::Own => {
                    find_own(&mut mail, message, self.view.uidvalidity, self.mailbox);
                    Ok(())
                }
            };
            let sized = match (&found, need, self.sizes) {
                (Ok(()), Need::Header | Need::Message, Sizes::Wanted) => {
                    mail.virtual_size().map(|size| message.octets = Fact::Is(size))
                }
                _ => Ok(()),
            };
            if found.and(sized).is_err() {
                if mail.is_expunged() {
                    return Err(Expunged);
                }
                let (uid, why) = (message.uid, self.mailbox.last_error());
                self.mailbox.log(
                    Level::UIDL_KEEP_LOG_WARNING,
                    &format!(
                        "UID {uid} cannot be read ({why}): it gets a UIDL for this session only"
                    ),
                );
                message.unreadable = true;
            }
        }
        Ok(())
    }
}

fn find_names(mail: &mut Mail, message: &mut Message) -> Result<(), Failed> {
    let mut names = ArrayVec::new();
    let file = mail.special(field::MAIL_FETCH_STORAGE_ID)?.to_vec();
    let guid = mail.special(field::MAIL_FETCH_GUID)?;
    if !file.is_empty() {
        names.push(FileKey::of_name(&file));
    }
    // On Maildir the GUID is the base file name, unless dsync brought another.
    if !guid.is_empty() && guid != file {
        names.push(FileKey::of_name(guid));
    }
    message.stored = Uidl::new(mail.special(field::MAIL_FETCH_UIDL_BACKEND)?).ok();
    let order = mail.special(field::MAIL_FETCH_POP3_ORDER)?;
    message.stored_order = std::str::from_utf8(order).ok().and_then(|order| order.parse().ok());
    message.names = Fact::Is(names);
    Ok(())
}

fn find_prints(mail: &mut Mail, message: &mut Message, depth: Depth) -> Result<(), Failed> {
    let mut printer = Fingerprinter::new(depth);
    mail.read(depth == Depth::Message, |piece| printer.update(piece) == Wants::More)?;
    let prints = printer.finish();
    message.header = Fact::found(prints.header);
    message.origin = Fact::found(prints.origin);
    if depth == Depth::Message {
        message.message = Fact::found(prints.message);
    }
    Ok(())
}

/// What cannot be expanded gives no UIDL: Dovecot alone would refuse the whole listing for it.
fn find_own(mail: &mut Mail, message: &mut Message, uidvalidity: u32, mailbox: Mailbox) {
    let mut text = |which| mail.special(which).map(<[u8]>::to_vec).unwrap_or_default();
    let filename = text(field::MAIL_FETCH_STORAGE_ID);
    let guid = text(field::MAIL_FETCH_GUID);
    let md5 = text(field::MAIL_FETCH_HEADER_MD5);
    let own = mail.own_uidl(uidvalidity, &filename, &guid, &md5);
    message.own = Fact::found(match own {
        Ok(own) => Uidl::new(own).ok(),
        Err(why) => {
            let line = format!("pop3_uidl_format={}: {why}", mailbox.uidl_format());
            mailbox.log(Level::UIDL_KEEP_LOG_WARNING, &line);
            None
        }
    });
}
