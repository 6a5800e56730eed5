//! The accounts that may read the files of a scope: those that Dovecot reads mail as.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use uidl_keep::account::{AccountIds, HELPER};
use uidl_keep::doctor::as_owner::{AnswerLimits, ask};
use uidl_keep::dovecot::{Dovecot, NotGuarded, UserNames};
use uidl_keep::file::publish::Access;
use uidl_keep::maildrop::everybody_of;
use uidl_keep::site::Site;

use crate::as_account::READ;
use crate::output::{Trouble, remark};

/// How to ask Dovecot for its users.
#[derive(clap::Args)]
pub struct Doveadm {
    #[command(flatten)]
    program: DoveadmProgram,
    /// Do not ask Dovecot whether POP3 loads the plugin, and whether users have the same names
    /// there.
    #[arg(long)]
    no_check: bool,
}

/// The doveadm of a Dovecot.
#[derive(clap::Args)]
pub struct DoveadmProgram {
    /// The doveadm program that knows the users.
    #[arg(long, value_name = "PATH", default_value = "doveadm")]
    doveadm: PathBuf,
    /// Arguments for doveadm, separated by blanks: `-c /etc/dovecot/other.conf`.
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    doveadm_args: String,
}

impl DoveadmProgram {
    /// The Dovecot of this doveadm.
    pub fn dovecot(&self) -> Dovecot {
        Dovecot::new(&self.doveadm, self.doveadm_args.split_whitespace().map(str::to_owned))
    }
}

/// The accounts that read the files of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readers {
    /// The uids of its users.
    uids: BTreeSet<u32>,
    /// The one gid that they all have. When there is nothing to hide, one that some of them have.
    gid: u32,
    /// The accounts that could read the same through that gid.
    others: Others,
}

/// The accounts that have the gid of a scope's readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    /// No account of another uid.
    Nobody,
    /// Accounts of other uids have it too.
    Somebody,
    /// Anybody may know what the files say: somebody of the domain was missed.
    MayKnow,
}

/// Whether Dovecot could be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    Yes,
    No,
}

fn not_checked(why: impl Display) -> Checked {
    remark(format_args!(
        "not checked whether Dovecot guards these users: {why}; name the Dovecot of this site with \
         --doveadm and --doveadm-args"
    ));
    Checked::No
}

fn refused(fault: &NotGuarded) -> Trouble {
    Trouble::new(format!("{fault}; nothing is changed, and --no-check goes on all the same"))
}

/// How long a reader may take to open files, and how many octets a second it checks at least.
const PATIENCE: Duration = Duration::from_secs(60);
const LEAST_A_SECOND: u64 = 4 << 20;
/// More than it says of two files.
const MOST_SAID_OCTETS: u64 = 1 << 20;

/// The users in one question: an argument list has its limits.
const USERS_AT_A_TIME: usize = 200;

impl Doveadm {
    /// The Dovecot of this doveadm.
    pub fn dovecot(&self) -> Dovecot {
        self.program.dovecot()
    }

    /// Whether Dovecot may be asked how it treats users.
    pub fn is_checking(&self) -> bool {
        !self.no_check
    }

    /// Whether the operator wants nothing checked.
    pub fn is_unchecked(&self) -> bool {
        self.no_check
    }

    /// Refuses to go on when Dovecot would serve the users of a site whatever its rosters say. When
    /// that cannot be found out, this says so.
    ///
    /// # Errors
    ///
    /// The fault, and what to do.
    pub fn check_pop3(&self, site: &Site) -> Result<Checked, Trouble> {
        if self.no_check {
            return Ok(Checked::No);
        }
        let fault = match self.dovecot().fault_of_pop3() {
            Ok(fault) => fault,
            Err(error) => return Ok(not_checked(error)),
        };
        if !site.is_of_plugin() {
            let place = Site::DEFAULT_DIR;
            return Ok(not_checked(format_args!(
                "{}: the plugin looks into another site, {place}",
                site.dir().display()
            )));
        }
        match fault {
            Some(fault) => Err(refused(&fault)),
            None => Ok(Checked::Yes),
        }
    }

    /// As [`Doveadm::check_pop3`], for the names that Dovecot gives users.
    ///
    /// # Errors
    ///
    /// The fault, and what to do.
    pub fn check_names(&self, users: &[String]) -> Result<(), Trouble> {
        match self.dovecot().names(users) {
            Ok(names) => self.check_renamed(&names),
            Err(error) => {
                not_checked(error);
                Ok(())
            }
        }
    }

    /// The same, for names that are known already.
    ///
    /// # Errors
    ///
    /// The fault, and what to do.
    pub fn check_renamed(&self, names: &UserNames) -> Result<(), Trouble> {
        match self.dovecot().fault_of_names(names).filter(|_| !self.no_check) {
            Some(fault) => Err(refused(&fault)),
            None => Ok(()),
        }
    }

    /// The accounts that read the files of a scope with these users, as Dovecot says. `None` when
    /// there are no users, only a note that somebody of the domain was missed, and Dovecot lists
    /// nobody of it either.
    ///
    /// # Errors
    ///
    /// Dovecot cannot be asked, knows none of the users, or gives them several groups.
    pub fn readers(&self, scope: &str, users: &[String]) -> Result<Option<Readers>, Trouble> {
        // This is a user of a domain who has files of his own: they hold nobody else.
        if scope.contains('@') {
            return self.reader(scope).map(Some);
        }
        let everybody;
        let is_nobody = users.is_empty();
        let users = if is_nobody {
            everybody = self.everybody(scope)?;
            &everybody
        } else {
            users
        };
        if users.is_empty() {
            return Ok(None);
        }
        let uids = self.ids(scope, users, "uid", "passwd")?;
        let gids = self.ids(scope, users, "gid", "group")?;
        let mut gids = gids.into_iter();
        let (gid, others) = match (gids.next(), gids.next()) {
            (Some(gid), None) if is_shared(gid, &uids)? => (gid, Others::Somebody),
            (Some(gid), None) => (gid, Others::Nobody),
            (Some(gid), Some(_)) if is_nobody => (gid, Others::MayKnow),
            _ => {
                return Err(Trouble::at(
                    scope,
                    "its users are on one roster and have several gids, or none: no file mode lets \
                     only them read; give them one group, or build all their listings to a new \
                     site, where each user gets files of his own",
                ));
            }
        };
        Ok(Some(Readers { uids, gid, others }))
    }

    /// The account that reads the files of one user alone.
    fn reader(&self, user: &str) -> Result<Readers, Trouble> {
        let users = [user.to_owned()];
        let uids = self.ids(user, &users, "uid", "passwd")?;
        let gids = self.ids(user, &users, "gid", "group")?;
        let gid = gids.into_iter().next().expect("none is an error");
        // An account that the system does not know may share his gid. His uid is his alone.
        Ok(Readers { uids, gid, others: Others::Somebody })
    }

    /// Whether these users of a domain have several groups, so that no one group could read for
    /// all.
    pub fn gives_several_groups(&self, users: &[String]) -> Result<bool, Trouble> {
        Ok(self.known_ids(users, "gid", "group")?.0.len() > 1)
    }

    /// All users of a domain that Dovecot can list.
    fn everybody(&self, domain: &str) -> Result<Vec<String>, Trouble> {
        let mut command = Command::new(&self.program.doveadm);
        command.args(self.program.doveadm_args.split_whitespace());
        command.args(["user", "--", &everybody_of(Some(domain))]);
        let listed = output_of(&mut command)?.stdout;
        Ok(String::from_utf8_lossy(&listed).lines().map(ToOwned::to_owned).collect())
    }

    /// All values of a field for those of these users whom Dovecot knows, and what Dovecot says
    /// about the others.
    fn known_ids(
        &self,
        users: &[String],
        field: &str,
        database: &str,
    ) -> Result<(BTreeSet<u32>, Vec<String>), Trouble> {
        let mut ids = BTreeSet::new();
        let mut unknown = Vec::new();
        for users in users.chunks(USERS_AT_A_TIME) {
            let mut command = Command::new(&self.program.doveadm);
            command.args(self.program.doveadm_args.split_whitespace());
            command.args(["user", "-f", field, "--"]).args(users);
            let output = output_of(&mut command)?;
            for value in String::from_utf8_lossy(&output.stdout).split_whitespace() {
                ids.insert(id_of(value, database)?);
            }
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                unknown.extend(said.lines().find(|line| !line.is_empty()).map(str::to_owned));
            }
        }
        Ok((ids, unknown))
    }

    /// All values of a field for these users.
    fn ids(
        &self,
        scope: &str,
        users: &[String],
        field: &str,
        database: &str,
    ) -> Result<BTreeSet<u32>, Trouble> {
        let (ids, unknown) = self.known_ids(users, field, database)?;
        if ids.is_empty() {
            let said = unknown.first().map(|said| first_line_of(said));
            return Err(Trouble::at(
                scope,
                format_args!(
                    "doveadm gives no {field} for its users ({}); look at its user database, or \
                     give --doveadm-args",
                    said.as_deref().unwrap_or("and no error")
                ),
            ));
        }
        Ok(ids)
    }
}

impl Readers {
    /// The owner and mode that let these accounts read, and nobody else.
    pub fn access(&self, scope: &str) -> Access {
        let mut uids = self.uids.iter();
        match (self.others, uids.next(), uids.next()) {
            (Others::MayKnow, _, _) => Access { mode: 0o644, owner: Some((0, 0)) },
            // A panel that gives all its accounts one group.
            (Others::Somebody, Some(&uid), None) => {
                Access { mode: 0o400, owner: Some((uid, self.gid)) }
            }
            (others, _, other) => {
                if others == Others::Somebody && other.is_some() {
                    remark(format_args!(
                        "{scope}: its users have several uids, and accounts outside it have their \
                         gid {}, too: these can read its index",
                        self.gid
                    ));
                }
                Access { mode: 0o640, owner: Some((0, self.gid)) }
            }
        }
    }

    /// Opens files as each of the readers will. The first reader also checks them.
    ///
    /// # Errors
    ///
    /// A reader cannot open one of them.
    pub fn try_to_read(&self, paths: &[PathBuf]) -> Result<(), Trouble> {
        let paths: Result<Vec<_>, _> = paths.iter().map(std::path::absolute).collect();
        let paths = paths.map_err(|error| Trouble::at("current directory", error))?;
        let octets: u64 = paths.iter().filter_map(|path| Some(path.metadata().ok()?.len())).sum();
        // The checks say nothing before they are done.
        let silence = PATIENCE.saturating_add(Duration::from_secs(octets / LEAST_A_SECOND));
        let limits = AnswerLimits { silence, whole: silence, octets: MOST_SAID_OCTETS };
        let mut how = ["--whole"].as_slice();
        for &uid in &self.uids {
            let account = AccountIds { uid, gid: self.gid };
            let mut command = Command::new(HELPER);
            command
                .args([READ, "--account", &account.to_string()])
                .args(how)
                .arg("--")
                .args(&paths);
            how = &[];
            ask(command.current_dir("/"), b"", limits).map_err(|error| {
                Trouble::new(format!(
                    "uid {uid}, gid {} cannot read what was installed: {}; look at the permissions \
                     of the directories above it",
                    self.gid,
                    first_line_of(&error.to_string())
                ))
            })?;
        }
        Ok(())
    }
}

/// The first line that another program said, and not too much of it.
fn first_line_of(said: &str) -> String {
    said.lines().next().unwrap_or_default().chars().take(300).collect()
}

fn output_of(command: &mut Command) -> Result<Output, Trouble> {
    let program = command.get_program().to_os_string();
    command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Trouble::at(Path::new(&program).display(), error))
}

/// An id, given as a number or as a name that the system knows.
fn id_of(value: &str, database: &str) -> Result<u32, Trouble> {
    if let Ok(id) = value.parse() {
        return Ok(id);
    }
    let line = getent(&[database, value])?;
    let id = line.split(':').nth(2).and_then(|id| id.trim_end().parse().ok());
    id.ok_or_else(|| Trouble::new(format!("getent {database} knows no {}", first_line_of(value))))
}

/// The group of an account; `None` when the system knows none of that name.
pub fn gid_of_account(name: &str) -> Result<Option<u32>, Trouble> {
    let line = getent(&["passwd", name])?;
    Ok(line.split(':').nth(3).and_then(|gid| gid.parse().ok()))
}

/// Whether accounts with other uids than these have a gid.
fn is_shared(gid: u32, uids: &BTreeSet<u32>) -> Result<bool, Trouble> {
    let accounts = getent(&["passwd"])?;
    let is_other = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let uid = fields.next().and_then(|uid| uid.parse::<u32>().ok());
        uid.is_some_and(|uid| !uids.contains(&uid))
    };
    let has_gid = |line: &str| line.split(':').nth(3) == Some(&gid.to_string());
    let group = getent(&["group", &gid.to_string()])?;
    let members: Vec<&str> =
        group.trim_end().split(':').nth(3).unwrap_or_default().split(',').collect();
    let is_member = |line: &str| members.contains(&line.split(':').next().unwrap_or_default());
    Ok(accounts.lines().any(|line| is_other(line) && (has_gid(line) || is_member(line))))
}

/// The system's entry for a name, local or not; empty when it does not know the name.
fn getent(args: &[&str]) -> Result<String, Trouble> {
    let output = output_of(Command::new("getent").args(args))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
