//! Files of the Hugging Face hub: which there are at a revision, and their bytes, whole or not at
//! all.
//!
//! The protocol is the hub's own (`huggingface_hub`'s `file_download.py`): a revision becomes a
//! commit by `/api/{models|datasets}/{repo}/revision/{revision}`, and a file is at
//! `/{repo}/resolve/{commit}/{path}`, whose answer tells the file's checksum: SHA-256 for large
//! files, git's blob hash for others. Both are checked. The names of the environment are the hub's
//! too: `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HOME`, `HF_HUB_OFFLINE`.

mod checksum;
mod download;
mod rows;
mod tls;

use std::{
    fmt::{self, Write as _},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use thiserror::Error;
use ureq::{Agent, http};

pub(crate) use download::Progress;
pub(crate) use rows::{Written, write_rows};

/// Where the hub is if nothing else is said.
const ENDPOINT: &str = "https://huggingface.co";
/// Most bytes of a list of files.
const MAX_LIST_BYTES: u64 = 64 << 20;
/// Redirects that are followed for one file.
const MAX_REDIRECTS: u32 = 5;

/// Returns the SHA-256 of a file, hex.
pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    checksum::Found::of(path).map(|found| found.sha256)
}

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Weights.
    Model,
    /// Rows.
    Dataset,
}

impl Kind {
    fn api(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::Dataset => "datasets/",
        }
    }
}

/// A repository at a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revision {
    /// Whose files these are.
    pub(crate) kind: Kind,
    /// Owner and name.
    pub(crate) repo: String,
    /// Hash of the commit, hex.
    pub(crate) commit: String,
    /// Paths of all files, in the hub's order.
    pub(crate) files: Vec<String>,
}

/// Why the hub's files cannot be had.
#[derive(Debug, Error)]
pub(crate) enum HubError {
    /// The network must not be used.
    #[error("{url} is not fetched: HF_HUB_OFFLINE is set")]
    Offline {
        /// What was wanted.
        url: String,
    },
    /// The hub wants to know who asks.
    #[error("{url}: the hub refuses ({status}); {advice}")]
    Denied {
        /// What was wanted.
        url: String,
        /// HTTP status.
        status: u16,
        /// What may help.
        advice: &'static str,
    },
    /// There is no such repository, revision or file.
    #[error("{url}: the hub has no such thing")]
    Missing {
        /// What was wanted.
        url: String,
    },
    /// The hub cannot be reached, or breaks off again and again.
    #[error("{url}: {problem}")]
    Unreachable {
        /// What was wanted.
        url: String,
        /// Status or network error.
        problem: String,
    },
    /// The hub says what this client does not understand.
    #[error("{url}: {problem}")]
    Protocol {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// What came is not what the hub announced.
    #[error("{path}: {kind} is {found}, where the hub has {expected}; what came is thrown away")]
    Checksum {
        /// Path in the repository.
        path: String,
        /// Name of the hash.
        kind: &'static str,
        /// As announced, hex.
        expected: String,
        /// As it came, hex.
        found: String,
    },
    /// A name that cannot be used on this machine.
    #[error("`{name}` is no {what}")]
    Name {
        /// As given.
        name: String,
        /// What it should be.
        what: &'static str,
    },
    /// A local file cannot be written or read.
    #[error("cannot write {path}")]
    Local {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl HubError {
    /// Tells whether another try may succeed.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    fn local(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Local { path, source }
    }
}

/// A client of one hub.
pub(crate) struct Hub {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    is_offline: bool,
    /// Between tries that brought nothing new.
    pause: Duration,
}

impl fmt::Debug for Hub {
    // The token is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("is_offline", &self.is_offline)
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// Returns the hub that the environment names; `get` looks a variable up.
    pub(crate) fn from_env(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let home = get("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache = get("XDG_CACHE_HOME").map(PathBuf::from);
            let cache = cache.or_else(|| Some(PathBuf::from(get("HOME")?).join(".cache")));
            Some(cache?.join("huggingface"))
        });
        let path = get("HF_TOKEN_PATH").map(PathBuf::from);
        let path = path.or_else(|| Some(home?.join("token")));
        // A token that cannot be read is none; where one is needed, the hub's refusal says so.
        let token = get("HF_TOKEN").or_else(|| fs::read_to_string(path?).ok());
        let token = token.map(|token| token.trim().to_owned());
        let is_set = |value: String| {
            matches!(
                value.to_ascii_uppercase().as_str(),
                "1" | "ON" | "YES" | "TRUE"
            )
        };
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let config = Agent::config_builder()
            .tls_config(tls::config())
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_mins(1)))
            .user_agent(concat!("tritmark/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.into(),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.filter(|token| !token.is_empty()),
            is_offline: get("HF_HUB_OFFLINE").is_some_and(is_set),
            pause: Duration::from_secs(2),
        }
    }

    /// Asks which commit a revision (branch, tag or commit) is, and which files it has.
    pub(crate) fn revision(
        &self,
        kind: Kind,
        repo: &str,
        revision: &str,
    ) -> Result<Revision, HubError> {
        if !is_repo(repo) {
            return Err(HubError::Name {
                name: repo.to_owned(),
                what: "repository (OWNER/NAME)",
            });
        }
        let url = format!(
            "{}/api/{}/{repo}/revision/{}",
            self.endpoint,
            kind.api(),
            encoded(revision, false)
        );
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut answer = self.ask(Method::Get, &at, None)?;
            if let Some(location) = redirect(&at, &answer)? {
                at = location;
                continue;
            }
            check_status(&at, answer.status().as_u16())?;
            let body = answer.body_mut().with_config().limit(MAX_LIST_BYTES);
            let text = body
                .read_to_string()
                .map_err(|error| unreachable(&at, &error))?;
            return read_revision(kind, repo, &text)
                .map_err(|problem| HubError::Protocol { url: at, problem });
        }
        Err(too_many_redirects(&url))
    }

    /// Sends one request, following no redirect; the token goes to the hub's own host alone.
    fn ask(
        &self,
        method: Method,
        url: &str,
        from: Option<u64>,
    ) -> Result<http::Response<ureq::Body>, HubError> {
        if self.is_offline {
            return Err(HubError::Offline {
                url: url.to_owned(),
            });
        }
        let mut request = match method {
            Method::Get => self.agent.get(url),
            Method::Head => self.agent.head(url),
        };
        request = request.header("Accept-Encoding", "identity");
        if let Some(token) = self
            .token
            .as_ref()
            .filter(|_| origin(url) == origin(&self.endpoint))
        {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(from) = from {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call().map_err(|error| unreachable(url, &error))
    }
}

#[derive(Clone, Copy)]
enum Method {
    Get,
    Head,
}

fn unreachable(url: &str, error: &dyn fmt::Display) -> HubError {
    HubError::Unreachable {
        url: url.to_owned(),
        problem: error.to_string(),
    }
}

fn too_many_redirects(url: &str) -> HubError {
    HubError::Protocol {
        url: url.to_owned(),
        problem: format!("redirects more than {MAX_REDIRECTS} times"),
    }
}

fn check_status(url: &str, status: u16) -> Result<(), HubError> {
    let url = url.to_owned();
    match status {
        200..=299 => Ok(()),
        401 => Err(HubError::Denied {
            url,
            status,
            advice: "set HF_TOKEN to a token that may read it, or check the name",
        }),
        403 => Err(HubError::Denied {
            url,
            status,
            advice: "the repository's terms have to be accepted on its page first",
        }),
        404 => Err(HubError::Missing { url }),
        408 | 429 | 500..=599 => Err(HubError::Unreachable {
            url,
            problem: format!("the hub answers with status {status}"),
        }),
        _ => Err(HubError::Protocol {
            url,
            problem: format!("the hub answers with status {status}"),
        }),
    }
}

fn header<'a>(answer: &'a http::Response<ureq::Body>, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// Returns where an answer sends to, absolutely, if it does.
fn redirect(url: &str, answer: &http::Response<ureq::Body>) -> Result<Option<String>, HubError> {
    if !answer.status().is_redirection() {
        return Ok(None);
    }
    let location = header(answer, "location").ok_or_else(|| HubError::Protocol {
        url: url.to_owned(),
        problem: "redirects to nowhere".to_owned(),
    })?;
    let is_web = |text: &str| text.starts_with("https://") || text.starts_with("http://");
    if is_web(location) {
        // What was asked for under encryption is not taken without it.
        if url.starts_with("https://") && !location.starts_with("https://") {
            return Err(HubError::Protocol {
                url: url.to_owned(),
                problem: format!("redirects to {location}, which is not encrypted"),
            });
        }
        return Ok(Some(location.to_owned()));
    }
    if location.starts_with('/') && !location.starts_with("//") {
        return Ok(Some(format!("{}{location}", origin(url))));
    }
    Err(HubError::Protocol {
        url: url.to_owned(),
        problem: format!("redirects to `{location}`, which is no address"),
    })
}

/// Returns scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find('/').map_or(url.len(), |at| start + at);
    &url[..end]
}

/// Tells whether a text is owner and name, or one of the old names without owner.
fn is_repo(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
    };
    text.split('/').count() <= 2 && text.split('/').all(is_part)
}

/// Percent-encodes part of an address.
fn encoded(text: &str, keeps_slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let is_plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'.' | b'~')
            || (keeps_slashes && byte == b'/');
        if is_plain {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn read_revision(kind: Kind, repo: &str, text: &str) -> Result<Revision, String> {
    let answer: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let commit = answer["sha"].as_str().unwrap_or_default();
    if !(matches!(commit.len(), 40 | 64) && commit.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err("the answer names no commit (`sha`)".to_owned());
    }
    let siblings = answer["siblings"]
        .as_array()
        .ok_or("the answer lists no files (`siblings`)")?;
    let files = siblings.iter().map(|file| file["rfilename"].as_str());
    let files = files
        .map(|name| Some(name?.to_owned()))
        .collect::<Option<_>>();
    Ok(Revision {
        kind,
        repo: repo.to_owned(),
        commit: commit.to_owned(),
        files: files.ok_or("a file has no name (`rfilename`)")?,
    })
}

impl Revision {
    /// Returns the files a pattern names: a path, or one with a `*` that stands for anything but
    /// slashes in its last part.
    pub(crate) fn matching(&self, pattern: &str) -> Vec<&str> {
        let mut found: Vec<&str> = self.files.iter().map(String::as_str).collect();
        match pattern.split_once('*') {
            None => found.retain(|path| *path == pattern),
            Some((start, end)) => found.retain(|path| {
                path.len() >= start.len() + end.len()
                    && path.starts_with(start)
                    && path.ends_with(end)
                    && !path[start.len()..path.len() - end.len()].contains('/')
            }),
        }
        found.sort_unstable();
        found
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
