//! For which Dovecot a file is: [`Abi`], read out of Dovecot's library, a plugin, or headers.
//!
//! A plugin calls into Dovecot's own structures. They differ from release to release, and Dovecot
//! names each form of them: `2.3.ABIv19(2.3.19.1)`. A plugin of another name is not loaded, and
//! then POP3 refuses everybody. The name stands in `libdovecot.so.0` itself, so that no headers
//! are needed to learn it.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{
    BinaryFormat, Endianness, FileKind, Object, ObjectSegment, ObjectSymbol, SegmentFlags,
};

/// A form of Dovecot's structures, by Dovecot's name for it up to the parenthesis: `2.3.ABIv19`,
/// `2.4.ABIv1`. It can be the name of a directory.
///
/// It is `DOVECOT_ABI_VERSION` of `config.h`. Behind the parenthesis stands the release, which does
/// not count: `versions_equal` of `module-dir.c`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Abi(String);

/// The reason why a file does not say for which Dovecot it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AbiError {
    /// It has no name of an ABI.
    #[error("names no ABI of Dovecot")]
    Nameless,
    /// It has more than one.
    #[error("names {} ABIs of Dovecot: {}", .0.len(), listed(.0))]
    Several(Vec<Abi>),
    /// It is no plugin of ours: it lacks this symbol.
    #[error("has no {0}: it is no plugin of uidl-keep")]
    NoSymbol(&'static str),
    /// It is no shared library that can be read.
    #[error("no shared library: {0}")]
    Elf(String),
    /// It is larger than any such file.
    #[error("larger than {0} octets")]
    TooLarge(u64),
    /// The system's error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn listed(abis: &[Abi]) -> String {
    abis.iter().map(Abi::as_str).collect::<Vec<_>>().join(", ")
}

/// Dovecot's own library, which every program of Dovecot's has.
pub const LIBRARY: &str = "libdovecot.so.0";

/// The name of the file that POP3 loads, in Dovecot's module directory and below [`AT_HAND`].
pub const PLUGIN_FILE: &str = "lib95_uidl_keep_plugin.so";

/// The directory that has a plugin for each ABI: `ABI/lib95_uidl_keep_plugin.so`.
pub const AT_HAND: &str = "/usr/lib/uidl-keep/abi";

/// The places of [`LIBRARY`] where no program says where its own is.
const USUAL: &[&str] = &["/usr/lib/dovecot", "/usr/lib64/dovecot", "/usr/local/lib/dovecot"];

const MOST_OCTETS: u64 = 256 << 20;

/// The symbols that Dovecot asks a plugin for. A loader of ours has all but the first.
const VERSION: &str = "uidl_keep_plugin_version";
const OTHERS: [&str; 3] =
    ["uidl_keep_plugin_preinit", "uidl_keep_plugin_init", "uidl_keep_plugin_deinit"];

/// A file that Dovecot can load as our plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Module {
    /// The plugin itself, for the Dovecots of one ABI.
    Plugin(Abi),
    /// The loader, for every Dovecot: it loads the plugin that fits.
    Loader,
}

impl Abi {
    /// The ABI that a name of Dovecot's says, whatever stands behind its parenthesis. `None`: it is
    /// no such name.
    pub fn parse(name: &str) -> Option<Self> {
        let (abi, is_whole) = leading(name.as_bytes())?;
        is_whole.then_some(abi)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The plugin for it, if there is one at hand.
    pub fn plugin_at_hand(&self) -> PathBuf {
        Path::new(AT_HAND).join(&self.0).join(PLUGIN_FILE)
    }

    /// The ABI of a `libdovecot.so.0`: the one name that stands in what the library has in memory
    /// and never writes, as the loader finds it too. Cost: the file is read.
    ///
    /// # Errors
    ///
    /// [`AbiError`]. Two names are an error, and no choice.
    pub fn of_library(path: &Path) -> Result<Self, AbiError> {
        let octets = read(path)?;
        let mut found = BTreeSet::new();
        for segment in constants(&parsed(&octets)?)? {
            names_in(segment, &mut found);
        }
        one(found)
    }

    /// The ABI of Dovecot's headers: that of their `config.h`.
    ///
    /// # Errors
    ///
    /// [`AbiError`].
    pub fn of_headers(dir: &Path) -> Result<Self, AbiError> {
        let octets = read(&dir.join("config.h"))?;
        let text = String::from_utf8_lossy(&octets);
        let defined = text.lines().filter_map(|line| {
            let words = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("define")?;
            let value = words.trim_start().strip_prefix("DOVECOT_ABI_VERSION")?.trim();
            Self::parse(value.strip_prefix('"')?.strip_suffix('"')?)
        });
        one(defined.collect())
    }

    /// The ABI that a plugin of ours is for: the text that its `uidl_keep_plugin_version` leads to.
    /// Cost: the file is read.
    ///
    /// # Errors
    ///
    /// [`AbiError`]. The loader is no plugin: [`Module::of`] tells the two apart.
    pub fn of_plugin(path: &Path) -> Result<Self, AbiError> {
        match Module::of(path)? {
            Module::Plugin(abi) => Ok(abi),
            Module::Loader => Err(AbiError::NoSymbol(VERSION)),
        }
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Module {
    /// Which of the two a file is. Cost: the file is read.
    ///
    /// # Errors
    ///
    /// [`AbiError`]: Dovecot cannot load it as our plugin, or it is not known for which Dovecot it
    /// is.
    pub fn of(path: &Path) -> Result<Self, AbiError> {
        module_in(&parsed(&read(path)?)?)
    }
}

/// The `libdovecot.so.0` that a program of Dovecot's runs with. It lies in a directory that the
/// program itself names; else it is the one of the usual places. `None`: there is none.
///
/// # Errors
///
/// [`AbiError`], when the program cannot be read.
pub fn library_of(program: &Path) -> Result<Option<PathBuf>, AbiError> {
    let named = match read(program) {
        Ok(octets) => match FileKind::parse(octets.as_slice()) {
            Ok(FileKind::Elf32) => run_paths::<FileHeader32<Endianness>>(&octets, program)?,
            Ok(FileKind::Elf64) => run_paths::<FileHeader64<Endianness>>(&octets, program)?,
            // A script around it, say.
            _ => Vec::new(),
        },
        Err(AbiError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let places = named.into_iter().chain(USUAL.iter().map(PathBuf::from));
    Ok(places.map(|dir| dir.join(LIBRARY)).find(|library| library.is_file()))
}

/// The one ABI that was found.
fn one(found: BTreeSet<Abi>) -> Result<Abi, AbiError> {
    let mut found: Vec<Abi> = found.into_iter().collect();
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(AbiError::Nameless),
        (Some(abi), true) => Ok(abi),
        (Some(abi), false) => {
            found.push(abi);
            Err(AbiError::Several(found))
        }
    }
}

/// The name at the start of these octets, digits `.` digits `.ABIv` digits, if it ends there, at a
/// NUL, or at a parenthesis; and whether it is all, or closed by that parenthesis.
fn leading(octets: &[u8]) -> Option<(Abi, bool)> {
    let digits = |from: usize| {
        let left = octets.get(from..).unwrap_or_default();
        from + left.iter().take_while(|octet| octet.is_ascii_digit()).count()
    };
    let major = digits(0);
    let minor = digits(major + 1);
    let word = minor + b".ABIv".len();
    let end = digits(word);
    let is_name = major > 0
        && octets.get(major) == Some(&b'.')
        && minor > major + 1
        && octets.get(minor..word) == Some(b".ABIv".as_slice())
        && end > word;
    if !is_name {
        return None;
    }
    let is_whole = match octets.get(end) {
        None => true,
        Some(b'(') => octets.last() == Some(&b')'),
        Some(0) => false,
        Some(_) => return None,
    };
    Some((Abi(String::from_utf8_lossy(&octets[..end]).into_owned()), is_whole))
}

/// Adds every name in these octets that no letter, digit or point stands before.
fn names_in(octets: &[u8], found: &mut BTreeSet<Abi>) {
    let is_within = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'.';
    for mark in memchr::memmem::find_iter(octets, b".ABIv") {
        let before = octets[..mark].iter().rev();
        let start = mark - before.take_while(|octet| is_within(octet)).count();
        found.extend(leading(&octets[start..]).map(|(abi, _)| abi));
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AbiError> {
    let mut octets = Vec::new();
    File::open(path)?.take(MOST_OCTETS + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > MOST_OCTETS {
        return Err(AbiError::TooLarge(MOST_OCTETS));
    }
    Ok(octets)
}

fn broken(error: object::Error) -> AbiError {
    AbiError::Elf(error.to_string())
}

fn parsed(octets: &[u8]) -> Result<object::File<'_>, AbiError> {
    let file = object::File::parse(octets).map_err(broken)?;
    match file.format() {
        BinaryFormat::Elf => Ok(file),
        other => Err(AbiError::Elf(format!("it is {other:?}"))),
    }
}

/// What a library has in memory and never writes.
fn constants<'data>(file: &object::File<'data>) -> Result<Vec<&'data [u8]>, AbiError> {
    let never_written = file.segments().filter(|segment| match segment.flags() {
        SegmentFlags::Elf { p_flags, .. } => (p_flags & elf::PF_W).0 == 0,
        _ => false,
    });
    never_written.map(|segment| segment.data().map_err(broken)).collect()
}

fn module_in(file: &object::File<'_>) -> Result<Module, AbiError> {
    let symbol = |name: &str| {
        let mut symbols = file.dynamic_symbols();
        symbols.find(|symbol| symbol.is_definition() && symbol.name() == Ok(name))
    };
    if let Some(missing) = OTHERS.into_iter().find(|name| symbol(name).is_none()) {
        return Err(AbiError::NoSymbol(missing));
    }
    let Some(version) = symbol(VERSION) else { return Ok(Module::Loader) };
    let place = version.address();
    // The system adds the library's own address to the relocation's addend, or, where the
    // relocation is a packed one, to what stands in the place.
    let mut relocations = file.dynamic_relocations().into_iter().flatten();
    let relocation =
        relocations.find(|(at, relocation)| *at == place && !relocation.has_implicit_addend());
    let text = match relocation {
        Some((_, relocation)) => u64::try_from(relocation.addend()).ok(),
        None => pointer_at(file, place),
    };
    let name = text.and_then(|place| text_at(file, place));
    name.as_deref().and_then(Abi::parse).map(Module::Plugin).ok_or(AbiError::Nameless)
}

/// The octets of a file that begin at that address of it.
fn octets_at<'data>(file: &object::File<'data>, place: u64) -> Option<&'data [u8]> {
    file.segments().find_map(|segment| {
        let offset = usize::try_from(place.checked_sub(segment.address())?).ok()?;
        segment.data().ok()?.get(offset..).filter(|octets| !octets.is_empty())
    })
}

fn pointer_at(file: &object::File<'_>, place: u64) -> Option<u64> {
    let octets = octets_at(file, place)?;
    let mut pointer = octets.get(..if file.is_64() { 8 } else { 4 })?.to_vec();
    if !file.is_little_endian() {
        pointer.reverse();
    }
    Some(pointer.iter().rev().fold(0, |value, octet| value << 8 | u64::from(*octet)))
}

/// The text at that address, up to its NUL.
fn text_at(file: &object::File<'_>, place: u64) -> Option<String> {
    let octets = octets_at(file, place)?;
    let end = memchr::memchr(0, octets)?;
    String::from_utf8(octets[..end].to_vec()).ok()
}

/// The directories in which a program itself looks for its libraries: `DT_RUNPATH`, `DT_RPATH`.
fn run_paths<H: FileHeader<Endian = Endianness>>(
    octets: &[u8],
    program: &Path,
) -> Result<Vec<PathBuf>, AbiError> {
    let file = parsed(octets)?;
    let header = H::parse(octets).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    let program = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    let origin = program.parent().unwrap_or(Path::new("/")).display().to_string();
    let mut strings = None;
    let mut named = Vec::new();
    for segment in header.program_headers(endian, octets).map_err(broken)? {
        for entry in segment.dynamic(endian, octets).map_err(broken)?.into_iter().flatten() {
            let value: u64 = entry.d_val(endian).into();
            match entry.tag(endian) {
                elf::DT_STRTAB => strings = Some(value),
                elf::DT_RUNPATH | elf::DT_RPATH => named.push(value),
                _ => {}
            }
        }
    }
    let place = |offset| strings.and_then(|strings: u64| strings.checked_add(offset));
    let texts = named.into_iter().filter_map(|offset| text_at(&file, place(offset)?));
    let dirs = texts.flat_map(|text| {
        let dirs = text.split(':').filter(|dir| !dir.is_empty());
        let resolved =
            dirs.map(|dir| dir.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin));
        resolved.map(PathBuf::from).collect::<Vec<_>>()
    });
    Ok(dirs.collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    fn name(text: &str) -> Option<String> {
        Abi::parse(text).map(|abi| abi.to_string())
    }

    /// Compiles C to a shared library of that name.
    fn compiled(dir: &Path, name: &str, text: &str, args: &[&str]) -> PathBuf {
        let (source, library) = (dir.join(format!("{name}.c")), dir.join(name));
        fs::write(&source, text).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).args(args);
        assert!(cc.status().expect("a compiler").success());
        library
    }

    #[test]
    fn a_name_is_what_dovecot_compares_and_nothing_else_is_one() {
        assert_eq!(name("2.3.ABIv19(2.3.19.1)").as_deref(), Some("2.3.ABIv19"));
        assert_eq!(name("2.4.ABIv1").as_deref(), Some("2.4.ABIv1"));
        assert_eq!(Abi::parse("2.3.ABIv21(2.3.21)"), Abi::parse("2.3.ABIv21(2.3.21.1)"));
        for other in [
            "",
            "2.3",
            "2.3.ABIv",
            "2.3ABIv1",
            ".3.ABIv1",
            "2..ABIv1",
            "2.3.ABIv1x",
            "2.3.ABIv1(",
            "2.3.ABIv1(2.3.1",
            "2.3.ABIv1\0",
            "../2.3.ABIv1",
            "2.3.ABIv1/..",
        ] {
            assert_eq!(name(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_library_that_names_two_abis_is_for_neither() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str, text: &str| Abi::of_library(&compiled(dir.path(), name, text, &[]));
        let text = r#"const char *f(void) { return "2.3.ABIv19(2.3.19.1)"; }"#;
        assert_eq!(of("one", text).unwrap().as_str(), "2.3.ABIv19");
        // The release behind it does not make it another.
        let text = r#"const char *f(int n) {
            return n ? "2.3.ABIv19(2.3.19)" : "2.3.ABIv19(2.3.19.1)"; }"#;
        assert_eq!(of("twice", text).unwrap().as_str(), "2.3.ABIv19");
        let text = r#"const char *f(int n) { return n ? "2.3.ABIv19(2.3.19)" : "2.4.ABIv1"; }"#;
        let several = of("two", text).unwrap_err();
        assert_eq!(several.to_string(), "names 2 ABIs of Dovecot: 2.3.ABIv19, 2.4.ABIv1");
        let text = r#"char written[] = "2.4.ABIv1"; const char *f(void) { return "2.4.ABIvx"; }"#;
        assert!(matches!(of("none", text), Err(AbiError::Nameless)));
        let file = dir.path().join("text");
        fs::write(&file, "2.4.ABIv1").unwrap();
        assert!(matches!(Abi::of_library(&file), Err(AbiError::Elf(_))));
        assert!(matches!(Abi::of_library(&dir.path().join("no")), Err(AbiError::Io(_))));
    }

    #[test]
    fn a_plugin_is_for_the_dovecot_that_its_version_names_and_a_loader_for_all() {
        let dir = tempfile::tempdir().unwrap();
        let functions = "void uidl_keep_plugin_preinit(void) {} void uidl_keep_plugin_init(void) {}
            void uidl_keep_plugin_deinit(void) {}";
        let version = r#"const char *other = "2.3.ABIv1(2.3.1)";
            const char *uidl_keep_plugin_version = "2.4.ABIv2";"#;
        let both = format!("{functions} {version}");
        let plugin = Module::Plugin(Abi::parse("2.4.ABIv2").unwrap());
        for (name, args) in [("plain", &[][..]), ("packed", &["-Wl,-z,pack-relative-relocs"][..])] {
            let module = compiled(dir.path(), name, &both, args);
            assert_eq!(Module::of(&module).unwrap(), plugin, "{name}");
        }
        let loader = compiled(dir.path(), "loader", functions, &[]);
        assert_eq!(Module::of(&loader).unwrap(), Module::Loader);
        let error = Abi::of_plugin(&loader).unwrap_err();
        assert!(error.to_string().contains("uidl_keep_plugin_version"), "{error}");
        let half = compiled(dir.path(), "half", version, &[]);
        assert!(matches!(Module::of(&half), Err(AbiError::NoSymbol(_))));
        let odd = both.replace("2.4.ABIv2", "2.4.1");
        let odd = compiled(dir.path(), "odd", &odd, &[]);
        assert!(matches!(Module::of(&odd), Err(AbiError::Nameless)));
        let whole = fs::read(&loader).unwrap();
        for len in [0, 4, 63, 200, whole.len() / 2] {
            let cut = dir.path().join("cut");
            fs::write(&cut, &whole[..len]).unwrap();
            assert!(Module::of(&cut).is_err(), "{len}");
        }
    }

    #[test]
    fn headers_are_of_the_dovecot_that_their_config_defines() {
        let dir = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            fs::write(dir.path().join("config.h"), text).unwrap();
            Abi::of_headers(dir.path())
        };
        let define = "#define DOVECOT_ABI_VERSION \"2.3.ABIv13(2.3.13)\"\n";
        assert_eq!(of(define).unwrap().as_str(), "2.3.ABIv13");
        let comment = format!("/* 2.2.ABIv1(2.2.15) */\n# define DOVECOT_X 1\n{define}");
        assert_eq!(of(&comment).unwrap().as_str(), "2.3.ABIv13");
        assert!(matches!(of("#define DOVECOT_ABI_VERSION 2\n"), Err(AbiError::Nameless)));
        let two = format!("{define}#define DOVECOT_ABI_VERSION \"2.4.ABIv1\"\n");
        assert!(matches!(of(&two), Err(AbiError::Several(_))));
    }

    #[test]
    fn a_program_says_itself_where_its_library_is() {
        let dir = tempfile::tempdir().unwrap();
        let lib = dir.path().join("lib");
        fs::create_dir(&lib).unwrap();
        let library = lib.join(LIBRARY);
        fs::write(&library, "").unwrap();
        let program = |name: &str, path: &str| {
            compiled(dir.path(), name, "int x;", &[&format!("-Wl,-rpath,{path}")])
        };
        let named = program("named", &format!("/none:{}", lib.display()));
        assert_eq!(library_of(&named).unwrap(), Some(library.clone()));
        let beside = program("beside", "$ORIGIN/lib");
        assert_eq!(library_of(&beside).unwrap(), Some(library.canonicalize().unwrap()));
        let script = dir.path().join("script");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        // It is then the one of this machine, if there is a Dovecot.
        assert_eq!(library_of(&script).unwrap(), library_of(&dir.path().join("none")).unwrap());
    }
}
