//! The files a plan names, sent to the coordinator before the plan itself.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tritmark_coordinator::{
    artefacts::{Described, describe},
    plan::Plan,
};
use tritmark_proto::{
    artefact::{ContentHash, NamedFile},
    wire,
};

use crate::{
    client::{Client, PlanFile, fault},
    exit::{Exit, OrExit as _, Outcome},
};

/// Bytes of one message.
const PIECE_BYTES: u64 = 256 << 10;

/// Messages on their way.
const PIECES: usize = 8;

/// Hashes of one question.
const QUESTIONS: usize = 4096;

/// Tries of one file that bring nothing on.
const TRIES: u32 = 8;

/// How long the first of them waits for the next; each waits twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(250);

/// Sends what the coordinator lacks of a plan's models and data; returns what stands for each path.
pub(super) async fn files(
    client: &mut Client,
    plan: &PlanFile,
) -> Outcome<Vec<wire::RegisteredFiles>> {
    let parsed = Plan::parse(&plan.text, &plan.name, &plan.base_dir)
        .or_exit(Exit::Usage, || {
            format!("{} was refused", plan.path.display())
        })?;
    let mut registered = Vec::new();
    let mut sources: BTreeMap<ContentHash, (NamedFile, PathBuf)> = BTreeMap::new();
    for path in parsed.paths() {
        let wanted = path.clone();
        let described = tokio::task::spawn_blocking(move || describe(&wanted));
        let Described { files, paths } =
            described
                .await
                .context("cannot read the plan's files")?
                .or_exit(Exit::Usage, || format!("cannot send {}", path.display()))?;
        for (file, path) in files.files().iter().zip(paths) {
            sources.insert(file.hash, (file.clone(), path));
        }
        registered.push(wire::RegisteredFiles {
            path: path.to_string_lossy().into_owned(),
            files: Some(files.into()),
        });
    }
    let hashes: Vec<ContentHash> = sources.keys().copied().collect();
    for hashes in hashes.chunks(QUESTIONS) {
        let missing = missing(client, hashes).await;
        for partial in missing.map_err(|status| fault(&status, "cannot send files"))? {
            let hash = ContentHash::try_from(&partial.hash[..]);
            let source = hash.ok().and_then(|hash| sources.get(&hash));
            let (file, path) = source
                .ok_or_else(|| anyhow::anyhow!("the coordinator lacks a file nobody spoke of"))?;
            eprintln!("sending {} ({} bytes)", path.display(), file.size_bytes);
            send(client, file, path, partial.have_bytes).await?;
        }
    }
    Ok(registered)
}

async fn missing(
    client: &mut Client,
    hashes: &[ContentHash],
) -> Result<Vec<wire::Partial>, Status> {
    let request = wire::MissingRequest {
        hashes: hashes.iter().map(|hash| hash.as_bytes().to_vec()).collect(),
    };
    let answer = client.artefacts().missing(request).await?;
    Ok(answer.into_inner().missing)
}

/// Sends one file, and goes on where a cut left it.
async fn send(client: &mut Client, file: &NamedFile, path: &Path, mut offset: u64) -> Outcome<()> {
    let what = || format!("cannot send {}", path.display());
    let mut tries = 0;
    loop {
        let status = match send_from(client, file, path, offset).await? {
            Ok(()) => return Ok(()),
            Err(status) => status,
        };
        let may_pass = matches!(
            status.code(),
            Code::Aborted
                | Code::Unavailable
                | Code::Unknown
                | Code::Internal
                | Code::Cancelled
                | Code::DeadlineExceeded
        );
        tries += 1;
        if !may_pass || tries > TRIES {
            return Err(fault(&status, &what()));
        }
        tokio::time::sleep(PAUSE * (1 << (tries - 1))).await;
        match missing(client, &[file.hash]).await.as_deref() {
            // Somebody else has sent it, or only the answer was lost.
            Ok([]) => return Ok(()),
            Ok([partial, ..]) => {
                if partial.have_bytes > offset {
                    tries = 0;
                }
                offset = partial.have_bytes;
            }
            // The next try will tell.
            Err(_) => {}
        }
    }
}

async fn send_from(
    client: &mut Client,
    file: &NamedFile,
    path: &Path,
    offset: u64,
) -> Outcome<Result<(), Status>> {
    let (pieces, out) = mpsc::channel(PIECES);
    let begin = wire::UploadPiece {
        begin: Some(wire::UploadBegin {
            hash: file.hash.as_bytes().to_vec(),
            size_bytes: file.size_bytes,
            offset,
        }),
        data: Vec::new(),
    };
    let mut reader = File::open(path)
        .and_then(|mut reader| {
            reader.seek(SeekFrom::Start(offset))?;
            Ok(reader.take(file.size_bytes.saturating_sub(offset)))
        })
        .with_context(|| format!("cannot read {}", path.display()))?;
    let reading = tokio::task::spawn_blocking(move || {
        let mut piece = begin;
        // Ends when the coordinator takes no more, too.
        while pieces.blocking_send(piece).is_ok() {
            let mut data = Vec::new();
            if reader.by_ref().take(PIECE_BYTES).read_to_end(&mut data)? == 0 {
                break;
            }
            piece = wire::UploadPiece { begin: None, data };
        }
        std::io::Result::Ok(())
    });
    let sent = client.artefacts().upload(ReceiverStream::new(out)).await;
    reading
        .await
        .context("cannot read the file")?
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(sent.map(|_| ()))
}
