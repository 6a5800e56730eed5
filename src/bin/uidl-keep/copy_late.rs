//! `uidl-keep copy-late`: mail that the old server took after the last copy.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uidl_keep::capture::find::naming::Naming;
use uidl_keep::capture::find::pattern::Pattern;
use uidl_keep::capture::find::search::{self, Search};
use uidl_keep::capture::find::source::{Holds, Source};
use uidl_keep::late::{self, Brought, LatePurpose, LateTerms};
use uidl_keep::site::Site;
use uidl_keep::text::on_one_line;

use crate::output::{Completion, Trouble, remark};

/// Brings the mail that the old server's MX took after the last copy.
///
///   uidl-keep copy-late --copied 2026-11-30T02:10:00Z --pop3-stopped 2026-11-30T02:00:00Z
///     '/mnt/old/vmail/{domain}/{local}/Maildir' '/srv/vmail/{domain}/{local}/Maildir'
///
/// Copies the messages of the old Maildirs that the new ones never had. The old ones lie on this
/// machine, on a mounted disk, or were brought by rsync to a place of their own. What had arrived
/// before the last copy is left alone, and so is what was deleted on the new server since, as far
/// as its ledger and uidl-keep.late in the Maildir tell. Run it again as often as you like.
///
/// A late message keeps its UIDL where a capture has it: if POP3 still answers on the old server,
/// capture that and build it upon the site first. If POP3 was stopped, say when: mail that came
/// later is new to every client. Where neither holds for a message, its maildrop is left as it is
/// and named.
///
/// Prints a line for each maildrop that got mail. Exit status 0: all late mail is there. 1: but for
/// what stderr names. 2: trouble.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, arg_required_else_help = true)]
pub struct CopyLateArgs {
    /// Where the Maildirs of the old server lie, such as '/mnt/old/vmail/{domain}/{local}/Maildir'.
    #[arg(value_name = "OLD-PATTERN")]
    old: Pattern,
    /// Where those of the new server lie, such as '/srv/vmail/{domain}/{local}/Maildir'.
    #[arg(value_name = "NEW-PATTERN")]
    new: Pattern,
    /// When the last copy of the mail began, in UTC (2026-11-30T02:10:00Z), or as @SECONDS since
    /// 1970.
    #[arg(long, value_name = "TIME", required = true)]
    copied: Moment,
    /// When POP3 was stopped on the old server, for good and for everybody. Without this, only mail
    /// that a capture has is brought.
    #[arg(long, value_name = "TIME")]
    pop3_stopped: Option<Moment>,
    /// The site directory of the new server.
    #[arg(long, value_name = "SITE", default_value = Site::DEFAULT_DIR)]
    site: PathBuf,
    /// Where Dovecot keeps the control files of INBOX (CONTROL=), as for "capture dovecot"; may be
    /// repeated [default: the new Maildir].
    #[arg(long, value_name = "PATTERN")]
    control: Vec<Pattern>,
    /// User names on the new server by the variables of the patterns [default: {local}@{domain}, or
    /// {local}, {user} or {account} where there is no domain].
    #[arg(long, value_name = "TEMPLATE")]
    user_template: Option<String>,
    /// Only this user or domain; may be repeated.
    #[arg(long, value_name = "USER|DOMAIN")]
    only: Vec<String>,
    /// Say what would be brought, and write nothing.
    #[arg(long)]
    dry_run: bool,
}

/// A time, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment(u64);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = text.strip_prefix('@').and_then(|digits| digits.parse().ok());
        let time = match seconds {
            Some(seconds) => UNIX_EPOCH.checked_add(Duration::from_secs(seconds)),
            None => humantime::parse_rfc3339(text).ok(),
        };
        let bad = "not a time such as 2026-11-30T02:10:00Z or @1796004600";
        let time = time.ok_or_else(|| bad.to_owned())?;
        if time > SystemTime::now() {
            return Err("a time that is yet to come".to_owned());
        }
        let since = time.duration_since(UNIX_EPOCH).map_err(|_| bad.to_owned())?;
        Ok(Self(since.as_secs()))
    }
}

pub fn run(args: &CopyLateArgs) -> Result<Completion, Trouble> {
    let naming = Naming::new(args.user_template.as_deref())
        .map_err(|error| Trouble::at("--user-template", error))?;
    let find = |patterns: &[Pattern], option: &str| {
        let found = search::find(patterns, None, &naming, Holds::Directory);
        found.map_err(|error| Trouble::at(option, error))
    };
    let old = find(std::slice::from_ref(&args.old), "OLD-PATTERN")?.select(&naming, &args.only);
    let new = by_user(find(std::slice::from_ref(&args.new), "NEW-PATTERN")?);
    let control = match args.control.is_empty() {
        true => BTreeMap::new(),
        false => by_user(find(&args.control, "--control")?),
    };
    old.losses.iter().for_each(remark);
    if !args.site.is_dir() {
        return Err(Trouble::at(args.site.display(), "not a directory; is --site right?"));
    }
    let terms = LateTerms {
        site: Site::new(&args.site),
        copied: args.copied.0,
        pop3_stopped: args.pop3_stopped.map(|moment| moment.0),
        purpose: if args.dry_run { LatePurpose::Count } else { LatePurpose::Bring },
    };
    if old.sources.is_empty() {
        return Err(Trouble::at("OLD-PATTERN", "no Maildir found; is the old disk mounted?"));
    }
    let would = if args.dry_run { "would be brought" } else { "brought" };
    let mut total = LateTotal { all_well: old.losses.is_empty(), ..LateTotal::default() };
    let mut out = io::stdout().lock();
    for source in &old.sources {
        let user = source.user();
        let place = new.get(user).map(|place| match control.get(user) {
            Some(control) => place.clone().with_control(control.clone()),
            None => place.clone(),
        });
        match late::bring(&terms, user, source, place.as_ref()) {
            Ok(found) => {
                if found.brought > 0 {
                    writeln!(out, "{}: {} {would}", on_one_line(user), found.brought)?;
                }
                total.add(found);
            }
            Err(why) => {
                remark(format_args!("{user}: {why}"));
                total.refused += 1;
            }
        }
    }
    out.flush()?;
    remark(total.sentence(would));
    Ok(if total.is_done() { Completion::Done } else { Completion::Partial })
}

fn by_user(found: Search) -> BTreeMap<String, Source> {
    found.losses.iter().for_each(remark);
    let sources = found.sources.into_iter().filter(|source| !source.is_gap());
    sources.map(|source| (source.user().to_owned(), source)).collect()
}

/// What became of all.
#[derive(Default)]
struct LateTotal {
    all_well: bool,
    maildrops: usize,
    with_late: usize,
    refused: usize,
    of_all: Brought,
}

impl LateTotal {
    fn add(&mut self, found: Brought) {
        self.maildrops += 1;
        self.with_late += usize::from(found.brought > 0);
        self.of_all.brought += found.brought;
        self.of_all.deleted += found.deleted;
        self.of_all.not_copied += found.not_copied;
        self.of_all.gone += found.gone;
    }

    fn is_done(&self) -> bool {
        self.all_well && self.refused == 0
    }

    fn sentence(&self, would: &str) -> String {
        let Brought { brought, deleted, not_copied, gone } = self.of_all;
        let mut said = format!(
            "{brought} late messages of {} maildrops {would}; {} maildrops had none",
            self.with_late,
            self.maildrops - self.with_late
        );
        for (count, what) in [
            (deleted, "messages were deleted here since"),
            (not_copied, "had arrived before the last copy and are not here"),
            (gone, "went from the old server meanwhile"),
            (self.refused, "maildrops are not done, which are named above"),
        ] {
            if count > 0 {
                said.push_str(&format!("; {count} {what}"));
            }
        }
        said
    }
}
