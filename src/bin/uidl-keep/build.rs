//! `uidl-keep build`: listings become the indexes and rosters of a site.
//!
//! There are two passes, so that the listings need not fit in memory. The first notes where each
//! maildrop is and what its head says, and passes over messages. The second reads the maildrops one
//! by one, in the order of their users, and checks each line. All files are written beside their
//! places before the first is put in place.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::HumanCount;
use rustix::fs::Mode;
use uidl_keep::dovecot::{Dovecot, UserNames};
use uidl_keep::file::lock::{LOCK_NAME, lock};
use uidl_keep::file::publish::{self, Access, Sealed, Staged};
use uidl_keep::file::sealer::Sealer;
use uidl_keep::index::merge::{Merged, Remark, merge, spend_entries};
use uidl_keep::index::reader::Maildrops;
use uidl_keep::index::{Index, IndexBlock, IndexError, Subtree, WriteError, Writer};
use uidl_keep::listing::{self, Block, BlockReader, ListingError};
use uidl_keep::maildrop::{Entry, EntryRef, Maildrop, State, everybody_of, is_everybody};
use uidl_keep::site::roster::{
    Gate, Roster, RosterEdit, RosterError, RosterLine, check_name, escaped, is_domain,
    lines_with_word, name_of_domain,
};
use uidl_keep::site::{Paths, Scope, Site};
use uidl_keep::text::on_one_line;
use uidl_keep::uidl::Uidl;

use crate::accounts::{Doveadm, Readers};
use crate::apart;
use crate::changes::ChangesLog;
use crate::effect::{DryRunArgs, Effect};
use crate::install::Install;
use crate::output::{Completion, Trouble, remark, summary};
use crate::site_files;
use crate::stop::StopFile;

/// Makes a site directory from listings: an index and a roster for each domain.
///
/// Example: uidl-keep build --final -o site *.listing
///
/// Nothing is changed unless all listings are right. With --install it builds upon the site in use,
/// and gives read access to the accounts that `doveadm user` names. Nothing that a site has is ever
/// dropped: the entries of a maildrop that was captured before keep their places, and new ones
/// follow. When two captures have different UIDLs for a message, the later capture's is served.
/// Exit status 1: done, except for what stderr names.
#[derive(clap::Args)]
pub struct BuildArgs {
    /// No more captures will follow. Without this, the plugin warns once a day that one is awaited.
    #[arg(long = "final")]
    is_final: bool,
    /// Go on although a later capture has other UIDLs than an earlier one for many messages of a
    /// maildrop. Use it when the old server gave new ones, and not for a listing of another server
    /// or of a backup.
    #[arg(long)]
    later_wins: bool,
    /// The site directory to make.
    #[arg(short, long, value_name = "SITE", required_unless_present = "install")]
    output: Option<PathBuf>,
    /// Keep all that this site has, and add to it.
    #[arg(long, value_name = "SITE", requires = "output")]
    base: Option<PathBuf>,
    /// Build upon the site in use, and put the files in place there.
    #[arg(long, conflicts_with = "output")]
    install: bool,
    /// The site in use.
    #[arg(long, value_name = "SITE", default_value = Site::DEFAULT_DIR, requires = "install")]
    site: PathBuf,
    /// Hold the domains and users that are built, from the first moment, as `hold` does.
    #[arg(long)]
    hold: bool,
    /// Build only these users and domains of the listings.
    #[arg(long, value_name = "USER|@DOMAIN")]
    only: Vec<String>,
    /// Build all but these users and domains.
    #[arg(long, value_name = "USER|@DOMAIN")]
    except: Vec<String>,
    /// Go on when Dovecot knows nobody of a domain. Then only root can read its files, so that a
    /// user who is created there is refused until the next build.
    #[arg(long, requires = "install")]
    skip_unknown: bool,
    #[command(flatten)]
    dry: DryRunArgs,
    #[command(flatten)]
    doveadm: Doveadm,
    /// Listings; `-` is standard input. Give none to make the old site final.
    #[arg(value_name = "LISTING")]
    listings: Vec<PathBuf>,
}

pub fn run(args: &BuildArgs) -> Result<Completion, Trouble> {
    let place = Site::new(args.output.as_ref().unwrap_or(&args.site));
    let empty = args.dry.stands_in_for(&place)?;
    let site = empty.as_ref().map_or(place.clone(), |empty| Site::new(empty.path()));
    let base = match &args.base {
        Some(base) => Some(Site::new(base)),
        None => args.install.then(|| site.clone()),
    };
    if args.listings.is_empty() && base.is_none() {
        return Err(Trouble::new("no listing to build from; name one, or `-` for standard input"));
    }
    let listings = Listings::open(&args.listings)?;
    let selection = Selection { only: &args.only, except: &args.except };
    let mut found = outline(&listings)?;
    let mut outcome = selection.apply(&mut found, &listings)?;

    let mut made = MadeDirs::default();
    let effect = Effect::of(args.dry, || {
        made.make(&site)?;
        let lock = lock(site.dir()).map_err(|error| Trouble::at(site.dir().display(), error))?;
        lock.ok_or_else(|| {
            made.keep();
            let changes = "another uidl-keep changes this site; try again when it is done";
            Trouble::at(site.dir().display(), changes)
        })
    })?;
    // They go before the lock does.
    let mut made = made;
    if args.install {
        is_ours(&site)?;
    }
    let other = base.iter().filter(|base| base.dir() != site.dir());
    let sites: Vec<&Site> = std::iter::once(&site).chain(other).collect();
    set_apart(&mut found, &sites, args.install.then_some(&args.doveadm))?;
    let ended = Install::of(&site)?;
    if let Some(ended) = &ended {
        remark(ended.state(&site));
    }
    let mut install = Install::default();
    let mut scopes: BTreeSet<Scope> = found.iter().map(|found| found.scope.clone()).collect();
    add_domains(&mut scopes, &site, base.as_ref(), args.hold)?;
    // When a site is built upon itself, only scopes that gain something are changed.
    if let Some(base) = base.as_ref().filter(|it| it.dir() != site.dir() || found.is_empty()) {
        let all = site_files::scopes(base)?.into_iter();
        scopes.extend(all.filter(|scope| !found.is_empty() || selection.has_place(scope)));
    }
    let domains_apart = apart::domains(&scopes, &sites)?;
    let domains_held = apart::held(&domains_apart, &sites)?;
    let (mut sealer, mut readers_of) = (Sealer::default(), Vec::new());
    let mut held = Vec::new();
    let (mut known_places, mut unknown_places) = (BTreeSet::new(), BTreeSet::new());
    let (dovecot, mut names) = (args.doveadm.dovecot(), UserNames::default());
    let is_guarded = StopFile::of(&site)?.is_some_and(|stop| stop.guard().is_some());
    let mut refused = Vec::new();
    if args.install {
        args.doveadm.check_pop3(&place)?;
    }
    let (mut doubts, mut tallies) = (Doubts::default(), BTreeMap::new());
    let is_upon_itself = base.as_ref().is_some_and(|base| base.dir() == site.dir());
    for scope in scopes {
        let start = found.partition_point(|found| found.scope < scope);
        let end = found.partition_point(|found| found.scope <= scope);
        let domain = apart::domain_of(&scope);
        let is_domain_held = domain.as_ref().is_some_and(|domain| domains_held.contains(domain));
        let hold = Hold { now: args.hold, domain: is_domain_held };
        let build = Build {
            effect: &effect,
            site: &site,
            scope: &scope,
            listings: &listings,
            hold,
            is_upon_itself,
        };
        let old = match &base {
            Some(base) => OldFiles::open(base, &scope)?,
            None => OldFiles::default(),
        };
        let mut staged = build.stage(&found[start..end], old, args.is_final, &mut doubts)?;
        held.append(&mut staged.held);
        tallies.insert(scope.clone(), staged.tally);
        let lines = if is_guarded || args.install { staged.lines()? } else { Roster::new() };
        if is_guarded {
            let of_them = lines.lines().filter(|line| line.gate != Gate::Redownload);
            refused.extend(of_them.map(|line| line.user.clone()));
        }
        let users = lines.lines().map(|line| line.user.clone());
        let users: Vec<_> = users.filter(|user| !is_everybody(user) && !is_domain(user)).collect();
        let whose = domain.unwrap_or_else(|| scope.clone());
        let (readers, access) =
            if args.install && users.is_empty() && domains_apart.contains(&scope) {
                // These files speak of the domain, and an account that is not listed must be able
                // to read them.
                (None, EVERYBODYS)
            } else if args.install {
                match known(&dovecot, &scope, &users, &mut names)? {
                    Some(users) => {
                        if !users.is_empty() {
                            known_places.insert(whose);
                        }
                        let readers = args.doveadm.readers(scope.name(), &users)?;
                        (readers.clone(), access_of(&scope, readers.as_ref()))
                    }
                    None => {
                        unknown_places.insert(whose);
                        (None, ROOTS_ALONE)
                    }
                }
            } else {
                (None, Access { mode: 0o640, owner: None })
            };
        install.add(&site, &staged.paths.index, staged.build_id);
        let Paths { index, roster } = &staged.paths;
        readers_of.extend(readers.map(|readers| (readers, [index.clone(), roster.clone()])));
        staged.seal(&mut sealer, access)?;
    }
    let sealed = sealer.finish().map_err(|(path, error)| Trouble::at(path.display(), error))?;
    if !args.later_wins {
        doubts.settle()?;
    }
    args.doveadm.check_renamed(&names)?;
    // Dovecot may know other users of the domain. Then a user who has files of his own, and whom it
    // does not know, was not moved; his domain is not counted as unknown.
    let unknown_places = unknown_places.difference(&known_places).count();
    if unknown_places > 0 {
        outcome = Completion::Partial;
        go_on_without(unknown_places, args.skip_unknown)?;
    }
    // All is well, and all of it is on the disk.
    let put_in_place = effect.really(|| {
        if let Some(ended) = &ended {
            install.add_missing_of(ended, &site);
        }
        // The guard must name whoever is on a roster, or know that it cannot.
        let mut stop = StopFile::of(&site)?;
        if let Some(stop) = &mut stop {
            stop.cover(refused.iter().map(String::as_str))?;
        }
        made.keep();
        install.begin(&site)?;
        publish(&site, sealed, &held).map_err(|trouble| {
            remark(trouble);
            Trouble::new(install.state(&site))
        })?;
        if let Some(rest) = install.end(&site)? {
            remark(rest.state(&site));
            outcome = Completion::Partial;
        }
        // The held users of the site that is built upon are now held here, and so are new users of
        // a held domain.
        if let Some(stop) = &mut stop {
            stop.refresh()?;
        }
        readers_of.iter().try_for_each(|(readers, paths)| readers.try_to_read(paths))
    })?;
    if put_in_place.is_none() {
        print_tallies(&tallies)?;
    }
    let all = tallies.into_values().fold(BuildTally::default(), BuildTally::joined);
    let (would_be, is_final) = (effect.would_be(), if args.is_final { ", final" } else { "" });
    summary(format_args!("{would_be}built: {all}{is_final} -> {}", place.dir().display()));
    Ok(outcome)
}

/// Prints what would change, a line for each domain and each user with files of his own.
fn print_tallies(tallies: &BTreeMap<Scope, BuildTally>) -> Result<(), Trouble> {
    let mut out = io::stdout().lock();
    for (scope, tally) in tallies.iter().filter(|(_, tally)| **tally != BuildTally::default()) {
        let name = match scope {
            Scope::Domain(domain) => name_of_domain(domain),
            Scope::User(user) => user.clone(),
        };
        writeln!(out, "{}", on_one_line(format_args!("{name} would be built: {tally}")))?;
    }
    Ok(())
}

/// What a build makes of the listings.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct BuildTally {
    /// Maildrops that are new on a roster.
    added: u64,
    /// Maildrops that were captured before.
    again: u64,
    /// Those of both whose capture failed.
    failed: u64,
    messages: u64,
    /// Messages that have another UIDL than in an earlier capture.
    renamed: u64,
    /// Gates that change.
    gates: u64,
}

impl BuildTally {
    fn joined(self, other: Self) -> Self {
        Self {
            added: self.added + other.added,
            again: self.again + other.again,
            failed: self.failed + other.failed,
            messages: self.messages + other.messages,
            renamed: self.renamed + other.renamed,
            gates: self.gates + other.gates,
        }
    }
}

impl Display for BuildTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { added, again, failed, messages, renamed, gates } = *self;
        let [added, again, failed, messages, renamed, gates] =
            [added, again, failed, messages, renamed, gates].map(HumanCount);
        write!(
            f,
            "{added} maildrops added, {again} captured again, {failed} failed, {messages} \
             messages, {renamed} messages have another UIDL than in an earlier capture, {gates} \
             gates changed"
        )
    }
}

/// Puts all files in place. Before that, the log gets the gates that change.
fn publish(site: &Site, sealed: Vec<Sealed>, held: &[(&str, RosterLine)]) -> Result<(), Trouble> {
    let log = ChangesLog::new(site, "build --hold", SystemTime::now());
    let line_of =
        |(before, after): &(&str, RosterLine)| log.line(&after.user, before, after.gate_word());
    if !held.is_empty() {
        log.append(&held.iter().map(line_of).collect::<String>())?;
    }
    publish::publish_all(sealed).map_err(|(path, error)| {
        if !held.is_empty() {
            let _ = log.append(&log.line_of_failure(&path, &error));
        }
        Trouble::at(path.display(), error)
    })
}

/// Access to the files of a scope when no account is known that might read them.
const ROOTS_ALONE: Access = Access { mode: 0o600, owner: None };

/// Access to the files of a domain that name nobody.
const EVERYBODYS: Access = Access { mode: 0o644, owner: Some((0, 0)) };

fn access_of(scope: &Scope, readers: Option<&Readers>) -> Access {
    let Some(readers) = readers else {
        remark(format_args!(
            "{}: doveadm lists nobody of it, so only root can read its files: a user who is \
             created there is refused until the next build",
            scope.name()
        ));
        return ROOTS_ALONE;
    };
    readers.access(scope.name())
}

/// The users of a scope that Dovecot knows; `None` when it knows none of those asked for. Remarks
/// name every user that it does not know.
fn known(
    dovecot: &Dovecot,
    scope: &Scope,
    users: &[String],
    all: &mut UserNames,
) -> Result<Option<Vec<String>>, Trouble> {
    const AT_A_TIME: usize = 50;
    let names = dovecot.names(users).map_err(|error| {
        Trouble::at(
            scope.name(),
            format_args!(
                "{error}; `build --install` asks a running Dovecot: start it, or give \
                --doveadm-args"
            ),
        )
    })?;
    all.renamed.extend(names.renamed);
    let unknown: BTreeSet<String> = names.unknown.into_iter().collect();
    let known: Vec<String> =
        users.iter().filter(|user| !unknown.contains(*user)).cloned().collect();
    let unknown: Vec<String> = unknown.into_iter().collect();
    if known.is_empty() && !unknown.is_empty() && apart::domain_of(scope).is_some() {
        remark(format_args!(
            "{}: Dovecot does not know this user, so only root can read his files: once created, \
             he is refused until the next `build --install`",
            scope.name()
        ));
        return Ok(None);
    }
    if known.is_empty() && !unknown.is_empty() {
        remark(format_args!(
            "{}: Dovecot knows none of its {} users (the first: {})",
            scope.name(),
            unknown.len(),
            unknown[0]
        ));
        return Ok(None);
    }
    for some in unknown.chunks(AT_A_TIME) {
        // Nobody can log in under these names. Once the users are created, they are served what was
        // captured.
        remark(format_args!(
            "{}: Dovecot does not know {} of its users, who are on its roster all the same: {}",
            scope.name(),
            some.len(),
            some.join(" ")
        ));
    }
    Ok(Some(known))
}

/// Whether to go on when Dovecot knows nobody of some domains, or does not know some users without
/// a domain.
fn go_on_without(scopes: usize, skip_unknown: bool) -> Result<(), Trouble> {
    if !skip_unknown {
        return Err(Trouble::new(format!(
            "Dovecot does not know {scopes} domains or users, named above, and nothing is changed: \
             create them, or name another Dovecot with --doveadm-args; to go on, --skip-unknown \
             refuses users who are created there until the next build, and --except leaves them \
             out",
        )));
    }
    remark(format_args!(
        "only root can read the files of {scopes} domains or users, named above: a user who is \
         created there is refused until the next `build --install`"
    ));
    Ok(())
}

/// The users of the listings that the operator wants built.
struct Selection<'a> {
    only: &'a [String],
    except: &'a [String],
}

impl Selection<'_> {
    fn names(name: &str, user: &str) -> bool {
        if is_domain(name) {
            user.rsplit_once('@').is_some_and(|(_, domain)| domain == &name[1..])
        } else {
            name == user
        }
    }

    fn has(&self, user: &str) -> bool {
        let is_named = |names: &[String]| names.iter().any(|name| Self::names(name, user));
        (self.only.is_empty() || is_named(self.only)) && !is_named(self.except)
    }

    /// Whether a scope is selected that no listing has.
    fn has_place(&self, scope: &Scope) -> bool {
        match scope {
            Scope::Domain(domain) => self.has(&name_of_domain(domain)),
            Scope::User(user) => self.has(user),
        }
    }

    /// Drops the maildrops that are not selected, and says so.
    fn apply(
        &self,
        found: &mut Vec<FoundBlock>,
        listings: &Listings,
    ) -> Result<Completion, Trouble> {
        let of_nobody = self.only.iter().chain(self.except).find(|name| {
            !listings.all.is_empty()
                && !found.iter().any(|found| Self::names(name, &found.block.user))
        });
        if let Some(name) = of_nobody {
            return Err(Trouble::new(format!(
                "no listing has {name}; name users, and domains as @example.com"
            )));
        }
        let is_left_out = |found: &&FoundBlock| !self.has(&found.block.user);
        let left_out = found.iter().filter(is_left_out).count();
        let Some(first) = found.iter().find(is_left_out) else { return Ok(Completion::Done) };
        // All of a listing must be right.
        let mut unread = found.iter().filter(is_left_out);
        unread.try_for_each(|found| {
            listings.read_each(found, |_| Ok(()), |(), _| Ok(())).map(drop)
        })?;
        remark(format_args!(
            "{left_out} maildrops of the listings are left out (the first: {}): those on no roster \
             are served as if never migrated",
            first.block.user
        ));
        found.retain(|found| self.has(&found.block.user));
        if found.is_empty() {
            return Err(Trouble::new("no maildrop of the listings is left to build"));
        }
        Ok(Completion::Partial)
    }
}

/// The listings that are built.
struct Listings {
    all: Vec<Listing>,
    /// The one that was read last, by its position: there may be more than can be open at a time.
    last: RefCell<Option<(usize, Rc<File>)>>,
    /// The text of the maildrop that was read last, as far as it is read in one piece.
    text: RefCell<Vec<u8>>,
}

impl Listings {
    fn open(paths: &[PathBuf]) -> Result<Self, Trouble> {
        let all = paths.iter().map(|path| Listing::open(path)).collect::<Result<_, _>>()?;
        Ok(Self { all, last: RefCell::default(), text: RefCell::default() })
    }

    /// The file of a listing.
    fn file_of(&self, listing: usize) -> Result<Rc<File>, Trouble> {
        let mut last = self.last.borrow_mut();
        match &*last {
            Some((at, file)) if *at == listing => Ok(file.clone()),
            _ => {
                let file = Rc::new(self.all[listing].again()?);
                *last = Some((listing, file.clone()));
                Ok(file)
            }
        }
    }

    /// Reads a maildrop from its place in a listing: its head, of which `begin` makes something,
    /// and each message, which `add` puts there.
    fn read_each<T>(
        &self,
        found: &FoundBlock,
        begin: impl FnOnce(&Maildrop) -> Result<T, Trouble>,
        add: impl FnMut(&mut T, EntryRef<'_>) -> Result<(), Trouble>,
    ) -> Result<(Maildrop, T), Trouble> {
        let (listing, block) = (&self.all[found.listing], &found.block);
        let (file, start) = (self.file_of(found.listing)?, block.offset);
        match usize::try_from(block.len_octets) {
            Ok(len) if len <= READ_OCTETS => {
                let mut text = self.text.borrow_mut();
                text.resize(len, 0);
                file.read_exact_at(&mut text, start).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => listing.changed(),
                    _ => listing.trouble(error),
                })?;
                listing.read_each(&text[..], block, begin, add)
            }
            _ => {
                let text = FileRange { file, start, end: start + block.len_octets };
                let text = BufReader::with_capacity(READ_OCTETS, text);
                listing.read_each(text, block, begin, add)
            }
        }
    }
}

/// A listing, which can be read twice.
struct Listing {
    /// As the operator named it.
    name: String,
    /// A copy of a listing that cannot be read twice from its path.
    spooled: Option<File>,
    path: PathBuf,
}

impl Listing {
    fn open(path: &Path) -> Result<Self, Trouble> {
        let mut listing =
            Self { name: path.display().to_string(), spooled: None, path: path.into() };
        if path == Path::new("-") {
            listing.name = "standard input".into();
            listing.spooled = Some(listing.spool(io::stdin().lock())?);
        } else {
            let file = File::open(path).map_err(|error| listing.trouble(error))?;
            let is_file = file.metadata().map_err(|error| listing.trouble(error))?.is_file();
            if !is_file {
                listing.spooled = Some(listing.spool(file)?);
            }
        }
        Ok(listing)
    }

    /// Copies a source that can be read only once into a file without a name.
    fn spool(&self, mut from: impl io::Read) -> Result<File, Trouble> {
        let mut spool = || {
            let mut file = tempfile::tempfile()?;
            io::copy(&mut from, &mut file)?;
            Ok(file)
        };
        spool().map_err(|error: io::Error| self.trouble(error))
    }

    /// Its file once more. The position in it may be anywhere.
    fn again(&self) -> Result<File, Trouble> {
        let again = match &self.spooled {
            Some(file) => file.try_clone(),
            None => File::open(&self.path),
        };
        again.map_err(|error| self.trouble(error))
    }

    /// All of its text.
    fn text(&self) -> Result<BufReader<FileRange>, Trouble> {
        let whole = FileRange { file: Rc::new(self.again()?), start: 0, end: u64::MAX };
        Ok(BufReader::with_capacity(READ_OCTETS, whole))
    }

    /// As [`Listings::read_each`], of the text of a block.
    fn read_each<T>(
        &self,
        text: impl BufRead,
        block: &Block,
        begin: impl FnOnce(&Maildrop) -> Result<T, Trouble>,
        mut add: impl FnMut(&mut T, EntryRef<'_>) -> Result<(), Trouble>,
    ) -> Result<(Maildrop, T), Trouble> {
        let mut reader = BlockReader::at_block(text, block);
        let head = match reader.next_head() {
            Ok(Some(head)) if head.user == block.user => head,
            Err(error) => return Err(self.trouble_at_line(&error)),
            Ok(_) => return Err(self.changed()),
        };
        let (mut made, mut entries) = (begin(&head)?, 0);
        let fault = loop {
            match reader.next_entry() {
                Ok(Some(entry)) => add(&mut made, entry)?,
                Ok(None) => break None,
                Err(fault) => break Some(fault),
            }
            entries += 1;
        };
        if let Some(fault) = fault {
            return Err(self.trouble_at_line(&ListingError { line: reader.line(), fault }));
        }
        let is_whole = reader.offset() == block.offset + block.len_octets;
        if is_whole && entries == block.entries { Ok((head, made)) } else { Err(self.changed()) }
    }

    fn trouble(&self, error: impl Display) -> Trouble {
        Trouble::at(&self.name, error)
    }

    fn changed(&self) -> Trouble {
        self.trouble("changed while it was read; build again")
    }

    fn trouble_at_line(&self, error: &listing::ListingError) -> Trouble {
        Trouble::new(format!("{}:{error}", self.name))
    }
}

/// So much of a listing is read at once.
const READ_OCTETS: usize = 1 << 18;

/// What is left to read of a part of a file.
struct FileRange {
    file: Rc<File>,
    start: u64,
    end: u64,
}

impl io::Read for FileRange {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.start).unwrap_or(usize::MAX);
        let most = octets.len().min(left);
        let len = self.file.read_at(&mut octets[..most], self.start)?;
        self.start += len as u64;
        Ok(len)
    }
}

/// The position of a maildrop in a listing.
struct FoundBlock {
    scope: Scope,
    block: Block,
    /// The listing, as a position in the list of them.
    listing: usize,
}

/// Finds the maildrops of all listings and checks their heads; returns them in the order of scopes,
/// then of users.
fn outline(listings: &Listings) -> Result<Vec<FoundBlock>, Trouble> {
    let mut found: Vec<FoundBlock> = Vec::new();
    let place_of =
        |found: &FoundBlock| format!("{}:{}", listings.all[found.listing].name, found.block.line);
    for (number, listing) in listings.all.iter().enumerate() {
        for block in listing::outline(listing.text()?).with_heads() {
            let (block, head) = block.map_err(|error| listing.trouble_at_line(&error))?;
            let at = |error: &dyn Display| {
                Trouble::at(format_args!("{}:{}", listing.name, block.line), error)
            };
            let user = &block.user;
            if *user == everybody_of(None) {
                return Err(at(
                    &"the block of everybody: a place at the old server could not be searched, and \
                     neither the names nor the domain of its users are known; mend what its remark \
                     names and capture again, or remove the block if no user is there",
                ));
            }
            if is_everybody(user) && head.state != State::Failed {
                let state =
                    "not failed: a block of everybody of a domain says that they were missed";
                return Err(at(&format_args!("{user}: {state}; take it out")));
            }
            if is_domain(user) {
                let what = "a domain and not a user; remove it";
                return Err(at(&format_args!("{user}: {what}")));
            }
            let Some(scope) = Scope::of(user) else {
                return Err(at(&format_args!(
                    "no file can be named after user {user:?} or the domain; rename it in the \
                     listing"
                )));
            };
            check_name(user).map_err(|error| at(&error))?;
            found.push(FoundBlock { scope, block, listing: number });
        }
    }
    found.sort_by(|a, b| {
        let key = |found: &FoundBlock| (found.listing, found.block.offset);
        (&a.scope, &a.block.user).cmp(&(&b.scope, &b.block.user)).then(key(a).cmp(&key(b)))
    });
    for pair in found.windows(2) {
        if pair[0].block.user == pair[1].block.user {
            let [first, second] = [&pair[0], &pair[1]].map(place_of);
            return Err(Trouble::at(
                second,
                format_args!(
                    "second maildrop of {} (first at {first}); keep one, or build the later \
                     capture --base the site of the earlier",
                    pair[0].block.user
                ),
            ));
        }
    }
    let upper =
        |found: &&FoundBlock| found.block.user.bytes().any(|octet| octet.is_ascii_uppercase());
    let count = found.iter().filter(upper).count();
    if let Some(first) = found.iter().find(upper) {
        remark(format_args!(
            "{}: {} has capital letters ({count} such): Dovecot looks users up in small ones, \
             unless its auth_username_format says otherwise",
            place_of(first),
            first.block.user
        ));
    }
    Ok(found)
}

/// Gives users who have files of their own, or get them now, their own scope, and sorts the
/// maildrops by scope again.
fn set_apart(
    found: &mut [FoundBlock],
    sites: &[&Site],
    doveadm: Option<&Doveadm>,
) -> Result<(), Trouble> {
    let sites: Result<Vec<_>, Trouble> =
        sites.iter().map(|site| Ok((*site, apart::by_domain(site)?))).collect();
    let sites = sites?;
    for found in found.chunk_by_mut(|a, b| a.scope == b.scope) {
        let scope = found[0].scope.clone();
        if !matches!(scope, Scope::Domain(_)) {
            continue;
        }
        let users: Vec<&str> = found.iter().map(|found| found.block.user.as_str()).collect();
        let apart = apart::who(&scope, &users, &sites, doveadm)?;
        for found in found.iter_mut().filter(|found| apart.contains(&found.block.user)) {
            found.scope = Scope::own(&found.block.user).expect("said to be apart by its name");
        }
    }
    found.sort_by(|a, b| (&a.scope, &a.block.user).cmp(&(&b.scope, &b.block.user)));
    Ok(())
}

/// Adds the domains of users who have files of their own, when the domain's roster names nobody.
/// The domain's files say whether it is held, and a user who is to be refused must be able to read
/// that. A run that holds a domain holds all users of it.
fn add_domains(
    scopes: &mut BTreeSet<Scope>,
    site: &Site,
    base: Option<&Site>,
    hold: bool,
) -> Result<(), Trouble> {
    let mut domains: BTreeSet<Scope> = scopes.iter().filter_map(apart::domain_of).collect();
    if hold {
        domains.extend(scopes.iter().filter(|it| matches!(it, Scope::Domain(_))).cloned());
        if let Some(base) = base {
            let apart = apart::by_domain(base)?;
            scopes.extend(domains.iter().filter_map(|it| apart.get(it.name())).flatten().cloned());
        }
    }
    for domain in domains {
        if hold || site_files::read_roster(site, &domain)?.is_none_or(|it| apart::names_nobody(&it))
        {
            scopes.insert(domain);
        }
    }
    Ok(())
}

/// The directories of a site that were made here. They go again with this, as far as they have
/// nothing but the lock, unless they are kept.
#[derive(Default)]
struct MadeDirs(Vec<PathBuf>);

impl MadeDirs {
    /// Makes those that are missing.
    fn make(&mut self, site: &Site) -> Result<(), Trouble> {
        // The mode must not depend on the umask, and must be set in one step. A run that is killed
        // between two steps would leave a directory that the next run takes for one that the
        // operator closed. No other thread runs here yet.
        let umask = rustix::process::umask(Mode::empty());
        let made = directories(site).into_iter().filter(|dir| !dir.is_dir()).try_for_each(|dir| {
            let made = DirBuilder::new().mode(0o711).recursive(true).create(&dir);
            made.map_err(|error| Trouble::at(dir.display(), error))?;
            self.0.push(dir);
            Ok(())
        });
        rustix::process::umask(umask);
        made
    }

    fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for MadeDirs {
    fn drop(&mut self) {
        for dir in self.0.iter().rev() {
            // What somebody has put there meanwhile stays, and so does the directory.
            let _ = fs::remove_file(dir.join(LOCK_NAME));
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Checks that only root or we can write the site. Otherwise somebody could put a link there for
/// root to follow.
fn is_ours(site: &Site) -> Result<(), Trouble> {
    let ours = [0, rustix::process::geteuid().as_raw()];
    for dir in directories(site) {
        let at = |error: &dyn Display| Trouble::at(dir.display(), error);
        let metadata = dir.metadata().map_err(|error| at(&error))?;
        let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        if !ours.contains(&uid) {
            return Err(at(&format_args!("owned by uid {uid}, and should be by root")));
        }
        if mode & 0o022 != 0 {
            return Err(at(&format_args!("mode {mode:04o} lets group or others write it")));
        }
    }
    Ok(())
}

/// The directories of a site.
fn directories(site: &Site) -> [PathBuf; 3] {
    [site.dir().to_owned(), site.dir().join("domain"), site.dir().join("user")]
}

/// One scope of the site that is being built.
struct Build<'a> {
    effect: &'a Effect,
    site: &'a Site,
    scope: &'a Scope,
    listings: &'a Listings,
    hold: Hold,
    /// The site is built upon itself.
    is_upon_itself: bool,
}

/// The users of a scope who are held.
#[derive(Clone, Copy)]
struct Hold {
    /// Everybody is held from now on.
    now: bool,
    /// New users are held: they have files of their own, and their domain is held.
    domain: bool,
}

/// The two files of a scope that is built upon, as far as they are there.
#[derive(Default)]
struct OldFiles {
    index: Option<Index<File>>,
    roster: Option<RosterEdit<File>>,
}

impl OldFiles {
    /// Opens both as a login would, and reads neither.
    fn open(site: &Site, scope: &Scope) -> Result<Self, Trouble> {
        let index = site_files::open_index(site, scope)?;
        Ok(Self { index, roster: site_files::edit_roster(site, scope)? })
    }

    /// Whether so many maildrops are few beside those that are there, so that the rest is copied.
    /// Who is in the index and not on the roster gets his line when all of it is read.
    fn are_large_beside(&self, found: usize, scope: &Scope) -> Result<bool, RosterError> {
        let (Some(index), Some(roster)) = (&self.index, &self.roster) else { return Ok(false) };
        let of_domain = roster.get(&name_of_domain(scope.name()))?.is_some();
        let maildrops = roster.line_count()?.saturating_sub(of_domain.into());
        Ok(maildrops == index.maildrop_count() && roster.is_large_beside(found)?)
    }
}

/// The two files of a scope, written and not yet in place.
struct Built {
    paths: Paths,
    index: Staged,
    build_id: [u8; 16],
    roster: Staged,
    /// The lines that are held now and were not before, each with the gate before. The line of the
    /// whole domain may be among them.
    held: Vec<(&'static str, RosterLine)>,
    tally: BuildTally,
}

impl Build<'_> {
    /// Writes the index and roster from the maildrops found and from the files there before.
    fn stage(
        &self,
        found: &[FoundBlock],
        old: OldFiles,
        is_final: bool,
        doubts: &mut Doubts,
    ) -> Result<Built, Trouble> {
        let paths = self.site.paths_of(self.scope);
        let there = OldFiles::open(self.site, self.scope)?;
        if old.index.is_some() != old.roster.is_some() {
            return Err(Trouble::at(
                self.scope.name(),
                "the old site has only one of its index and its roster; restore the other",
            ));
        }
        let was_final = old.index.as_ref().is_some_and(Index::is_final);
        if was_final && !found.is_empty() && !is_final {
            remark(format_args!("{}: was final, and is open again", self.scope.name()));
        }
        let is_final = is_final || (was_final && found.is_empty());

        let at_index = |error: &dyn Display| Trouble::at(paths.index.display(), error);
        let at_roster = |error: &dyn Display| Trouble::at(paths.roster.display(), error);
        let index = self.effect.stage(&paths.index).map_err(|error| at_index(&error))?;
        let rest_is_kept = self.rest_is_kept(&old, &there, found.len());
        let rest_is_kept = rest_is_kept.map_err(|error| at_roster(&error))?;
        // The operator may have held the roster that is already there, also when the build is upon
        // another site.
        let gates = [&old.roster, &there.roster].map(|roster| match roster {
            Some(roster) if rest_is_kept => {
                // The line of the domain, too.
                let domain = name_of_domain(self.scope.name());
                let users = found.iter().map(|found| found.block.user.as_str());
                let names: Vec<&str> = users.chain([&*domain]).collect();
                roster.lines_of(names.into_iter())
            }
            Some(roster) => roster.whole(),
            None => Ok(Roster::new()),
        });
        let [of_old, of_there] = gates;
        let gates = Gates([
            of_old.map_err(|error| at_roster(&error))?,
            of_there.map_err(|error| at_roster(&error))?,
        ]);
        let mut roster = match old.roster {
            Some(old) if rest_is_kept => old,
            _ => RosterEdit::of(Roster::new()),
        };
        let mut writer = Writer::new(BufWriter::with_capacity(READ_OCTETS, index.file()), is_final)
            .map_err(|e| at_index(&e))?;
        let mut maildrops = JoinedMaildrops {
            build: self,
            found: found.iter(),
            old: old.index.as_ref().map(Index::maildrops),
            rest_is_kept,
            gates: &gates,
            changes: Changes { doubts, messages: 0, maildrops: 0, first: None },
        };
        let (mut built_anew, mut tally) = (Vec::new(), BuildTally::default());
        let mut held = Vec::new();
        let of_domain = self.line_of_domain(&gates, &mut held);
        let is_held = self.hold.now || self.hold.domain || of_domain.is_some();
        let first_gate = if is_held { Gate::Held } else { Gate::Guarded };
        while let Some(joined) = maildrops.next()? {
            let (maildrop, messages, is_new) = match joined {
                Joined::Kept(subtree) => {
                    let old = old.index.as_ref().expect("the subtree is of it");
                    writer.copy(old, subtree).map_err(|error| at_index(&error))?;
                    continue;
                }
                Joined::Maildrop(maildrop, is_new) => {
                    writer.push(&maildrop).map_err(|error| at_index(&error))?;
                    let messages = maildrop.entries.len() as u64;
                    (maildrop, messages, is_new)
                }
                Joined::Found(found) => (self.copy(found, &mut writer)?, found.block.entries, true),
            };
            let before = gates.of(&maildrop.user);
            if is_new {
                tally.messages += messages;
                tally.failed += u64::from(maildrop.state == State::Failed);
                *if before.is_some() { &mut tally.again } else { &mut tally.added } += 1;
            }
            let mut line = line_of(&maildrop, is_new, before.as_ref(), first_gate);
            if self.hold.now {
                line = line.held_with_domain();
            }
            match before {
                Some(before) if before.gate_word() == line.gate_word() => {}
                Some(before) if before.awaits_capture() && !line.awaits_capture() => {
                    built_anew.push((line.user.clone(), line.gate));
                }
                Some(before) => held.push((before.gate_word(), line.clone())),
                None => {}
            }
            roster.insert(line).map_err(|error| at_roster(&error))?;
        }
        if let Some(line) = of_domain {
            roster.insert(line).map_err(|error| at_roster(&error))?;
        }
        writer.finish().map_err(|error| at_index(&error))?;
        maildrops.changes.tell(self.scope.name());
        tally.renamed = maildrops.changes.messages as u64;
        tally.gates = (held.len() + built_anew.len()) as u64;
        let new = Index::open(index.file()).map_err(|error| at_index(&error))?;
        let build_id = new.build_id();
        if let Some(there) = &there.index {
            self.drops_nothing(there, &new)?;
        }

        let staged = self.effect.stage(&paths.roster).map_err(|error| at_roster(&error))?;
        let mut out = BufWriter::new(staged.file());
        roster.write(&mut out).map_err(|error| at_roster(&error))?;
        out.flush().map_err(|error| at_roster(&error))?;
        drop(out);
        let mut refused = Vec::new();
        let words = [" failed ", "forgotten"];
        let marked = lines_with_word(staged.file(), &words, |line| refused.push(line));
        marked.map_err(|error| at_roster(&error))?;
        self.warn_of_failed(&refused);
        self.tell_of_forgotten(&built_anew, &refused);
        Ok(Built { paths, index, build_id, roster: staged, held, tally })
    }

    /// Whether all but the maildrops found is copied as it is: they are few, nothing is said of
    /// everybody, and one site alone says what was there.
    fn rest_is_kept(
        &self,
        old: &OldFiles,
        there: &OldFiles,
        found: usize,
    ) -> Result<bool, RosterError> {
        let is_alone = self.is_upon_itself || (there.index.is_none() && there.roster.is_none());
        Ok(is_alone && !self.hold.now && old.are_large_beside(found, self.scope)?)
    }

    /// The line that says that the whole domain is held, if it is.
    fn line_of_domain(
        &self,
        gates: &Gates,
        held: &mut Vec<(&'static str, RosterLine)>,
    ) -> Option<RosterLine> {
        let Scope::Domain(domain) = self.scope else { return None };
        let name = name_of_domain(domain);
        gates.of(&name).or_else(|| {
            let line = self.hold.now.then(|| RosterLine::new(name, State::Empty, Gate::Held))?;
            held.push((NOT_HELD, line.clone()));
            Some(line)
        })
    }

    /// Says whose captures failed, among these lines.
    fn warn_of_failed(&self, lines: &[RosterLine]) {
        let scope = self.scope.name();
        let everybody = everybody_of(Some(scope));
        let is_open = |line: &&RosterLine| line.gate != Gate::Redownload;
        if lines.iter().filter(is_open).any(|line| line.user == everybody) {
            remark(format_args!(
                "{scope}: a place at the old server could not be searched, so every user of this \
                 domain who is not on its roster is refused; when all of it has been captured, or \
                 if nobody is missing: uidl-keep release --redownload '{everybody}'"
            ));
        }
        // A user who was given up downloads again, and is refused nothing.
        let is_one = |line: &&RosterLine| {
            line.state == State::Failed && line.user != everybody && is_open(line)
        };
        let mut failed = lines.iter().filter(is_one);
        if let Some(first) = failed.next() {
            remark(format_args!(
                "{}: {} failed maildrops, their users are refused until they are captured again \
                 (the first: {})",
                self.scope.name(),
                failed.count() + 1,
                first.user
            ));
        }
    }

    /// Says who is built anew, and who of these lines is still forgotten.
    fn tell_of_forgotten(&self, built_anew: &[(String, Gate)], lines: &[RosterLine]) {
        let scope = self.scope.name();
        for (gate, word) in [(Gate::Guarded, "guarded"), (Gate::Held, "held")] {
            let mut users = built_anew.iter().filter(|(_, now)| *now == gate);
            if let Some((first, _)) = users.next() {
                remark(format_args!(
                    "{scope}: {} forgotten maildrops are built anew and {}; their earlier \
                     unique-ids are spent (the first: {first})",
                    users.count() + 1,
                    word,
                ));
            }
        }
        let is_still = |line: &&RosterLine| line.awaits_capture() && line.gate != Gate::Redownload;
        let mut still = lines.iter().filter(is_still);
        if let Some(first) = still.next() {
            remark(format_args!(
                "{scope}: {} maildrops are still forgotten, their users are refused until they are \
                 captured again (the first: {})",
                still.count() + 1,
                first.user
            ));
        }
    }

    /// Checks that the new index drops no UIDL, and no maildrop, of the index that it replaces.
    fn drops_nothing(&self, there: &Index<File>, new: &Index<&File>) -> Result<(), Trouble> {
        let path = self.site.paths_of(self.scope).index;
        if there.build_id() == new.build_id() {
            return Ok(());
        }
        let at = |error: &dyn Display| Trouble::at(path.display(), error);
        let mut unlike = there.maildrops();
        while let Some(maildrop) = unlike.next_unlike(new).map_err(|error| at(&error))? {
            if !self.scope.fits(&maildrop.user) {
                continue;
            }
            let kept = new.maildrop(&maildrop.user).map_err(|error| at(&error))?;
            let lost = match &kept {
                None => maildrop.entries.len().max(1),
                Some(kept) => {
                    let uidls: BTreeSet<_> = uidls(kept).collect();
                    uidls_lost(&maildrop, &uidls)
                }
            };
            if lost > 0 {
                return Err(at(&format_args!(
                    "{lost} unique-ids of {} would be dropped; build --base {}, or into an empty \
                     directory",
                    maildrop.user,
                    self.site.dir().display()
                )));
            }
        }
        Ok(())
    }
}

/// The messages of a scope that a later capture knows by other UIDLs than an earlier one.
struct Changes<'a> {
    doubts: &'a mut Doubts,
    messages: usize,
    maildrops: usize,
    /// The first maildrop with such messages.
    first: Option<String>,
}

impl Changes<'_> {
    fn add(&mut self, merged: &Merged) {
        let user = &merged.maildrop.user;
        let renamed = merged.changed.iter().filter(|changed| changed.later.is_some()).count();
        if renamed > 0 {
            self.messages += renamed;
            self.maildrops += 1;
            self.first.get_or_insert_with(|| user.clone());
        }
        if merged.is_doubtful() {
            self.doubts.add(merged);
        }
    }

    fn tell(&self, scope: &str) {
        if let Some(first) = &self.first {
            remark(format_args!(
                "{scope}: {} messages of {} maildrops have another unique-id than in an earlier \
                 capture, and are served the later one (the first: {first}); `get` shows them",
                self.messages, self.maildrops
            ));
        }
    }
}

/// The maildrops for which two captures differ so much that one of the captures may be of another
/// maildrop.
#[derive(Default)]
struct Doubts {
    maildrops: usize,
    messages: usize,
    in_both: usize,
    /// Some of the messages, to be shown.
    shown: Vec<String>,
}

impl Doubts {
    const MOST_SHOWN: usize = 3;

    fn add(&mut self, merged: &Merged) {
        self.maildrops += 1;
        self.messages += merged.changed.len();
        self.in_both += merged.in_both;
        for changed in merged.changed.iter().take(Self::MOST_SHOWN - self.shown.len()) {
            let name = changed.name.as_deref().map_or("a message".to_owned(), escaped);
            let later = changed.later.as_ref().map_or("another message's".into(), Uidl::to_string);
            let (user, earlier) = (&merged.maildrop.user, &changed.earlier);
            self.shown.push(format!("{user} {name}: {earlier} -> {later}"));
        }
    }

    /// Fails, and shows some of them, if there are any.
    fn settle(&self) -> Result<(), Trouble> {
        if self.maildrops == 0 {
            return Ok(());
        }
        self.shown.iter().for_each(remark);
        Err(Trouble::new(format!(
            "{} of {} messages that two captures have, in {} maildrops, have another unique-id in \
             the later one, such as these; nothing is changed. If the old server gave new ones, \
             build with --later-wins; if a listing is of another server, of a backup or in another \
             format, leave it out",
            self.messages, self.in_both, self.maildrops
        )))
    }
}

/// The rosters of the site that is built upon, and of the one that is written to.
struct Gates([Roster; 2]);

impl Gates {
    /// The line of a user, made of both rosters, so that no order of the operator is lost.
    fn of(&self, user: &str) -> Option<RosterLine> {
        let lines = self.0.iter().filter_map(|roster| roster.get(user));
        lines.cloned().reduce(RosterLine::joined)
    }
}

/// The gate of a domain whose roster has no line for it.
const NOT_HELD: &str = "guarded";

/// The line of a maildrop: the line that a roster had before, brought up to date, or else a new one
/// with this gate.
fn line_of(
    maildrop: &Maildrop,
    is_new: bool,
    before: Option<&RosterLine>,
    gate: Gate,
) -> RosterLine {
    let new = RosterLine::new(&maildrop.user, maildrop.state, gate);
    let before = before.unwrap_or(&new);
    // A capture that failed gives nothing to serve.
    let is_captured_anew = is_new && maildrop.state != State::Failed;
    let mut line = before.clone();
    line.state = maildrop.state;
    if is_new {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        line = line.with_later_capture(now.map_or(0, |since| since.as_secs()));
    }
    line.with_gate(before.gate, before.awaits_capture() && !is_captured_anew)
}

/// All UIDLs of a maildrop.
fn uidls(maildrop: &Maildrop) -> impl Iterator<Item = &[u8]> {
    let entries = maildrop.entries.iter().flat_map(Entry::uidls);
    entries.chain(&maildrop.spent).map(|uidl| uidl.as_bytes())
}

fn uidls_lost(maildrop: &Maildrop, kept: &BTreeSet<&[u8]>) -> usize {
    uidls(maildrop).filter(|uidl| !kept.contains(uidl)).count()
}

/// What writes the index of a scope.
type IndexWriter<'a> = Writer<BufWriter<&'a File>>;

/// The maildrops of an old index and of listings, in the order of users. A maildrop that is in both
/// is joined.
struct JoinedMaildrops<'a> {
    build: &'a Build<'a>,
    found: std::slice::Iter<'a, FoundBlock>,
    old: Option<Maildrops<'a, File>>,
    /// The maildrops of the old index that no listing has are not read.
    rest_is_kept: bool,
    /// These tell which users were forgotten.
    gates: &'a Gates,
    changes: Changes<'a>,
}

/// The next of [`JoinedMaildrops`].
enum Joined<'a> {
    /// Maildrops of the old index as they are.
    Kept(Subtree),
    /// A maildrop, and whether it is in a listing.
    Maildrop(Maildrop, bool),
    /// A maildrop that is in a listing alone.
    Found(&'a FoundBlock),
}

impl<'a> JoinedMaildrops<'a> {
    fn next(&mut self) -> Result<Option<Joined<'a>>, Trouble> {
        let name = self.build.scope.name();
        let at_old = |error: IndexError| Trouble::at(format_args!("{name}: the old index"), error);
        let wanted = self.found.as_slice().first().map(|found| found.block.user.as_str());
        match &mut self.old {
            Some(old) if self.rest_is_kept => {
                if let Some(subtree) = old.subtree_before(wanted).map_err(at_old)? {
                    return Ok(Some(Joined::Kept(subtree)));
                }
            }
            Some(old) => {
                while let Some(user) = old.next_user().map_err(at_old)? {
                    if wanted.is_some_and(|wanted| wanted.as_bytes() <= user) {
                        break;
                    }
                    let maildrop = old.next().transpose().map_err(at_old)?;
                    // The account that owns an index can have written others into it.
                    let fits = |it: &Maildrop| self.build.scope.fits(&it.user);
                    if let Some(maildrop) = maildrop.filter(fits) {
                        return Ok(Some(Joined::Maildrop(maildrop, false)));
                    }
                }
            }
            None => {}
        }
        let Some(found) = self.found.next() else { return Ok(None) };
        let old = self.old.as_mut().map(|old| old.next_of(&found.block.user)).transpose();
        let old = old.map_err(at_old)?.flatten();
        match old {
            Some(old) => {
                let new = self.build.read(found)?;
                let user = old.user.clone();
                let awaits_capture =
                    self.gates.of(&user).as_ref().is_some_and(RosterLine::awaits_capture);
                // A capture that failed gives nothing to put in their place.
                let is_built_anew = awaits_capture && new.state != State::Failed;
                let old = if is_built_anew { spend_entries(old) } else { old };
                let merged = merge(old, new).map_err(|error| {
                    let instead = if awaits_capture {
                        format!("`release --redownload {user}`")
                    } else {
                        "capture to another site".into()
                    };
                    let next = format!("leave its later listing out, and {instead}");
                    Trouble::at(&user, format_args!("{error}; {next}"))
                })?;
                let gate = self.gates.of(&user).map(|line| line.gate);
                let is_given_up = gate == Some(Gate::Redownload);
                let goes_for_him = |said: &&Remark| !(is_given_up && **said == Remark::Failed);
                let remarks = merged.remarks.iter().filter(goes_for_him);
                remarks.for_each(|text| remark(format_args!("{user}: {text}")));
                self.changes.add(&merged);
                Ok(Some(Joined::Maildrop(merged.maildrop, true)))
            }
            None => Ok(Some(Joined::Found(found))),
        }
    }
}

impl Build<'_> {
    /// Reads a maildrop from its place in a listing.
    fn read(&self, found: &FoundBlock) -> Result<Maildrop, Trouble> {
        let mut entries = Vec::with_capacity(found.block.entries as usize);
        let (head, ()) = self.listings.read_each(
            found,
            |_| Ok(()),
            |(), entry| {
                entries.push(entry.to_entry());
                Ok(())
            },
        )?;
        Ok(Maildrop { entries, ..head })
    }

    /// Writes a maildrop from its place in a listing into the index. Returns it without its
    /// messages.
    fn copy(&self, found: &FoundBlock, writer: &mut IndexWriter<'_>) -> Result<Maildrop, Trouble> {
        let at =
            |error: WriteError| Trouble::at(self.site.paths_of(self.scope).index.display(), error);
        let begin = |head: &Maildrop| writer.begin_block(head).map_err(at);
        let (head, block) =
            self.listings.read_each(found, begin, |block: &mut IndexBlock, entry| {
                block.add(&entry).map_err(at)
            })?;
        writer.push_block(block, &head.spent).map_err(at)?;
        Ok(head)
    }
}

impl Built {
    /// All lines of its roster.
    fn lines(&self) -> Result<Roster, Trouble> {
        let lines = Roster::read(self.roster.file());
        lines.map_err(|error| Trouble::at(self.paths.roster.display(), error))
    }

    /// Has both files sealed. The index comes first: who is on a roster must be in the index.
    fn seal(self, sealer: &mut Sealer, access: Access) -> Result<(), Trouble> {
        let Self { paths, index, roster, .. } = self;
        for (staged, path) in [(index, &paths.index), (roster, &paths.roster)] {
            sealer.seal(staged, access).map_err(|error| Trouble::at(path.display(), error))?;
        }
        Ok(())
    }
}
