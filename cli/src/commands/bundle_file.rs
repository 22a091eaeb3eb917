//! A run as one file: a tar whose first entry names the others with sizes and hashes.
//!
//! Everything of a bundle is in it: the manifest, every raw value, the items and the agents' signed
//! records. What is read back is checked before anything of it has its name: sizes and hashes, that it
//! is a bundle, and that its tables are what the agents signed.

use std::{
    fs::{self, File},
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tar::{Archive, Builder, EntryType, Header};
use tritmark_coordinator::evidence;
use tritmark_proto::{
    artefact::ContentHash,
    bundle::{FILES, MANIFEST},
};
use tritmark_reports::bundle::Bundle;

use crate::exit::{Exit, Fault, OrExit as _, Outcome};

/// The first entry's name.
const CONTENTS: &str = "tritmark-bundle.json";

/// Version of [`Contents`]; a reader refuses a newer one.
const VERSION: u32 = 1;

/// Largest first entry that is read.
const MAX_CONTENTS_BYTES: u64 = 1 << 20;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Contents {
    format_version: u32,
    files: Vec<ContentsFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ContentsFile {
    name: String,
    size_bytes: u64,
    blake3: ContentHash,
}

/// Writes the bundle in `folder` as the file `out`, which appears whole or not at all.
pub(super) fn write(folder: &Path, out: &Path) -> Outcome<()> {
    // What cannot be read here would not be elsewhere.
    Bundle::read(folder).or_exit(Exit::Usage, || {
        format!("cannot read the bundle {}", folder.display())
    })?;
    let what = || format!("cannot write {}", out.display());
    let mut new = out.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let written = pack(folder, &new).and_then(|()| fs::rename(&new, out));
    if written.is_err() {
        // It may never have been made.
        let _ = fs::remove_file(&new);
    }
    written.or_exit(Exit::Usage, what)
}

fn pack(folder: &Path, out: &Path) -> io::Result<()> {
    let mut contents = Contents {
        format_version: VERSION,
        files: Vec::new(),
    };
    for name in FILES {
        let path = folder.join(name);
        // Bundles of older versions have fewer.
        if path.is_file() {
            contents.files.push(described(name, &path)?);
        }
    }
    let mut tar = Builder::new(File::create(out)?);
    let mut json = serde_json::to_vec_pretty(&contents)?;
    json.push(b'\n');
    tar.append_data(&mut header(json.len() as u64), CONTENTS, &json[..])?;
    for ContentsFile {
        name, size_bytes, ..
    } in &contents.files
    {
        let file = File::open(folder.join(name))?.take(*size_bytes);
        tar.append_data(&mut header(*size_bytes), name, file)?;
    }
    let mut file = tar.into_inner()?;
    file.flush()?;
    file.sync_all()
}

/// Equal bundles make equal files: nobody's, of no time.
fn header(size_bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size_bytes);
    header.set_mtime(0);
    header
}

fn described(name: &str, path: &Path) -> io::Result<ContentsFile> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(ContentsFile {
        name: name.to_owned(),
        size_bytes: hasher.count(),
        blake3: hasher.finalize().into(),
    })
}

/// Checks the file `packed` and writes its bundle into the folder `out`, which must not be there.
pub(super) fn read(packed: &Path, out: &Path) -> Outcome<()> {
    if out.exists() {
        return Err(Fault::usage(format!("{} is there already", out.display())));
    }
    let mut new = out.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("cannot replace {}", new.display()))?;
    }
    fs::create_dir_all(&new).or_exit(Exit::Usage, || format!("cannot make {}", new.display()))?;
    let done = unpack(packed, &new).and_then(|()| {
        fs::rename(&new, out).or_exit(Exit::Usage, || format!("cannot write {}", out.display()))
    });
    if done.is_err() {
        // What stays is replaced by the next try.
        let _ = fs::remove_dir_all(&new);
    }
    done
}

fn unpack(packed: &Path, folder: &Path) -> Outcome<()> {
    let unreadable = || format!("cannot read {}", packed.display());
    let file = File::open(packed).or_exit(Exit::Usage, unreadable)?;
    let mut tar = Archive::new(file);
    let mut entries = tar.entries().or_exit(Exit::Usage, unreadable)?;
    let contents = match entries.next() {
        Some(first) => contents(first.or_exit(Exit::Usage, unreadable)?)?,
        None => return Err(no_bundle("it is empty")),
    };
    for expected in &contents.files {
        let name = &expected.name;
        let wrong = |problem: &str| wrong(&format!("{name} {problem}"));
        // As in every message: these names and no others.
        if !FILES.contains(&name.as_str()) {
            return Err(no_bundle(&format!("it names `{}`", name.escape_debug())));
        }
        let Some(entry) = entries.next() else {
            return Err(wrong("is missing"));
        };
        let entry = entry.or_exit(Exit::GateFailed, unreadable)?;
        if !is(&entry, name) {
            return Err(wrong("is not where it should be"));
        }
        let path = folder.join(name);
        let failed = || format!("cannot write {}", path.display());
        let mut file = File::create_new(&path).or_exit(Exit::Usage, failed)?;
        // One byte more than there should be, so that a longer one is found out.
        let mut limited = entry.take(expected.size_bytes.saturating_add(1));
        io::copy(&mut limited, &mut file).or_exit(Exit::GateFailed, unreadable)?;
        file.sync_all().or_exit(Exit::Usage, failed)?;
        if described(name, &path).or_exit(Exit::Usage, failed)? != *expected {
            return Err(wrong("is not what it was when the file was written"));
        }
    }
    if entries.next().is_some() {
        return Err(wrong("there is more in it than it says"));
    }
    if !folder.join(MANIFEST).is_file() {
        return Err(no_bundle(&format!("it has no {MANIFEST}")));
    }
    Bundle::read(folder).or_exit(Exit::GateFailed, || "it is no sound bundle")?;
    let verified = evidence::verify(folder, None)
        .or_exit(Exit::GateFailed, || "its signatures cannot be checked")?;
    if !verified.is_sound() {
        return Err(wrong(
            "it is not what its agents signed; see `tritmark verify`",
        ));
    }
    Ok(())
}

fn contents(entry: tar::Entry<'_, File>) -> Outcome<Contents> {
    if !is(&entry, CONTENTS) {
        return Err(no_bundle(&format!("it does not begin with {CONTENTS}")));
    }
    let mut text = Vec::new();
    let mut limited = entry.take(MAX_CONTENTS_BYTES);
    let read = limited.read_to_end(&mut text);
    read.or_exit(Exit::Usage, || format!("cannot read {CONTENTS}"))?;
    let contents: Contents =
        serde_json::from_slice(&text).or_exit(Exit::Usage, || format!("cannot read {CONTENTS}"))?;
    if contents.format_version == 0 || contents.format_version > VERSION {
        return Err(no_bundle(&format!(
            "it has version {}, this build reads {VERSION}",
            contents.format_version
        )));
    }
    Ok(contents)
}

fn is(entry: &tar::Entry<'_, File>, name: &str) -> bool {
    entry.header().entry_type() == EntryType::Regular && &*entry.path_bytes() == name.as_bytes()
}

fn no_bundle(problem: &str) -> Fault {
    Fault::usage(format!("this is no bundle in one file: {problem}"))
}

fn wrong(problem: &str) -> Fault {
    Fault {
        exit: Exit::GateFailed,
        error: anyhow::anyhow!("the file was changed: {problem}"),
    }
}
