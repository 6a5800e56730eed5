//! `uidl-keep verify`: what the new server lists over POP3, compared with what clients know.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use uidl_keep::capture::fleet::{self, Accounts, FleetOptions, LoginTemplate, ServerOptions};
use uidl_keep::capture::keys::Keys;
use uidl_keep::capture::pop3::{Credential, Listed, Pin, Retrieve, Trust};
use uidl_keep::forecast::ForecastSign;
use uidl_keep::listing::Reader;
use uidl_keep::maildrop::is_everybody;
use uidl_keep::site::Site;
use uidl_keep::site::roster::is_domain;
use uidl_keep::text::printable;
use uidl_keep::verify::{Expected, OfSite, Verification, compare, of_site};

use crate::capture::pop3::accounts::{LoginArgs, NamedAccounts};
use crate::capture::pop3::line::{LineArgs, PaceArgs};
use crate::capture::pop3::password::{guard_memory, password_in};
use crate::capture::progress::Progress;
use crate::capture::prove::SecurityArg;
use crate::output::{Completion, Trouble, remark};
use crate::signs::{SignCounts, Signed, SignedMaildrop};
use crate::site_files;

/// Compares what the new server lists over POP3 with what clients know.
///
///   uidl-keep verify --new mail.example.com --accounts accounts.csv last.uidl
///
///   uidl-keep verify --new mail.example.com --old mail.old.example --accounts accounts.csv
///
/// Logs in to each account as a client does, and asks for the unique-id listing; nothing is
/// downloaded and nothing deleted. What clients know is in a listing, in a site (--site), or is
/// what the old server lists now (--old). The accounts are named as for `capture pop3`; on the new
/// server they log in by new_user, where that is given.
///
/// To the server this is a listing like any other. On a server with the plugin it may be the first
/// one of a maildrop: what it is told stays. So verify what was released, or rehearse instead; a
/// held user is refused here as well. On an old server it changes what a client's listing changes.
/// Verify before clients have deleted mail or got new mail, or those are seen as differences.
///
/// Prints a line for each maildrop, the worst first, and a total. Each line begins with a sign:
///
/// "=" whole: all that clients know is listed by the same UIDL, in the same order, and no more;
/// "+" whole, and new messages behind it;
/// "-" messages are missing: not there, or there by another UIDL;
/// "*" messages stand in another order, or one is listed by a UIDL that clients may hold for
/// another message, so that they skip it;
/// "!" could not tell.
///
/// Exit status 0: each is whole, or has new messages behind. 1: something else; or a maildrop of
/// the listing or site has no account. 2: trouble.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, arg_required_else_help = true)]
#[command(group(clap::ArgGroup::new("whose").args(["user", "users", "accounts"]).required(true)))]
#[command(group(clap::ArgGroup::new("known").args(["listing", "site", "old"]).required(true)))]
pub struct VerifyArgs {
    /// The new server, as HOST or HOST:PORT.
    #[arg(long, value_name = "HOST")]
    new: String,
    /// The old server, as HOST or HOST:PORT: compare with what it lists now. With --accounts, of
    /// lines that name none.
    #[arg(long, value_name = "HOST")]
    old: Option<String>,
    /// Compare with what was captured of this site.
    #[arg(long, value_name = "SITE")]
    site: Option<PathBuf>,
    /// Compare with this listing; `-` is standard input.
    #[arg(value_name = "LISTING")]
    listing: Option<PathBuf>,
    /// One account: its login name.
    #[arg(long, value_name = "LOGIN")]
    user: Option<String>,
    /// The user name of that account on the new server [default: LOGIN].
    #[arg(long, value_name = "NAME", requires = "user")]
    new_user: Option<String>,
    /// Accounts that a master user opens: a file with a login name, and perhaps the user name on
    /// the new server, on each line. - is standard input.
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// Accounts with a password each: a CSV file whose first line names its columns, of host, user,
    /// password and new_user. - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "login_template")]
    accounts: Option<PathBuf>,
    #[command(flatten)]
    login: LoginArgs,
    /// Who logs in at the old server [default: as at the new one].
    #[arg(long, value_name = "TEMPLATE", requires = "old", conflicts_with = "accounts")]
    old_login_template: Option<String>,
    /// The password at the old server is the first line of this file [default: that of the new].
    #[arg(long, value_name = "FILE", requires = "old", conflicts_with = "accounts")]
    old_password_file: Option<PathBuf>,
    #[command(flatten)]
    line: LineArgs,
    /// How passwords are kept secret on the way to the old server [default: as to the new one].
    #[arg(long, value_enum, value_name = "HOW", requires = "old")]
    old_security: Option<SecurityArg>,
    /// Take this certificate of the old server and no other, as with --pin [default: as of the new
    /// one].
    #[arg(long, value_name = "SHA256", requires = "old")]
    old_pin: Option<Pin>,
    /// How long to wait for a connection or an answer.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "60s",
        value_parser = humantime::parse_duration
    )]
    timeout: Duration,
    #[command(flatten)]
    pace: PaceArgs,
    /// Print a JSON object a line: one for each maildrop, and one for the total.
    #[arg(long)]
    json: bool,
}

/// The two servers with the same accounts, in the same order.
struct Servers {
    new: Accounts,
    old: Option<Accounts>,
}

/// What is known of the users: by user name on the new server.
enum Expectations {
    Listing(PathBuf, HashMap<String, Result<Expected, String>>),
    Site(Site, BTreeSet<String>),
    /// What the old server lists now.
    Old(HashMap<String, Result<Expected, String>>),
}

/// What is said of one maildrop.
type VerifyLine = SignedMaildrop<Verification>;

pub fn run(args: &VerifyArgs) -> Result<Completion, Trouble> {
    guard_memory()?;
    let Servers { new, old } = args.servers()?;
    let options = args.options();
    let (known, others) = args.known(&new, old.as_ref(), &options)?;

    let (mut lines, mut wanted, mut given_up) = (Vec::new(), HashMap::new(), 0);
    for (at, account) in new.all.iter().enumerate() {
        let user = account.user.clone();
        match known.of(&user) {
            Ok(Some(expected)) => {
                wanted.insert(at, expected);
            }
            Ok(None) => given_up += 1,
            Err(why) => lines.push(VerifyLine { user, found: Err(why) }),
        }
    }
    let mut asked: Vec<usize> = wanted.keys().copied().collect();
    asked.sort_unstable();
    list(&new, asked, &options, |at, listed| {
        let found = listed.map(|listed| compare(&wanted[&at], listed.iter().map(|it| &*it.uidl)));
        lines.push(VerifyLine { user: new.all[at].user.clone(), found });
    })?;
    VerifyLine::sort(&mut lines);
    print(args.json, &lines, given_up)?;
    if let Some(first) = others.first() {
        remark(format_args!(
            "{} maildrops have no account here and are not verified (the first: {first})",
            others.len()
        ));
    }
    let is_well = |line: &VerifyLine| line.sign() >= ForecastSign::NewOnly;
    let all_well = lines.iter().all(is_well) && others.is_empty();
    Ok(if all_well { Completion::Done } else { Completion::Partial })
}

/// Lists the accounts with these numbers, and shows how far it is.
fn list(
    accounts: &Accounts,
    wanted: Vec<usize>,
    options: &FleetOptions,
    mut take: impl FnMut(usize, Result<Vec<Listed>, String>),
) -> Result<(), Trouble> {
    let progress = Progress::new(wanted.len(), wanted.len() < 2, true);
    fleet::list(accounts, wanted, options, &progress, |settled| {
        progress.count_maildrop(settled.block.is_err());
        take(settled.at, settled.block);
        Ok::<_, Trouble>(())
    })?;
    progress.finish();
    Ok(())
}

impl VerifyArgs {
    /// The accounts on the new server, and on the old one where that is asked.
    fn servers(&self) -> Result<Servers, Trouble> {
        let options =
            ServerOptions { security: self.line.security(), trust: self.line.trust(), port: None };
        let server = fleet::server(&self.new, &options).map_err(|e| Trouble::at("--new", e))?;
        let template = self.login.template();
        let listed = match &self.old {
            Some(old) => {
                let security = self.old_security.map(SecurityArg::security);
                let trust = self.old_pin.map(Trust::Pinned);
                let options = ServerOptions {
                    security: security.unwrap_or(options.security),
                    trust: trust.unwrap_or_else(|| options.trust.clone()),
                    port: None,
                };
                let text = self.old_login_template.as_ref().or(template.text.as_ref());
                let template = LoginTemplate { text: text.cloned(), ..template.clone() };
                self.named(("--old", old), &options, &template)?
            }
            None => self.named(("--new", &self.new), &options, &template)?,
        };
        let new = listed
            .moved_to(server, &template)
            .map_err(|error| Trouble::at("--login-template", error))?;
        if self.old.is_none() {
            return Ok(Servers { new, old: None });
        }
        let mut old = listed;
        if let Some(file) = &self.old_password_file {
            let password = Credential::Password(password_in(file)?);
            old.all.iter_mut().for_each(|account| account.credential = password.clone());
        }
        Ok(Servers { new, old: Some(old) })
    }

    /// The accounts that are named, on that host.
    fn named(
        &self,
        (option, host): (&str, &str),
        options: &ServerOptions,
        template: &LoginTemplate,
    ) -> Result<Accounts, Trouble> {
        let named = NamedAccounts {
            user: self.user.as_ref().map(|user| (user, self.new_user.as_ref().unwrap_or(user))),
            users: self.users.as_deref(),
            accounts: self.accounts.as_deref(),
        };
        named.on((option, Some(host)), options, (&self.login, template), self.timeout)
    }

    fn options(&self) -> FleetOptions {
        FleetOptions {
            keys: Keys::default(),
            retrieve: Retrieve::Never,
            timeout: self.timeout,
            most_time: self.timeout,
            most_octets: 0,
            command_gap: self.pace.command_gap(),
            login_gap: self.pace.login_gap(),
            limits: self.pace.limits(),
            jobs: self.pace.jobs(),
        }
    }

    /// What is known of the users, and the users who are known and have no account. Somebody who
    /// names one account asks for nobody else.
    fn known(
        &self,
        new: &Accounts,
        old: Option<&Accounts>,
        options: &FleetOptions,
    ) -> Result<(Expectations, BTreeSet<String>), Trouble> {
        let known = match (&self.site, &self.listing, old) {
            (Some(site), ..) => {
                let site = Site::new(site);
                let users = users_on_rosters(&site)?;
                Expectations::Site(site, users)
            }
            (_, Some(path), _) => Expectations::Listing(path.clone(), read_listing(path)?),
            (.., Some(old)) => {
                let mut listed = HashMap::new();
                list(old, (0..old.all.len()).collect(), options, |at, found| {
                    let found = found
                        .map(|found| Expected::of_listing(found.into_iter().map(|it| it.uidl)));
                    let found = found.map_err(|why| format!("at the old server: {why}"));
                    listed.insert(old.all[at].user.clone(), found);
                })?;
                Expectations::Old(listed)
            }
            _ => unreachable!("clap requires one of the three"),
        };
        let mut others = match &known {
            Expectations::Listing(_, all) => all.keys().cloned().collect(),
            Expectations::Site(_, users) => users.clone(),
            Expectations::Old(_) => BTreeSet::new(),
        };
        new.all.iter().for_each(|account| {
            others.remove(&account.user);
        });
        Ok((known, if self.user.is_some() { BTreeSet::new() } else { others }))
    }
}

impl Expectations {
    /// What clients of a user know; `None` where they are to download everything again.
    fn of(&self, user: &str) -> Result<Option<Expected>, String> {
        match self {
            Self::Listing(path, all) => {
                let none = || Err(format!("no maildrop of that name in {}", path.display()));
                all.get(user).cloned().unwrap_or_else(none).map(Some)
            }
            Self::Old(all) => {
                let none = || Err("the old server was not asked".to_owned());
                all.get(user).cloned().unwrap_or_else(none).map(Some)
            }
            Self::Site(site, _) => match of_site(site, user)? {
                OfSite::Expected(expected) => Ok(Some(expected)),
                OfSite::Redownload => Ok(None),
            },
        }
    }
}

/// What clients know by a listing, by user.
fn read_listing(path: &Path) -> Result<HashMap<String, Result<Expected, String>>, Trouble> {
    let at = |error: &dyn std::fmt::Display| Trouble::new(format!("{}:{error}", path.display()));
    let input: Box<dyn io::Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(|error| Trouble::at(path.display(), error))?)
    };
    let mut known = HashMap::new();
    for maildrop in Reader::new(BufReader::new(input)) {
        let maildrop = maildrop.map_err(|error| at(&error))?;
        let user = maildrop.user.clone();
        if is_everybody(&user) {
            remark(format_args!("{}: {user}: {}", path.display(), maildrop.remarks.join("; ")));
            continue;
        }
        if known.insert(user.clone(), Expected::of(&maildrop)).is_some() {
            let next = "keep the later one, or build both and say --site";
            return Err(Trouble::at(path.display(), format_args!("{user} is there twice; {next}")));
        }
    }
    Ok(known)
}

fn users_on_rosters(site: &Site) -> Result<BTreeSet<String>, Trouble> {
    let mut users = BTreeSet::new();
    for scope in site_files::scopes(site)? {
        let Some(roster) = site_files::read_roster(site, &scope)? else {
            return Err(Trouble::at(
                site.paths_of(&scope).roster.display(),
                "not there, but its index is: put it back, or build and install both again",
            ));
        };
        let named = roster.lines().map(|line| &line.user);
        users.extend(named.filter(|user| !is_domain(user) && !is_everybody(user)).cloned());
    }
    Ok(users)
}

/// So many UIDLs are named in a sentence.
const MOST_NAMED: usize = 5;

/// The first of these UIDLs.
fn first_of(uidls: &[Box<[u8]>]) -> String {
    let first: Vec<String> = uidls.iter().take(MOST_NAMED).map(|uidl| printable(uidl)).collect();
    let more = if uidls.len() > MOST_NAMED { ", ..." } else { "" };
    format!("{}{more}", first.join(", "))
}

impl Signed for Verification {
    fn sign(&self) -> ForecastSign {
        Verification::sign(self)
    }

    fn missing(&self) -> usize {
        self.missing.len()
    }

    fn sentence(&self) -> String {
        let Self { expected, kept, missing, older, new, reused, out_of_order, .. } = self;
        let mut said = format!("{kept} of {expected} kept");
        // Writing to a String cannot fail.
        if !missing.is_empty() {
            let _ = write!(said, ", {} missing ({})", missing.len(), first_of(missing));
        }
        if *new > 0 {
            let _ = write!(said, ", {new} new");
        }
        if *older > 0 {
            let _ = write!(said, ", {older} of an earlier capture alone");
        }
        if let Some(place) = out_of_order {
            let _ = write!(said, ", in another order (first at message {place})");
        }
        if !reused.is_empty() {
            let what = "listed by a UIDL that clients may hold for another message";
            let _ = write!(said, ", {} {what} ({})", reused.len(), first_of(reused));
        }
        said
    }
}

/// The fields of a JSON object.
fn json_of(found: &Verification) -> Value {
    let all = |uidls: &[Box<[u8]>]| -> Vec<String> {
        uidls.iter().map(|uidl| String::from_utf8_lossy(uidl).into_owned()).collect()
    };
    json!({
        "listed": found.listed,
        "expected": found.expected,
        "kept": found.kept,
        "missing": all(&found.missing),
        "new": found.new,
        "older": found.older,
        "reused": all(&found.reused),
        "out_of_order": found.out_of_order,
    })
}

/// What is said of all.
#[derive(Default)]
struct VerifyTotal {
    signs: SignCounts,
    expected: usize,
    kept: usize,
    missing: usize,
    new: usize,
    given_up: usize,
}

impl VerifyTotal {
    fn of(lines: &[VerifyLine], given_up: usize) -> Self {
        let mut total = Self { given_up, ..Self::default() };
        for line in lines {
            total.signs.add(line.sign());
            let Ok(found) = &line.found else { continue };
            total.expected += found.expected;
            total.kept += found.kept;
            total.missing += found.missing.len();
            total.new += found.new;
        }
        total
    }

    fn sentence(&self) -> String {
        let Self { expected, kept, missing, new, given_up, .. } = self;
        let mut said = format!(
            "{}: {kept} of {expected} messages kept, {missing} missing, {new} new",
            self.signs.sentence()
        );
        if *given_up > 0 {
            let _ = write!(said, "; left out: {given_up} set to redownload");
        }
        said
    }

    fn json(&self) -> Value {
        json!({
            "total": {
                "maildrops": self.signs.json(),
                "expected": self.expected,
                "kept": self.kept,
                "missing": self.missing,
                "new": self.new,
                "redownload": self.given_up,
            }
        })
    }
}

fn print(is_json: bool, lines: &[VerifyLine], given_up: usize) -> Result<(), Trouble> {
    let total = VerifyTotal::of(lines, given_up);
    let mut out = BufWriter::new(io::stdout().lock());
    for line in lines {
        if is_json {
            writeln!(out, "{}", line.json(json_of))?;
        } else {
            writeln!(out, "{}", line.line())?;
        }
    }
    if is_json {
        writeln!(out, "{}", total.json())?;
    } else {
        writeln!(out, "{}", total.sentence())?;
    }
    out.flush()?;
    Ok(())
}
