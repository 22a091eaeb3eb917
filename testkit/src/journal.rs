//! What agents themselves know: which attempts they began, and what the coordinator acknowledged.
//!
//! A journal is kept apart from everything that is tested, in memory or as lines of a file, so that
//! it outlives the agent that wrote it. It is the other side of the check: what an agent was told is
//! stored must be in the store.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing::{Event, Subscriber, field::Visit};
use tracing_subscriber::{Layer, layer::Context};
use tritmark_proto::job::{AttemptId, JobId};

/// One thing an agent knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A worker was started.
    Started(AttemptId),
    /// The coordinator said what it has stored.
    Acknowledged {
        /// Of which attempt.
        attempt: AttemptId,
        /// Every record with a lower sequence.
        stored_below: u64,
        /// The end, too.
        finished: bool,
    },
}

/// What agents knew, in memory; a clone writes to the same list.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    all: Vec<Entry>,
    n_finished: u64,
}

impl Journal {
    /// Notes something down.
    pub fn note(&self, entry: Entry) {
        let mut entries = self.entries_so_far();
        entries.n_finished +=
            u64::from(matches!(entry, Entry::Acknowledged { finished: true, .. }));
        entries.all.push(entry);
    }

    /// Returns everything so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries_so_far().all.clone()
    }

    /// Returns how often the end of an attempt was acknowledged.
    pub fn n_finished(&self) -> u64 {
        self.entries_so_far().n_finished
    }

    fn entries_so_far(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the journals in a folder: all files named `*.journal`.
///
/// # Errors
/// Also where a line that has an end makes no sense; a last line without one was cut by a kill.
pub fn read_folder(folder: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if path
            .extension()
            .is_none_or(|extension| extension != "journal")
        {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            let entry = parse(line).ok_or_else(|| {
                io::Error::other(format!("{}: `{line}` is no entry", path.display()))
            })?;
            entries.push(entry);
        }
    }
    Ok(entries)
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempt = |f: &mut fmt::Formatter<'_>, verb, attempt: &AttemptId| {
            let AttemptId {
                job,
                attempt,
                fence,
            } = attempt;
            write!(f, "{verb} {job} {attempt} {fence}")
        };
        match self {
            Self::Started(started) => attempt(f, "started", started),
            Self::Acknowledged {
                attempt: acknowledged,
                stored_below,
                finished,
            } => {
                attempt(f, "acknowledged", acknowledged)?;
                write!(f, " {stored_below} {finished}")
            }
        }
    }
}

fn parse(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let verb = words.next()?;
    let job = parse_job(words.next()?)?;
    let attempt = AttemptId {
        job,
        attempt: words.next()?.parse().ok()?,
        fence: words.next()?.parse().ok()?,
    };
    match verb {
        "started" => Some(Entry::Started(attempt)),
        "acknowledged" => Some(Entry::Acknowledged {
            attempt,
            stored_below: words.next()?.parse().ok()?,
            finished: words.next()?.parse().ok()?,
        }),
        _ => None,
    }
}

fn parse_job(text: &str) -> Option<JobId> {
    let (run, index) = text.split_once('/')?;
    Some(JobId {
        run: run.parse().ok()?,
        index: index.parse().ok()?,
    })
}

/// Keeps the journal of a real agent: it reads the agent's own log events, whatever their level.
#[derive(Debug)]
pub struct JournalLayer(Mutex<File>);

impl JournalLayer {
    /// Appends to the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(Mutex::new(file)))
    }
}

impl<S: Subscriber> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !event.metadata().target().starts_with("tritmark_agent") {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(entry) = fields.entry() {
            let line = format!("{entry}\n");
            let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // One write a line, so that a kill cuts none in the middle of the file.
            file.write_all(line.as_bytes())
                .expect("the journal can be written");
        }
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    job: Option<JobId>,
    attempt: Option<u64>,
    fence: Option<u64>,
    stored_below: Option<u64>,
    finished: Option<bool>,
}

impl Fields {
    fn entry(&self) -> Option<Entry> {
        let attempt = AttemptId {
            job: self.job?,
            attempt: u32::try_from(self.attempt?).ok()?.try_into().ok()?,
            fence: self.fence?,
        };
        match self.message.as_str() {
            "assigned" => Some(Entry::Started(attempt)),
            "acknowledged" => Some(Entry::Acknowledged {
                attempt,
                stored_below: self.stored_below?,
                finished: self.finished?,
            }),
            _ => None,
        }
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        match field.name() {
            "attempt" => self.attempt = Some(value),
            "fence" => self.fence = Some(value),
            "stored_below" => self.stored_below = Some(value),
            _ => {}
        }
    }

    fn record_bool(&mut self, field: &tracing::field::Field, value: bool) {
        if field.name() == "finished" {
            self.finished = Some(value);
        }
    }

    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "job" => self.job = parse_job(&format!("{value:?}")),
            // A NonZeroU32 has no other way.
            "attempt" => self.attempt = format!("{value:?}").parse().ok(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use tritmark_proto::job::RunId;

    use super::*;

    #[test]
    fn what_was_noted_can_be_read_again() {
        let attempt = AttemptId {
            job: JobId {
                run: RunId::generate(),
                index: 3,
            },
            attempt: NonZeroU32::MIN,
            fence: 9,
        };
        let entries = [
            Entry::Started(attempt),
            Entry::Acknowledged {
                attempt,
                stored_below: 4,
                finished: true,
            },
        ];
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.journal");
        let lines: Vec<String> = entries.iter().map(|entry| format!("{entry}\n")).collect();
        let lines = lines.concat();
        // A line that a kill has cut is not read.
        std::fs::write(&path, format!("{lines}started {}", attempt.job)).expect("it is written");
        assert_eq!(read_folder(folder.path()).expect("it is read"), entries);
        std::fs::write(&path, "started\n").expect("it is written");
        assert!(read_folder(folder.path()).is_err());
    }
}
