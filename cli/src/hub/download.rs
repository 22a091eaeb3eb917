//! One file, whole: what came before an interruption is gone on with, and only what has the hub's
//! checksum gets its name.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    thread,
};

use super::{
    Hub, HubError, MAX_REDIRECTS, Method, Revision, check_status,
    checksum::{Expected, Found},
    encoded, header, origin, redirect, too_many_redirects, unreachable,
};

/// Tries in a row that bring not one byte.
const MAX_TRIES: u32 = 5;

/// How far a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes that are here.
    pub(crate) done: u64,
    /// Bytes of the whole file.
    pub(crate) total: Option<u64>,
}

/// A file that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// Its length.
    pub(crate) bytes: u64,
    /// SHA-256 of what lies there, hex.
    pub(crate) sha256: String,
    /// Whether the hub told a checksum, which it has.
    pub(crate) is_verified: bool,
    /// Whether it was there before.
    pub(crate) was_there: bool,
}

/// What the hub says about a file.
struct Announced {
    /// Where its bytes are.
    url: String,
    expected: Option<Expected>,
    bytes: Option<u64>,
}

impl Hub {
    /// Brings a file of a revision to `folder`, under its path there.
    pub(crate) fn fetch(
        &self,
        revision: &Revision,
        path: &str,
        folder: &Path,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<Fetched, HubError> {
        let target = folder.join(relative(path)?);
        let Revision {
            kind, repo, commit, ..
        } = revision;
        let url = format!(
            "{}/{}{repo}/resolve/{commit}/{}",
            self.endpoint,
            kind.prefix(),
            encoded(path, true)
        );
        let mut announced = self.again(|| self.announced(&url))?;
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(HubError::local(parent))?;
        }
        if let Some(expected) = &announced.expected
            && target.is_file()
        {
            let found = Found::of(&target).map_err(HubError::local(&target))?;
            if found.like(expected) == expected.named().1 {
                return Ok(Fetched {
                    path: target,
                    bytes: found.bytes,
                    sha256: found.sha256,
                    is_verified: true,
                    was_there: true,
                });
            }
        }
        let part = part_of(&target, announced.expected.as_ref());
        if announced.expected.is_none() {
            // Nothing tells whether it is part of the same file.
            remove(&part)?;
        }
        self.fill(&url, &mut announced, &part, watch)?;
        let found = Found::of(&part).map_err(HubError::local(&part))?;
        if let Some(expected) = &announced.expected {
            let (kind, wanted) = expected.named();
            let came = found.like(expected);
            if came != wanted {
                remove(&part)?;
                return Err(HubError::Checksum {
                    path: path.to_owned(),
                    kind,
                    expected: wanted.to_owned(),
                    found: came.to_owned(),
                });
            }
        }
        fs::rename(&part, &target).map_err(HubError::local(&target))?;
        Ok(Fetched {
            path: target,
            bytes: found.bytes,
            sha256: found.sha256,
            is_verified: announced.expected.is_some(),
            was_there: false,
        })
    }

    /// Does something until it works or fails for good.
    fn again<T>(&self, mut what: impl FnMut() -> Result<T, HubError>) -> Result<T, HubError> {
        let mut tries = 1;
        loop {
            match what() {
                Err(error) if error.is_temporary() && tries < MAX_TRIES => {
                    thread::sleep(self.pause * tries);
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    fn announced(&self, url: &str) -> Result<Announced, HubError> {
        let mut at = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.ask(Method::Head, &at, None)?;
            let linked = header(&answer, "x-linked-etag");
            let onward = redirect(&at, &answer)?;
            // A renamed repository sends on without a word about the file.
            if let (Some(location), None) = (&onward, linked) {
                at.clone_from(location);
                continue;
            }
            if onward.is_none() {
                check_status(&at, answer.status().as_u16())?;
            }
            let etag = linked.or_else(|| header(&answer, "etag"));
            let length = match onward {
                Some(_) => header(&answer, "x-linked-size"),
                None => {
                    header(&answer, "x-linked-size").or_else(|| header(&answer, "content-length"))
                }
            };
            return Ok(Announced {
                expected: etag.and_then(Expected::of),
                bytes: length.and_then(|length| length.parse().ok()),
                url: onward.unwrap_or(at),
            });
        }
        Err(too_many_redirects(url))
    }

    /// Makes a partial file whole.
    fn fill(
        &self,
        url: &str,
        announced: &mut Announced,
        part: &Path,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<(), HubError> {
        let mut tries = 1;
        loop {
            let before = length(part)?;
            let outcome = self.go_on(url, announced, part, watch);
            let after = length(part)?;
            match outcome {
                Err(error) if error.is_temporary() => {
                    tries = if after > before { 1 } else { tries + 1 };
                    if tries > MAX_TRIES {
                        return Err(error);
                    }
                    thread::sleep(self.pause * tries);
                    // A signed address may have run out; the file is the same one.
                    announced.url = self.again(|| self.announced(url))?.url;
                }
                done => return done,
            }
        }
    }

    /// Asks for the rest of a file, and writes what comes of it.
    fn go_on(
        &self,
        url: &str,
        announced: &Announced,
        part: &Path,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<(), HubError> {
        let total = announced.bytes;
        let mut done = length(part)?;
        if total.is_some_and(|total| done > total) {
            remove(part)?;
            done = 0;
        }
        if total == Some(done) && part.exists() {
            return Ok(());
        }
        let mut at = announced.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let from = (done > 0).then_some(done);
            let mut answer = self.ask(Method::Get, &at, from)?;
            if let Some(location) = redirect(&at, &answer)? {
                at = location;
                continue;
            }
            let status = answer.status().as_u16();
            let is_elsewhere = origin(&at) != origin(url);
            if status == 416 || (matches!(status, 401 | 403) && is_elsewhere) {
                if status == 416 {
                    remove(part)?;
                }
                return Err(unreachable(&at, &format!("the answer has status {status}")));
            }
            check_status(&at, status)?;
            let goes_on = status == 206
                && header(&answer, "content-range")
                    .is_some_and(|range| range.starts_with(&format!("bytes {done}-")));
            if !goes_on {
                done = 0;
            }
            let mut file = OpenOptions::new()
                .create(true)
                .append(goes_on)
                .write(true)
                .truncate(!goes_on)
                .open(part)
                .map_err(HubError::local(part))?;
            let mut body = answer.body_mut().as_reader();
            let mut buffer = vec![0; 1 << 16];
            watch(Progress { done, total });
            loop {
                let n = match body.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(unreachable(&at, &error)),
                };
                file.write_all(&buffer[..n])
                    .map_err(HubError::local(part))?;
                done += n as u64;
                watch(Progress { done, total });
            }
            file.sync_all().map_err(HubError::local(part))?;
            return match total {
                Some(total) if done < total => {
                    let problem = format!("breaks off at byte {done} of {total}");
                    Err(unreachable(&at, &problem))
                }
                _ => Ok(()),
            };
        }
        Err(too_many_redirects(url))
    }
}

fn length(path: &Path) -> Result<u64, HubError> {
    match File::open(path).and_then(|file| file.metadata()) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(HubError::local(path)(error)),
    }
}

fn remove(path: &Path) -> Result<(), HubError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(HubError::local(path)(error)),
        _ => Ok(()),
    }
}

/// Returns where a file grows: beside its place, under a name that another version has not.
fn part_of(target: &Path, expected: Option<&Expected>) -> PathBuf {
    let version = expected.map_or("unknown", |expected| &expected.named().1[..12]);
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{version}.part"));
    target.with_file_name(name)
}

/// Returns a repository's path as one below a folder of this machine.
fn relative(path: &str) -> Result<PathBuf, HubError> {
    let is_plain = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0'])
    };
    if path.split('/').all(is_plain) {
        Ok(path.split('/').collect())
    } else {
        Err(HubError::Name {
            name: path.to_owned(),
            what: "path below a folder",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_folder() {
        assert_eq!(relative("a/b.bin").unwrap(), Path::new("a/b.bin"));
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "a\\..\\b",
            "c:x",
            "a/./b",
        ] {
            assert!(relative(path).is_err(), "{path}");
        }
    }
}
