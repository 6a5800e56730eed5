//! The place from which the servers of a test come: this machine, or a tree that `make trees` made.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::lacking;
use crate::shared::is_root;

/// A Dovecot release line, as far as configuration and plugin differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// 2.3: `mail_location`, `plugin {}`.
    V23,
    /// 2.4: `mail_driver` and `mail_path`, no `plugin {}`.
    V24,
}

impl Line {
    /// The line of the Dovecot that tests are run on, if they do not name another.
    pub fn subject() -> Self {
        Subject::named().map_or(Self::V23, |subject| subject.line)
    }

    /// The lines on which a test is run that is to hold on both: where a Dovecot is named, that of
    /// this one alone.
    pub fn asked() -> Vec<Self> {
        Subject::named().map_or_else(|| vec![Self::V23, Self::V24], |subject| vec![subject.line])
    }
}

/// The cases of a test that has some of them on one line and some on the other. Where a Dovecot is
/// named, all are run on this one, each once.
pub fn asked<C: Case>(cases: impl IntoIterator<Item = C>) -> Vec<C> {
    let Some(subject) = Subject::named() else { return cases.into_iter().collect() };
    let mut asked = Vec::new();
    for case in cases {
        let case = case.on(subject.line);
        if !asked.contains(&case) {
            asked.push(case);
        }
    }
    asked
}

/// A case of a test: a line of Dovecot, and what else there is.
pub trait Case: PartialEq {
    /// The same on that line.
    fn on(self, line: Line) -> Self;
}

impl<A: PartialEq> Case for (Line, A) {
    fn on(self, line: Line) -> Self {
        (line, self.1)
    }
}

impl<A: PartialEq, B: PartialEq> Case for (Line, A, B) {
    fn on(self, line: Line) -> Self {
        (line, self.1, self.2)
    }
}

impl<A: PartialEq, B: PartialEq, C: PartialEq> Case for (Line, A, B, C) {
    fn on(self, line: Line) -> Self {
        (line, self.1, self.2, self.3)
    }
}

/// A Dovecot on which the tests can be run. `UIDL_KEEP_DOVECOT` names one by its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// The version, without what distributions add.
    pub version: &'static str,
    line: Line,
    /// The tree that it is in; this machine's own where `None`.
    tree: Option<&'static str>,
}

/// The first of each line is the one that is taken where none is named. That of 2.4 is in a tree:
/// we may not fill this machine's place for modules.
const SUBJECTS: [Subject; 5] = [
    Subject { version: "2.3.19", line: Line::V23, tree: None },
    Subject { version: "2.4.1", line: Line::V24, tree: Some("dovecot24") },
    Subject { version: "2.3.13", line: Line::V23, tree: Some("dovecot2313") },
    Subject { version: "2.3.21", line: Line::V23, tree: Some("dovecot2321") },
    Subject { version: "2.4.5", line: Line::V24, tree: Some("dovecot245") },
];

impl Subject {
    /// The one that `UIDL_KEEP_DOVECOT` names; `None` where it is not set, or empty.
    ///
    /// # Panics
    ///
    /// Where it names none that there is.
    pub fn named() -> Option<Self> {
        static NAMED: OnceLock<Option<Subject>> = OnceLock::new();
        *NAMED.get_or_init(|| {
            let name = std::env::var("UIDL_KEEP_DOVECOT").unwrap_or_default();
            let found = SUBJECTS.into_iter().find(|subject| subject.version == name);
            let versions = SUBJECTS.map(|subject| subject.version).join(", ");
            assert!(
                found.is_some() || name.is_empty(),
                "UIDL_KEEP_DOVECOT is {name:?}: it is one of {versions}"
            );
            found
        })
    }

    /// The one that is asked for by its line alone.
    pub fn of(line: Line) -> Self {
        let named = Self::named().filter(|subject| subject.line == line);
        named.unwrap_or_else(|| Self::first(line))
    }

    /// The target of `make` that installs it, and builds its plugin.
    pub fn make(self) -> &'static str {
        if self == Self::first(self.line) { "deps test-plugins" } else { "test-platforms" }
    }

    fn first(line: Line) -> Self {
        SUBJECTS.into_iter().find(|subject| subject.line == line).expect("one of each line")
    }

    /// The directory that has its plugin below `target`; `None` if that lies beside the helper.
    pub fn build_dir(self) -> Option<&'static str> {
        match self.version {
            "2.3.19" => None,
            "2.4.1" => Some("dovecot-2.4/modules"),
            // These are what is packaged.
            "2.3.13" => Some("abi/2.3.ABIv13"),
            "2.3.21" => Some("abi/2.3.ABIv21"),
            "2.4.5" => Some("abi/2.4.ABIv5"),
            version => unreachable!("{version} is none of ours"),
        }
    }
}

/// The reasons why a test cannot be run on the Dovecot of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It asks a debug build of the plugin for faults.
    NoFaults,
    /// It runs a program of this machine's over Dovecot's own: a tree has none.
    NoTools,
    /// It is about what is installed on this machine.
    ThisMachine,
    /// What it writes into dovecot.conf has no other spelling, or no tests in another.
    Spelling,
    /// Dovecot 2.4 itself crashes on its way, with the plugin and without.
    Crashes,
}

impl Unfit {
    fn why(self) -> &'static str {
        match self {
            Self::NoFaults => "the plugin of a tree is a release, which has no faults on request",
            Self::NoTools => "there is no strace or valgrind in a tree",
            Self::ThisMachine => "it is about what is installed on this machine",
            Self::Crashes => "Dovecot 2.4 itself crashes on its way",
            Self::Spelling => "its configuration is spelled for Dovecot 2.3",
        }
    }

    /// Whether a Dovecot is named on which this test cannot be run. If so, it says why, and writes
    /// a line into `target/unfit-VERSION`.
    pub fn is_asked(self) -> bool {
        let is_unfit = |subject: &Subject| match self {
            Self::Spelling | Self::Crashes => subject.line == Line::V24,
            _ => subject.tree.is_some(),
        };
        let Some(subject) = Subject::named().filter(is_unfit) else { return false };
        let thread = std::thread::current();
        let said = format!("{}: {}\n", thread.name().unwrap_or("a test"), self.why());
        eprint!("not on {}: {said}", subject.version);
        let file = format!("target/unfit-{}", subject.version);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let list = std::fs::File::options().append(true).create(true).open(&file);
        let wrote = list.and_then(|mut list| list.write_all(said.as_bytes()));
        wrote.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        true
    }
}

/// A file system root with servers in it: `/`, or a tree entered by chroot.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
    line: Option<Line>,
    /// Files that lie in the place of others, for programs started through this value and for
    /// nobody else.
    mounts: Vec<(PathBuf, PathBuf)>,
}

impl Host {
    /// The Dovecot of that release line: the one that is named, or else this machine's own 2.3 or
    /// the 2.4 of its tree.
    ///
    /// `None`, having said why, when there is none, or this process is not root.
    pub fn dovecot(line: Line) -> Option<Self> {
        if !is_root() {
            lacking("only root can start a Dovecot that serves the mail of another uid");
            return None;
        }
        static FOUND: [OnceLock<Option<Line>>; 2] = [OnceLock::new(), OnceLock::new()];
        let subject = Subject::of(line);
        let root = subject.tree.map_or_else(|| PathBuf::from("/"), |tree| trees_dir().join(tree));
        let asked = &FOUND[usize::from(line == Line::V24)];
        let installed = *asked.get_or_init(|| line_of(&root, subject));
        let found = Some(Self::at(root, installed)).filter(|host| host.line == Some(line));
        if found.is_none() {
            let (version, make) = (subject.version, subject.make());
            lacking(&format!("no Dovecot {version} is installed: run `make {make}`"));
        }
        found
    }

    /// The tree with Courier in it; `None` as in [`Host::dovecot`].
    pub fn courier() -> Option<Self> {
        Self::tree("courier", "usr/lib/courier/courier/courierpop3d")
    }

    /// The tree with the other servers that are left behind; `None` as in [`Host::dovecot`].
    pub fn old_servers() -> Option<Self> {
        // Accounts and a mail spool of their own lie over those of the tree.
        Self::tree("oldservers", "usr/lib/cyrus/bin/master").filter(|_| can_mount())
    }

    /// The tree of machines that are administered over SSH, with a Dovecot of their own; `None` as
    /// in [`Host::dovecot`].
    pub fn ssh() -> Option<Self> {
        let mut host = Self::tree("ssh", "usr/sbin/sshd").filter(|_| can_mount())?;
        host.line = line_of(&host.root, Subject::first(Line::V24));
        Some(host)
    }

    /// The Dovecot of the tree of that name, if programs there can have files of their own; `None`
    /// as in [`Host::dovecot`].
    pub fn dovecot_of(tree: &str) -> Option<Self> {
        let mut host = Self::tree(tree, "usr/sbin/dovecot").filter(|_| can_mount())?;
        let subject = SUBJECTS.into_iter().find(|subject| subject.tree == Some(tree));
        host.line = line_of(&host.root, subject.expect("one of ours"));
        Some(host)
    }

    fn tree(name: &str, program: &str) -> Option<Self> {
        if !is_root() {
            lacking(&format!("only root can run the servers of the tree {name}"));
            return None;
        }
        let root = trees_dir().join(name);
        if !root.join(program).exists() {
            lacking(&format!("no {program} in {}: run `make deps`", root.display()));
            return None;
        }
        Some(Self::at(root, None))
    }

    fn at(root: PathBuf, line: Option<Line>) -> Self {
        Self { root, line, mounts: Vec::new() }
    }

    /// The same host, except that its programs find `file`, or a directory, in the place of
    /// `place`. Other programs see nothing of it, and it is gone with the last that does.
    pub fn with(mut self, file: &Path, place: &str) -> Self {
        self.mounts.push((file.to_owned(), self.outside(place)));
        self
    }

    /// The same host, except that its programs find what is in a directory beside what is in
    /// `place`. Neither is changed.
    pub fn beside(mut self, dir: &Path, place: &str) -> Self {
        self.mounts.push((PathBuf::from(format!("+{}", dir.display())), self.outside(place)));
        self
    }

    /// The release line of its Dovecot.
    pub fn line(&self) -> Line {
        self.line.expect("asked only of a host with Dovecot")
    }

    /// A program of that host, run inside it with a clean environment. It ends when we do.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.beginning();
        if self.root != Path::new("/") {
            command.arg("chroot").arg(&self.root);
        }
        command.arg(program);
        self.with_clean_environment(command)
    }

    /// The same, as that uid and gid, and under a program of this machine's, which need not be in
    /// that host: a tree has no strace.
    pub fn watched(&self, watcher: &[OsString], uid: u32, program: &str) -> Command {
        let mut command = self.beginning();
        if self.root == Path::new("/") {
            let uid = uid.to_string();
            command.args(["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"]);
            command.args(watcher);
        } else {
            let user = format!("--userspec={uid}:{uid}");
            command.args(watcher).args(["chroot", &user, "--groups="]).arg(&self.root);
        }
        command.arg(program);
        self.with_clean_environment(command)
    }

    /// The words before a program: it ends when we do, and sees what is mounted for it.
    fn beginning(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        if !self.mounts.is_empty() {
            command.arg("unshare").args(UNSHARE).args(["sh", "-c"]);
            command.arg(format!("{ALONE}{MOUNT}")).arg("-");
            for (file, place) in &self.mounts {
                command.arg(file).arg(place);
            }
            command.arg("--");
        }
        command
    }

    fn with_clean_environment(&self, mut command: Command) -> Command {
        command.current_dir("/").env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        command
    }

    /// A new directory in that host, readable by all, removed on drop.
    pub fn scratch(&self) -> Scratch {
        let parent = self.root.join("tmp");
        let dir = tempfile::Builder::new()
            .prefix("uidl-keep-")
            .tempdir_in(&parent)
            .unwrap_or_else(|error| panic!("{}: {error}", parent.display()));
        std::fs::set_permissions(dir.path(), unix_mode(0o755)).expect("our own directory");
        Scratch { root: self.root.clone(), dir }
    }

    /// A path below its root, as its own programs see it.
    pub fn inside(&self, outside: &Path) -> PathBuf {
        inside(&self.root, outside)
    }

    /// A path of that host, as this process sees it.
    pub fn outside(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }
}

/// The command before a program and its arguments that lets only that program see `from` in the
/// place of `at`.
///
/// `None`, having said why, if that cannot be done.
pub fn mounting(from: &Path, at: &Path) -> Option<Command> {
    if !can_mount() {
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(UNSHARE).args(["sh", "-c"]);
    command.arg(format!("{ALONE}mount --rbind \"$1\" \"$2\" && shift 2 && exec \"$@\""));
    command.arg("-").args([from, at]);
    Some(command)
}

/// Whether something can be mounted for one process alone. If not, it says in the system's words
/// why.
pub fn can_mount() -> bool {
    static WHY_NOT: OnceLock<Option<String>> = OnceLock::new();
    let Some(why) = WHY_NOT.get_or_init(why_not_mount) else { return true };
    lacking(&format!("nothing can be mounted here for one process alone: {why}"));
    false
}

fn why_not_mount() -> Option<String> {
    let mount = format!("{ALONE}mount --bind /dev/null /dev/zero");
    let tried = Command::new("unshare").args(UNSHARE).args(["sh", "-c", &mount]).output();
    match tried {
        Ok(tried) if tried.status.success() => None,
        Ok(tried) => Some(String::from_utf8_lossy(&tried.stderr).trim_end().replace('\n', "; ")),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// A directory that both this process and the host see, under two names.
pub struct Scratch {
    root: PathBuf,
    dir: tempfile::TempDir,
}

impl Scratch {
    /// The path as this process sees it.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path as the programs in the host see it.
    pub fn inside(&self) -> PathBuf {
        inside(&self.root, self.path())
    }
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    Path::new("/").join(path.strip_prefix(root).expect("made under the root"))
}

/// Makes a mount namespace of its own, which is not private yet: [`ALONE`] makes it so.
const UNSHARE: [&str; 3] = ["--mount", "--propagation", "unchanged"];

/// A shell does this first in there.
const ALONE: &str = include_str!("../alone.sh");

/// Puts each file in its place, then runs the command that follows.
const MOUNT: &str = r#"
while [ "$1" != -- ]; do
    case $1 in +*)
        mount -t overlay none -o "lowerdir=${1#+}:$2" "$2" || exit
        shift 2
        continue
        ;;
    esac
    # Nothing else is seen beside a directory that is not there.
    [ -e "$2" ] || { mount -t tmpfs none "${2%/*}" && mkdir "$2"; } || exit
    mount --bind "$1" "$2" || exit
    shift 2
done
shift
exec "$@"
"#;

/// The directory of the trees: the same answer as `tests/hosts/setup.sh where`.
fn trees_dir() -> PathBuf {
    std::env::var_os("UIDL_KEEP_TREES")
        .map_or_else(|| PathBuf::from("/var/cache/uidl-keep-trees"), PathBuf::from)
}

/// The line of the Dovecot in there; `None` if there is none, or one of another version.
fn line_of(root: &Path, subject: Subject) -> Option<Line> {
    let host = Host::at(root.to_owned(), None);
    let output = host.command("dovecot").arg("--version").output().ok()?;
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = match version.get(..4)? {
        "2.3." => Line::V23,
        "2.4." => Line::V24,
        _ => return None,
    };
    // A machine's own may be any 2.3, as long as nobody asks for this one.
    let is_named = Subject::named() == Some(subject);
    let is_it = version
        .strip_prefix(subject.version)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
    (is_it || !is_named).then_some(line)
}

/// Permissions from the octal number that everybody knows.
pub fn unix_mode(mode: u32) -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}
