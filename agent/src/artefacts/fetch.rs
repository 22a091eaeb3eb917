//! One file after the other from the coordinator, however often the way there is cut.
//!
//! Nothing that came is asked for twice: a cut stream goes on where it ended, in this life of the
//! agent or in the next. What the hash does not fit is not used.

use std::{error::Error as _, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinError,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Status, Streaming, transport::Channel};
use tritmark_proto::{
    artefact::{ContentHash, MAX_PIECE_BYTES, NamedFile},
    wire::{FetchRequest, Piece, artefacts_client::ArtefactsClient},
};
use tritmark_suites::chain;

use super::cache::{Cache, CacheError, Partial};
use crate::{
    backoff::{self, Backoff},
    endpoint::Dialer,
};

/// How long the coordinator may take for one message.
const PIECE_WITHIN: Duration = Duration::from_secs(90);

/// Pieces on their way to the disk.
const TO_DISK: usize = 8;

/// Largest message: a piece and what stands around it.
const MAX_MESSAGE_BYTES: usize = MAX_PIECE_BYTES + (64 << 10);

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("the coordinator refuses it")]
    Refused(#[source] Box<Status>),
    #[error("the coordinator sent other bytes than {hash}, which it was asked for")]
    Wrong { hash: ContentHash },
    #[error("the coordinator sent a piece that makes no sense: {0}")]
    Senseless(String),
    #[error("no byte came for {} s; last: {reason}", patience.as_secs())]
    Patience { patience: Duration, reason: String },
    #[error("the thread that writes the file failed")]
    Writer(#[source] JoinError),
}

/// How a stream ended.
enum Ended {
    /// All that was asked for has come.
    Done,
    /// Before that; another one may go on.
    Cut {
        reason: String,
        /// The coordinator lives and asks for patience.
        is_busy: bool,
    },
    /// Another one would end alike.
    Failed(FetchError),
}

/// The coordinator, as where files come from.
pub(super) struct Source<'a> {
    dialer: &'a Dialer,
    patience: Duration,
    /// The connection, while it holds.
    client: Option<ArtefactsClient<Channel>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(dialer: &'a Dialer, patience: Duration) -> Self {
        Self {
            dialer,
            patience,
            client: None,
        }
    }

    /// Fetches a file into the cache. `progress` hears how much of it has come.
    pub(super) async fn fetch(
        &mut self,
        cache: &Arc<Cache>,
        file: &NamedFile,
        progress: impl Fn(u64),
    ) -> Result<(), FetchError> {
        loop {
            let mut partial = blocking({
                let (cache, file) = (Arc::clone(cache), file.clone());
                move || cache.partial(&file)
            })
            .await?;
            let is_resumed = partial.is_resumed();
            if partial.offset() < file.size_bytes {
                tracing::info!(name = %file.name, hash = %file.hash, from = partial.offset(), size_bytes = file.size_bytes, "fetching");
                partial = self.fetch_rest(partial, file, &progress).await?;
            }
            let hash = file.hash;
            if blocking(move || partial.finish(hash)).await? {
                return Ok(());
            }
            // A part from before a power cut may be spoilt: then once more, from the beginning.
            if !is_resumed {
                return Err(FetchError::Wrong { hash });
            }
            tracing::warn!(%hash, "what had come of a file was spoilt; it is fetched anew");
        }
    }

    /// Fetches what a file lacks, stream after stream.
    async fn fetch_rest(
        &mut self,
        mut partial: Partial,
        file: &NamedFile,
        progress: &impl Fn(u64),
    ) -> Result<Partial, FetchError> {
        let mut backoff = Backoff::default();
        let mut last_sign = Instant::now();
        loop {
            let before = partial.offset();
            let ended;
            (partial, ended) = self.stream(partial, file, progress).await?;
            let (reason, is_busy) = match ended {
                Ended::Done => return Ok(partial),
                Ended::Failed(error) => return Err(error),
                Ended::Cut { reason, is_busy } => (reason, is_busy),
            };
            self.client = None;
            if partial.offset() > before {
                backoff = Backoff::default();
            }
            if partial.offset() > before || is_busy {
                last_sign = Instant::now();
            }
            if last_sign.elapsed() >= self.patience {
                return Err(FetchError::Patience {
                    patience: self.patience,
                    reason,
                });
            }
            let wait = backoff.wait(backoff::random());
            tracing::warn!(name = %file.name, at = partial.offset(), reason, ?wait, "the file does not come");
            sleep(wait).await;
        }
    }

    /// Takes one stream to its end.
    async fn stream(
        &mut self,
        partial: Partial,
        file: &NamedFile,
        progress: &impl Fn(u64),
    ) -> Result<(Partial, Ended), FetchError> {
        let mut offset = partial.offset();
        let mut pieces = match timeout(PIECE_WITHIN, self.open(file.hash, offset)).await {
            Ok(Ok(pieces)) => pieces,
            Ok(Err(ended)) => return Ok((partial, ended)),
            Err(_) => return Ok((partial, silent())),
        };
        let (to_disk, mut coming) = mpsc::channel::<Vec<u8>>(TO_DISK);
        // Hashing and writing must not hold up the thread that tells the coordinator of life.
        let writer = blocking(move || {
            let mut partial = partial;
            while let Some(data) = coming.blocking_recv() {
                partial.append(&data)?;
            }
            Ok(partial)
        });
        let take = async {
            let ended = loop {
                let piece = match timeout(PIECE_WITHIN, pieces.message()).await {
                    Ok(Ok(Some(piece))) => piece,
                    Ok(Ok(None)) if offset == file.size_bytes => break Ended::Done,
                    Ok(Ok(None)) => {
                        break Ended::Cut {
                            reason: "the stream ended early".to_owned(),
                            is_busy: false,
                        };
                    }
                    Ok(Err(status)) => break of(status),
                    Err(_) => break silent(),
                };
                if let Some(problem) = problem(&piece, offset, file.size_bytes) {
                    break Ended::Failed(FetchError::Senseless(problem));
                }
                let n_bytes = piece.data.len() as u64;
                if to_disk.send(piece.data).await.is_err() {
                    // The writer says why.
                    break Ended::Done;
                }
                offset += n_bytes;
                progress(offset);
            };
            drop(to_disk);
            ended
        };
        let (partial, ended) = tokio::join!(writer, take);
        Ok((partial?, ended))
    }

    async fn open(&mut self, hash: ContentHash, offset: u64) -> Result<Streaming<Piece>, Ended> {
        let client = if let Some(client) = &mut self.client {
            client
        } else {
            let connected = self.dialer.endpoint().connect().await;
            let channel = connected.map_err(|error| Ended::Cut {
                reason: chain(&error),
                is_busy: false,
            })?;
            let client = ArtefactsClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
            self.client.insert(client)
        };
        let request = FetchRequest {
            hash: hash.as_bytes().to_vec(),
            offset,
        };
        let answer = client.fetch(request).await.map_err(of)?;
        Ok(answer.into_inner())
    }
}

/// Says what is wrong with a piece, if something is.
fn problem(piece: &Piece, offset: u64, size_bytes: u64) -> Option<String> {
    let n_bytes = piece.data.len() as u64;
    if piece.offset != offset {
        Some(format!("it begins at {} and not at {offset}", piece.offset))
    } else if n_bytes == 0 || n_bytes > MAX_PIECE_BYTES as u64 {
        Some(format!("it has {n_bytes} bytes"))
    } else if n_bytes > size_bytes - offset {
        Some(format!("it goes beyond the file's {size_bytes} bytes"))
    } else {
        None
    }
}

fn silent() -> Ended {
    Ended::Cut {
        reason: format!("nothing came within {} s", PIECE_WITHIN.as_secs()),
        is_busy: false,
    }
}

/// Tells refusals from a way that is cut.
fn of(status: Status) -> Ended {
    match status.code() {
        Code::NotFound
        | Code::OutOfRange
        | Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented
        | Code::FailedPrecondition
        | Code::DataLoss => Ended::Failed(FetchError::Refused(Box::new(status))),
        code => Ended::Cut {
            // What the network says has a cause on this side; what the coordinator says has none.
            is_busy: matches!(code, Code::Unavailable | Code::ResourceExhausted)
                && status.source().is_none(),
            reason: chain(&status),
        },
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CacheError> + Send + 'static,
) -> Result<T, FetchError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(FetchError::Writer)??)
}
