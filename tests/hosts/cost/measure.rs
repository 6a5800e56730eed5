//! What a process spends: processor time and memory, as the kernel counts them, and instructions,
//! as callgrind does.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::support::dovecot::Dovecot;
use crate::support::maildir::make_owned;

/// What a program spent that has ended, with all that it started and waited for.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// The time of processors, in user mode and in the kernel.
    pub processor: Duration,
    /// The most memory that it had at a time.
    pub peak_kib: i64,
}

/// Waits for a child, which must succeed.
pub fn wait_for(child: Child) -> Spent {
    let pid = i32::try_from(child.id()).expect("a pid");
    let (mut status, mut used) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both places are ours and large enough; the pid is that of a child that nobody else
    // waits for.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, used.as_mut_ptr()) };
    assert_eq!(waited, pid, "our child");
    // SAFETY: wait4 succeeded, and so has filled it; all zeroes are a value too.
    let used = unsafe { used.assume_init() };
    let status = ExitStatus::from_raw(status);
    assert!(status.success(), "{status}");
    let duration = |time: libc::timeval| {
        let micros = time.tv_sec * 1_000_000 + time.tv_usec;
        Duration::from_micros(u64::try_from(micros).expect("no time is negative"))
    };
    Spent { processor: duration(used.ru_utime) + duration(used.ru_stime), peak_kib: used.ru_maxrss }
}

/// Runs a program, which must succeed; nobody reads what it prints.
pub fn run(command: &mut Command) -> Spent {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    wait_for(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// The processor time of a process so far, once it waits for the next command.
pub fn processor_time(child: &Child) -> Duration {
    std::thread::sleep(Duration::from_millis(5));
    let schedstat = format!("/proc/{}/schedstat", child.id());
    let text = fs::read_to_string(&schedstat).expect("it is waiting for us");
    let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.expect("nanoseconds"))
}

/// A line of `/proc/PID/status` in KiB: `RssAnon` is the memory of the process itself, without file
/// pages and shared memory, and `VmPeak` the most address space that it had.
pub fn status_kib(child: &Child, field: &str) -> i64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it is waiting");
    let value = |line: &str| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned());
    let value = status.lines().find_map(value).expect(field);
    value.trim_end_matches(" kB").parse().expect("kB")
}

/// Callgrind over a server's `pop3`, which counts apart what each command of the client costs.
pub struct Callgrind {
    /// The words before the program.
    pub under: Vec<String>,
    reports: PathBuf,
}

impl Callgrind {
    /// Makes ready to run `pop3` of that server under it once.
    pub fn of(server: &Dovecot) -> Self {
        let (dir, reports) = (server.dir().join("callgrind"), server.dir().join("reports"));
        let _ = fs::remove_dir_all(&reports);
        make_owned(&reports);
        if !dir.exists() {
            make_owned(&dir);
            // A tree has none: these few files of this machine's do.
            let tool = "/usr/libexec/valgrind/callgrind-amd64-linux";
            let more = "/usr/libexec/valgrind/vgpreload_core-amd64-linux.so";
            let suppressions = "/usr/libexec/valgrind/default.supp";
            for file in ["/usr/bin/valgrind.bin", tool, more, suppressions] {
                let name = file.rsplit('/').next().expect("a path");
                fs::copy(file, dir.join(name)).unwrap_or_else(|error| {
                    panic!("{file}: {error}: install valgrind: `make deps`")
                });
            }
        }
        let inside = server.inside(&dir).display().to_string();
        let out = server.inside(&reports).join("pop3");
        let under = vec![
            "env".to_owned(),
            format!("VALGRIND_LIB={inside}"),
            format!("{inside}/valgrind.bin"),
            "--tool=callgrind".to_owned(),
            // Dovecot runs itself once more, by way of doveconf.
            "--trace-children=yes".to_owned(),
            "--vgdb=no".to_owned(),
            "--quiet".to_owned(),
            format!("--callgrind-out-file={}", out.display()),
            // Dovecot calls it with each command, and when a long answer has gone out.
            "--dump-before=client_handle_input".to_owned(),
        ];
        Self { under, reports }
    }

    /// The number of the last part that has begun: after the answer to a command, what comes next
    /// ends it, and the cost of the command with it.
    pub fn begun(&self) -> usize {
        let entries = fs::read_dir(&self.reports).expect("our directory");
        let paths = entries.map(|entry| entry.expect("our directory").path());
        1 + paths.filter(|path| path.extension().is_some()).count()
    }

    /// The user instructions of all parts, once the process has ended.
    pub fn instructions(&self) -> Vec<f64> {
        let mut parts = Vec::new();
        for entry in fs::read_dir(&self.reports).expect("our directory") {
            let path = entry.expect("our directory").path();
            let text = fs::read_to_string(&path).expect("text");
            let value = |field: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(field));
                line.and_then(|value| value.trim().parse::<f64>().ok())
            };
            if let (Some(part), Some(total)) = (value("part:"), value("totals:")) {
                parts.push((part, total));
            }
        }
        parts.sort_by(|one, other| one.0.total_cmp(&other.0));
        parts.into_iter().map(|(_, total)| total).collect()
    }
}

/// The middle one.
pub fn median<T: PartialOrd + Copy>(of: impl IntoIterator<Item = T>) -> T {
    let mut sorted: Vec<T> = of.into_iter().collect();
    sorted.sort_by(|one, other| one.partial_cmp(other).expect("numbers"));
    sorted[sorted.len() / 2]
}
