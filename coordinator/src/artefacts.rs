//! Models and data for agents that do not have them: `tritmark.v1.Artefacts`.
//!
//! `register` makes sets of files of what a plan names, `staging` takes what submitters send, and an
//! agent asks for one file after the other by its hash. All of it is in [`Objects`].

use std::{path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use tokio::{
    sync::{OwnedSemaphorePermit, RwLock, Semaphore, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{error, info};
use tritmark_proto::{
    artefact::{ContentHash, MAX_FILE_BYTES, MAX_PIECE_BYTES},
    wire::{self, artefacts_server::Artefacts},
};

use crate::{
    link::shutting_down,
    objects::{BLOCK_BYTES, Objects, ObjectsError},
    server::AuditNote,
};

pub(crate) mod collect;
mod local;
mod register;
mod staging;
#[cfg(test)]
mod tests;

pub(crate) use local::ScorerWithData;
pub(crate) use register::Registered;
pub use register::{Described, RegisterError, describe};

use register::Readable;
use staging::{Staged, Staging, StagingError};

/// Bytes of one message to an agent.
const PIECE_BYTES: usize = 256 << 10;

/// Messages to an agent that may wait.
const TO_AGENT: usize = 4;

/// Files that are sent at a time. Each holds a block of 4 MiB.
const MAX_FETCHES: usize = 32;

/// Files that are taken at a time.
const MAX_UPLOADS: usize = 16;

/// How long a call waits for its turn before it is told to come back.
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// How long the other end may take for one message. A slow line of 100 kbit/s makes it.
const PIECE_WITHIN: Duration = Duration::from_mins(1);

/// Most hashes of one question.
const MAX_QUESTIONS: usize = 4096;

/// Where a coordinator keeps models and data.
#[derive(Clone, Debug)]
pub struct ArtefactsConfig {
    /// Where files are kept.
    pub objects: Objects,
    /// Folder for what has come in part, on a disk of this machine.
    pub staging: PathBuf,
    /// Folders from which a plan's files are taken without being sent.
    pub readable: Vec<PathBuf>,
    /// How long files are kept that no run has named since; `None`: for ever.
    pub keep: Option<Duration>,
}

/// Everything there is to models and data.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) objects: Objects,
    staging: Staging,
    readable: Readable,
    fetches: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    /// Held, by as many as there are, from when it was seen that a plan's files are there until its run
    /// is stored; and alone by who takes files away.
    naming: Arc<RwLock<()>>,
}

impl Shelf {
    pub(crate) fn open(config: ArtefactsConfig) -> std::io::Result<Self> {
        let ArtefactsConfig {
            objects,
            staging,
            readable,
            keep: _,
        } = config;
        Ok(Self {
            objects,
            staging: Staging::open(staging)?,
            readable: Readable::new(readable),
            fetches: Arc::new(Semaphore::new(MAX_FETCHES)),
            uploads: Arc::new(Semaphore::new(MAX_UPLOADS)),
            naming: Arc::default(),
        })
    }
}

/// Waits for a turn.
async fn turn(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    match timeout(TURN_WITHIN, Arc::clone(of).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Status::unavailable(
            "too many files are on their way; come back later",
        )),
    }
}

/// Serves agents and submitters.
#[derive(Clone, Debug)]
pub(crate) struct ArtefactsService {
    shelf: Option<Arc<Shelf>>,
    stop: CancellationToken,
}

impl ArtefactsService {
    pub(crate) fn new(shelf: Option<Arc<Shelf>>, stop: CancellationToken) -> Self {
        Self { shelf, stop }
    }

    fn shelf(&self) -> Result<&Arc<Shelf>, Status> {
        self.shelf.as_ref().ok_or_else(|| {
            Status::failed_precondition("this coordinator was started without a place for files")
        })
    }

    /// Takes the messages of one upload after its first.
    async fn take(
        &self,
        staged: &mut Staged,
        mut data: Vec<u8>,
        messages: &mut Streaming<wire::UploadPiece>,
    ) -> Result<(), Status> {
        loop {
            if data.len() > MAX_PIECE_BYTES {
                return Err(Status::invalid_argument(format!(
                    "field `data` has {} bytes, at most {MAX_PIECE_BYTES} are taken",
                    data.len()
                )));
            }
            if !data.is_empty() {
                staged.append(data).await.map_err(|e| status(&e))?;
            }
            let message = tokio::select! {
                () = self.stop.cancelled() => return Err(shutting_down()),
                message = timeout(PIECE_WITHIN, messages.message()) => message,
            };
            let silent = |_| Status::deadline_exceeded("nothing came within a minute");
            let Some(wire::UploadPiece { begin, data: next }) = message.map_err(silent)?? else {
                return Ok(());
            };
            if begin.is_some() {
                return Err(Status::invalid_argument(
                    "field `begin` belongs in the first message alone",
                ));
            }
            data = next;
        }
    }
}

/// Sends a file from an offset on.
async fn send(
    objects: &Objects,
    hash: ContentHash,
    mut offset: u64,
    size_bytes: u64,
    to_agent: &mpsc::Sender<Result<wire::Piece, Status>>,
) -> Result<(), Status> {
    while offset < size_bytes {
        let end = size_bytes.min(offset + BLOCK_BYTES);
        let mut block = objects
            .range(hash, offset..end)
            .await
            .map_err(|e| status_of(&e))?;
        while !block.is_empty() {
            let data = block.split_to(block.len().min(PIECE_BYTES));
            let n_bytes = data.len() as u64;
            let piece = wire::Piece {
                offset,
                data: data.into(),
            };
            match timeout(PIECE_WITHIN, to_agent.send(Ok(piece))).await {
                Ok(Ok(())) => offset += n_bytes,
                // The agent has gone, or takes nothing: it will come again.
                Ok(Err(_)) | Err(_) => return Ok(()),
            }
        }
    }
    Ok(())
}

type Pieces = Pin<Box<dyn Stream<Item = Result<wire::Piece, Status>> + Send>>;

#[tonic::async_trait]
impl Artefacts for ArtefactsService {
    type FetchStream = Pieces;

    async fn fetch(
        &self,
        request: Request<wire::FetchRequest>,
    ) -> Result<Response<Pieces>, Status> {
        let held = Arc::clone(self.shelf()?);
        let wire::FetchRequest { hash, offset } = request.into_inner();
        let hash = hash_of(&hash)?;
        let permit = turn(&held.fetches).await?;
        let size_bytes = held.objects.size_bytes(hash).await;
        let size_bytes = size_bytes
            .map_err(|e| status_of(&e))?
            .ok_or_else(|| Status::not_found(format!("there is no file {hash}")))?;
        if offset > size_bytes {
            return Err(Status::out_of_range(format!(
                "the file {hash} has {size_bytes} bytes, none from {offset} on"
            )));
        }
        let (to_agent, out) = mpsc::channel(TO_AGENT);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let sent = tokio::select! {
                () = stop.cancelled() => Err(shutting_down()),
                sent = send(&held.objects, hash, offset, size_bytes, &to_agent) => sent,
            };
            if let Err(status) = sent {
                // The agent may have gone already.
                let _ = timeout(PIECE_WITHIN, to_agent.send(Err(status))).await;
            }
            drop(permit);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(out))))
    }

    async fn missing(
        &self,
        request: Request<wire::MissingRequest>,
    ) -> Result<Response<wire::MissingResponse>, Status> {
        let held = self.shelf()?;
        let hashes = request.into_inner().hashes;
        if hashes.len() > MAX_QUESTIONS {
            return Err(Status::invalid_argument(format!(
                "field `hashes` has {}, at most {MAX_QUESTIONS} are answered at once",
                hashes.len()
            )));
        }
        let mut missing = Vec::new();
        for bytes in hashes {
            let hash = hash_of(&bytes)?;
            let size = held.objects.size_bytes(hash).await;
            if size.map_err(|e| status_of(&e))?.is_none() {
                missing.push(wire::Partial {
                    hash: bytes,
                    have_bytes: held.staging.have_bytes(hash),
                });
            }
        }
        Ok(Response::new(wire::MissingResponse { missing }))
    }

    async fn upload(
        &self,
        request: Request<Streaming<wire::UploadPiece>>,
    ) -> Result<Response<wire::UploadResponse>, Status> {
        let mut messages = request.into_inner();
        let first = timeout(PIECE_WITHIN, messages.message()).await;
        let silent = |_| Status::deadline_exceeded("nothing came within a minute");
        let first = first.map_err(silent)??;
        let held = self.shelf()?;
        let Some(wire::UploadPiece {
            begin: Some(begin),
            data,
        }) = first
        else {
            return Err(Status::invalid_argument(
                "field `begin` is missing in the first message",
            ));
        };
        let wire::UploadBegin {
            hash,
            size_bytes,
            offset,
        } = begin;
        let hash = hash_of(&hash)?;
        if size_bytes > MAX_FILE_BYTES {
            return Err(Status::invalid_argument(format!(
                "field `size_bytes` is {size_bytes}, at most {MAX_FILE_BYTES} are taken"
            )));
        }
        let _permit = turn(&held.uploads).await?;
        if held
            .objects
            .size_bytes(hash)
            .await
            .map_err(|e| status_of(&e))?
            == Some(size_bytes)
        {
            return Ok(noted(format!("{hash} is there already")));
        }
        let opened = held.staging.begin(hash, size_bytes, offset).await;
        let mut staged = opened.map_err(|e| status(&e))?;
        self.take(&mut staged, data, &mut messages).await?;
        let path = staged.finish().map_err(|e| status(&e))?;
        let put = held.objects.put_file(hash, &path, size_bytes).await;
        if let Err(ObjectsError::Changed { .. }) = &put {
            // Sending more of it would not mend it.
            staged.forget();
        }
        put.map_err(|e| status_of(&e))?;
        staged.forget();
        info!(%hash, size_bytes, "a file was taken");
        Ok(noted(format!("{hash}, {size_bytes} bytes")))
    }
}

fn noted(note: String) -> Response<wire::UploadResponse> {
    let mut response = Response::new(wire::UploadResponse {});
    response.extensions_mut().insert(AuditNote(note));
    response
}

fn hash_of(bytes: &[u8]) -> Result<ContentHash, Status> {
    ContentHash::try_from(bytes)
        .map_err(|error| Status::invalid_argument(format!("field `hash`: {error}")))
}

/// Says what a place for objects cannot do.
pub(crate) fn status_of(problem: &ObjectsError) -> Status {
    if let ObjectsError::Changed { hash, .. } = problem {
        return Status::data_loss(format!("the contents are not those of {hash}"));
    }
    error!(
        error = problem as &dyn std::error::Error,
        "the objects cannot be used"
    );
    Status::unavailable(problem.to_string())
}

fn status(problem: &StagingError) -> Status {
    match problem {
        StagingError::Busy { .. } | StagingError::Offset { .. } | StagingError::Short { .. } => {
            Status::aborted(problem.to_string())
        }
        StagingError::Long { .. } => Status::invalid_argument(problem.to_string()),
        StagingError::Disk { source, .. } => {
            error!(
                error = problem as &dyn std::error::Error,
                "an upload cannot be kept"
            );
            if source.kind() == std::io::ErrorKind::StorageFull {
                Status::resource_exhausted("the coordinator's disk is full")
            } else {
                Status::internal(problem.to_string())
            }
        }
    }
}
