//! The servers that keep mail in mboxes: [`MboxServer`].
#![forbid(unsafe_code)]

use crate::capture::disk::mbox::digest::DigestOf;
use crate::capture::disk::mbox::drafts::{self, Taken};
use crate::capture::disk::mbox::from_line::FromLine;
use crate::capture::disk::mbox::split::{HeaderEnd, MboxMessage, Rules};
use crate::capture::disk::traits::DiskTraits;
use crate::capture::draft::Draft;
use crate::capture::error::CaptureError;
use crate::capture::keys::Keys;
use crate::format::UidlFormat;

/// The server that answered POP3 from an mbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MboxServer {
    /// Dovecot, with its `pop3_uidl_format`; UW ipop3d, whose format is `%08Xv%08Xu`.
    Dovecot {
        /// The format.
        format: UidlFormat,
    },
    /// The pop3d of GNU mailutils.
    Mailutils,
    /// Qpopper.
    Qpopper,
    /// Openwall's popa3d.
    Popa3d,
}

impl MboxServer {
    /// Its traits. The POP3 programs of all of them ask for a password themselves.
    pub(in crate::capture::disk) fn traits(&self) -> DiskTraits {
        DiskTraits::of_mbox(match self {
            Self::Dovecot { .. } => "dovecot",
            Self::Mailutils => "mailutils",
            Self::Qpopper => "qpopper",
            Self::Popa3d => "popa3d",
        })
    }

    /// How it reads the file.
    pub fn rules(&self) -> Rules {
        let rules = Rules {
            from_line: FromLine::DatedAfterBlank,
            header_end: HeaderEnd::Empty,
            heeds_content_length: false,
            unquotes: false,
            gives_from_as_field: false,
            digest: None,
        };
        match self {
            Self::Dovecot { .. } => Rules {
                from_line: FromLine::Dated,
                heeds_content_length: true,
                digest: Some(DigestOf::Values),
                ..rules
            },
            Self::Mailutils => Rules {
                from_line: FromLine::DatedAfterBlankInBody,
                unquotes: true,
                gives_from_as_field: true,
                ..rules
            },
            Self::Qpopper => rules,
            Self::Popa3d => {
                let (from_line, header_end) = (FromLine::AfterBlank, HeaderEnd::BareLf);
                Rules { from_line, header_end, digest: Some(DigestOf::Lines), ..rules }
            }
        }
    }

    /// Drafts what its clients know of these messages.
    ///
    /// # Errors
    ///
    /// [`CaptureError::HeadersMissing`] when none has what the server writes, and some were opened.
    pub fn draft(&self, messages: &[MboxMessage], keys: Keys) -> Result<Draft, CaptureError> {
        let taken = Taken::new(messages, keys);
        match self {
            Self::Dovecot { format } => drafts::dovecot(&taken, format),
            Self::Mailutils => drafts::x_uidl(&taken, |_| false, |value| !value.is_empty()),
            Self::Qpopper => drafts::x_uidl(&taken, drafts::is_hidden_by_qpopper, |value| {
                (11..=32).contains(&value.len())
            }),
            Self::Popa3d => Ok(drafts::popa3d(&taken)),
        }
    }
}
