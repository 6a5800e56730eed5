//! The place from which the servers of a test come: this machine, or a tree that `make trees` made.

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
    /// 2.4: `mail_driver` and `mail_path`, settings of a plugin in an .so of their own.
    V24,
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
    /// The Dovecot of that release line. 2.3 is this machine's own; 2.4 is that of the tree, for
    /// the module of our settings has to lie where Dovecot looks for it, and we may not fill this
    /// machine's place.
    ///
    /// `None`, having said why, when there is none, or this process is not root.
    pub fn dovecot(line: Line) -> Option<Self> {
        if !is_root() {
            lacking("only root can start a Dovecot that serves the mail of another uid");
            return None;
        }
        static FOUND: [OnceLock<Option<Line>>; 2] = [OnceLock::new(), OnceLock::new()];
        let (root, asked) = match line {
            Line::V23 => (PathBuf::from("/"), &FOUND[0]),
            Line::V24 => (trees_dir().join("dovecot24"), &FOUND[1]),
        };
        let installed = *asked.get_or_init(|| line_of(&root));
        let found = Some(Self::at(root, installed)).filter(|host| host.line == Some(line));
        if found.is_none() {
            lacking(&format!("no Dovecot {line:?} is installed: run `make deps`"));
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
        host.line = line_of(&host.root);
        Some(host)
    }

    /// The Dovecot of the tree of that name, if programs there can have files of their own; `None`
    /// as in [`Host::dovecot`].
    pub fn dovecot_of(tree: &str) -> Option<Self> {
        let mut host = Self::tree(tree, "usr/sbin/dovecot").filter(|_| can_mount())?;
        host.line = line_of(&host.root);
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
        if self.root != Path::new("/") {
            command.arg("chroot").arg(&self.root);
        }
        command.arg(program).current_dir("/").env_clear();
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
fn can_mount() -> bool {
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

fn line_of(root: &Path) -> Option<Line> {
    let host = Host::at(root.to_owned(), None);
    let output = host.command("dovecot").arg("--version").output().ok()?;
    match output.stdout.get(..4)? {
        b"2.3." => Some(Line::V23),
        b"2.4." => Some(Line::V24),
        _ => None,
    }
}

/// Permissions from the octal number that everybody knows.
pub fn unix_mode(mode: u32) -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}
