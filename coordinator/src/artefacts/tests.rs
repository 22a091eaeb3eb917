//! Files on their way in and out, over real gRPC.

use std::{fs, path::Path};

use proptest::prelude::*;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Code, transport::Channel};
use tritmark_proto::{
    artefact::{FileSet, NamedFile},
    job::Job,
    wire::{
        RegisteredFiles, UploadBegin, UploadPiece, artefacts_client::ArtefactsClient,
        control_client::ControlClient,
    },
};

use super::*;
use crate::{Config, Coordinator};

/// A coordinator with a place for files.
struct Bench {
    dir: tempfile::TempDir,
    stop: CancellationToken,
    served: JoinHandle<()>,
    channel: Channel,
}

impl Bench {
    async fn open(readable: Vec<PathBuf>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path().join("store.sqlite"));
        config.artefacts = Some(ArtefactsConfig {
            objects: Objects::folder(&dir.path().join("objects")).unwrap(),
            staging: dir.path().join("staging"),
            readable,
            keep: None,
        });
        let coordinator = Coordinator::open(config).await.unwrap();
        let stop = coordinator.stop_token();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            coordinator.serve(listener).await.unwrap();
            coordinator.close().await;
        });
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        Self {
            dir,
            stop,
            served,
            channel,
        }
    }

    async fn close(self) {
        self.stop.cancel();
        drop(self.channel);
        self.served.await.unwrap();
    }

    fn client(&self) -> ArtefactsClient<Channel> {
        ArtefactsClient::new(self.channel.clone())
    }

    async fn fetch(&self, hash: ContentHash, offset: u64) -> Result<Vec<u8>, Status> {
        let request = wire::FetchRequest {
            hash: hash.as_bytes().to_vec(),
            offset,
        };
        let mut pieces = self.client().fetch(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await? {
            assert_eq!(piece.offset, offset + bytes.len() as u64);
            assert!(!piece.data.is_empty() && piece.data.len() <= MAX_PIECE_BYTES);
            bytes.extend(piece.data);
        }
        Ok(bytes)
    }

    async fn have_bytes(&self, hash: ContentHash) -> Option<u64> {
        let request = wire::MissingRequest {
            hashes: vec![hash.as_bytes().to_vec()],
        };
        let missing = self
            .client()
            .missing(request)
            .await
            .unwrap()
            .into_inner()
            .missing;
        missing.first().map(|partial| partial.have_bytes)
    }

    async fn send(&self, pieces: Vec<UploadPiece>) -> Result<(), Status> {
        let stream = tokio_stream::iter(pieces);
        self.client().upload(stream).await.map(|_| ())
    }

    async fn submit(
        &self,
        plan: &str,
        base_dir: &Path,
        registered: Vec<RegisteredFiles>,
    ) -> Result<Vec<Job>, Status> {
        let mut control = ControlClient::new(self.channel.clone());
        let request = wire::SubmitPlanRequest {
            registered,
            ..submission(plan, base_dir)
        };
        let run_id = control.submit_plan(request).await?.into_inner().run_id;
        let jobs = control.list_jobs(wire::ListJobsRequest { run_id }).await?;
        let jobs = jobs.into_inner().jobs.into_iter();
        Ok(jobs
            .map(|info| info.job.unwrap().try_into().unwrap())
            .collect())
    }
}

fn submission(plan: &str, base_dir: &Path) -> wire::SubmitPlanRequest {
    wire::SubmitPlanRequest {
        plan_toml: plan.to_owned(),
        plan_name: "p".to_owned(),
        base_dir: base_dir.display().to_string(),
        ..wire::SubmitPlanRequest::default()
    }
}

fn begin(hash: ContentHash, size_bytes: u64, offset: u64, data: &[u8]) -> UploadPiece {
    UploadPiece {
        begin: Some(UploadBegin {
            hash: hash.as_bytes().to_vec(),
            size_bytes,
            offset,
        }),
        data: data.to_vec(),
    }
}

fn more(data: &[u8]) -> UploadPiece {
    UploadPiece {
        begin: None,
        data: data.to_vec(),
    }
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * i + i / 251) as u8).collect()
}

#[tokio::test]
async fn a_file_goes_in_and_out_from_any_offset() {
    let bench = Bench::open(Vec::new()).await;
    // More than one block of the objects.
    let file = bytes((BLOCK_BYTES as usize) + 700_001);
    let hash = ContentHash::of(&file);
    let size = file.len() as u64;
    assert_eq!(bench.have_bytes(hash).await, Some(0));
    assert_eq!(
        bench.fetch(hash, 0).await.unwrap_err().code(),
        Code::NotFound
    );
    let mut pieces = vec![begin(hash, size, 0, b"")];
    pieces.extend(file.chunks(900_000).map(more));
    bench.send(pieces).await.unwrap();
    assert_eq!(bench.have_bytes(hash).await, None);
    for offset in [0, 1, BLOCK_BYTES, size - 1, size] {
        let rest = bench.fetch(hash, offset).await.unwrap();
        assert!(rest == file[offset as usize..], "from {offset}");
    }
    let beyond = bench.fetch(hash, size + 1).await.unwrap_err();
    assert_eq!(beyond.code(), Code::OutOfRange);
    // Once more is no fault, and nothing stays in part.
    bench
        .send(vec![begin(hash, size, 0, &file[..9])])
        .await
        .unwrap();
    let staged = fs::read_dir(bench.dir.path().join("staging")).unwrap();
    assert_eq!(staged.count(), 0);
    // Of nothing there is one, too.
    let nothing = ContentHash::of(b"");
    bench.send(vec![begin(nothing, 0, 0, b"")]).await.unwrap();
    assert_eq!(bench.fetch(nothing, 0).await.unwrap(), b"");
    bench.close().await;
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_cut() {
    let bench = Bench::open(Vec::new()).await;
    let file = bytes(300_000);
    let hash = ContentHash::of(&file);
    let cut = bench
        .send(vec![begin(hash, 300_000, 0, &file[..100_000])])
        .await;
    assert_eq!(cut.unwrap_err().code(), Code::Aborted);
    assert_eq!(bench.have_bytes(hash).await, Some(100_000));
    // Nothing of it is to be had before it is whole.
    assert_eq!(
        bench.fetch(hash, 0).await.unwrap_err().code(),
        Code::NotFound
    );
    let elsewhere = bench
        .send(vec![begin(hash, 300_000, 99_999, &file[99_999..])])
        .await;
    let elsewhere = elsewhere.unwrap_err();
    assert_eq!(elsewhere.code(), Code::Aborted);
    assert!(
        elsewhere.message().contains("goes on at 100000"),
        "{elsewhere}"
    );
    bench
        .send(vec![begin(hash, 300_000, 100_000, &file[100_000..])])
        .await
        .unwrap();
    assert!(bench.fetch(hash, 0).await.unwrap() == file);
    bench.close().await;
}

#[tokio::test]
async fn two_cannot_send_one_file_at_a_time() {
    let bench = Bench::open(Vec::new()).await;
    let file = bytes(1000);
    let hash = ContentHash::of(&file);
    let (pieces, out) = mpsc::channel(4);
    pieces
        .send(begin(hash, 1000, 0, &file[..10]))
        .await
        .unwrap();
    let mut client = bench.client();
    let first = tokio::spawn(async move { client.upload(ReceiverStream::new(out)).await });
    while bench.have_bytes(hash).await != Some(10) {
        tokio::task::yield_now().await;
    }
    let second = bench
        .send(vec![begin(hash, 1000, 0, &file)])
        .await
        .unwrap_err();
    assert_eq!(second.code(), Code::Aborted);
    assert!(second.message().contains("somebody else"), "{second}");
    pieces.send(more(&file[10..])).await.unwrap();
    drop(pieces);
    first.await.unwrap().unwrap();
    assert!(bench.fetch(hash, 0).await.unwrap() == file);
    bench.close().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_leaves_nothing() {
    let bench = Bench::open(Vec::new()).await;
    let hash = ContentHash::of(b"abc");
    let bad_hash = UploadPiece {
        begin: Some(UploadBegin {
            hash: vec![1; 31],
            size_bytes: 1,
            offset: 0,
        }),
        data: Vec::new(),
    };
    for (pieces, code) in [
        (vec![], Code::InvalidArgument),
        (vec![more(b"abc")], Code::InvalidArgument),
        (vec![bad_hash], Code::InvalidArgument),
        (vec![begin(hash, u64::MAX, 0, b"")], Code::InvalidArgument),
        (vec![begin(hash, 3, 4, b"")], Code::Aborted),
        (vec![begin(hash, 2, 0, b"abc")], Code::InvalidArgument),
        (
            vec![begin(hash, 3, 0, b"a"), begin(hash, 3, 1, b"bc")],
            Code::InvalidArgument,
        ),
        (
            vec![begin(hash, 3 << 20, 0, &vec![0; MAX_PIECE_BYTES + 1])],
            Code::InvalidArgument,
        ),
        // The right length, and other bytes.
        (vec![begin(hash, 3, 0, b"abd")], Code::DataLoss),
    ] {
        let refusal = bench.send(pieces).await.unwrap_err();
        assert_eq!(refusal.code(), code, "{refusal}");
    }
    let objects = bench.dir.path().join("objects/blobs");
    assert!(!objects.exists(), "nothing was kept");
    for bytes in [vec![], vec![0; 33]] {
        let request = wire::FetchRequest {
            hash: bytes.clone(),
            offset: 0,
        };
        let refusal = bench.client().fetch(request).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument);
        let request = wire::MissingRequest {
            hashes: vec![bytes],
        };
        let refusal = bench.client().missing(request).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument);
    }
    let request = wire::MissingRequest {
        hashes: vec![vec![0; 32]; MAX_QUESTIONS + 1],
    };
    let refusal = bench.client().missing(request).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    // A wrong file is forgotten; the right one is taken from its beginning.
    assert_eq!(bench.have_bytes(hash).await, Some(0));
    bench.send(vec![begin(hash, 3, 0, b"abc")]).await.unwrap();
    bench.close().await;
}

/// Whatever is sent in whatever pieces: it is there afterwards exactly if it was right.
#[test]
fn any_course_of_an_upload_ends_in_the_file_or_in_nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bench = runtime.block_on(Bench::open(Vec::new()));
    let course = (
        proptest::collection::vec(any::<u8>(), 0..60),
        proptest::collection::vec((0..70_usize, 0..70_usize, any::<bool>()), 0..6),
        any::<u16>(),
    );
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let checked = runner.run(&course, |(mut file, tries, salt)| {
        file.extend(salt.to_le_bytes());
        let hash = ContentHash::of(&file);
        let size = file.len();
        runtime.block_on(async {
            for (offset, end, is_spoilt) in tries {
                let mut data = file[offset.min(size)..end.clamp(offset.min(size), size)].to_vec();
                if is_spoilt && let Some(byte) = data.first_mut() {
                    *byte ^= 1;
                }
                // Whether it is taken is all the same.
                let _ = bench
                    .send(vec![begin(hash, size as u64, offset as u64, &data)])
                    .await;
                match bench.fetch(hash, 0).await {
                    Ok(fetched) => assert_eq!(fetched, file),
                    Err(status) => assert_eq!(status.code(), Code::NotFound),
                }
            }
            let whole = bench.send(vec![begin(hash, size as u64, 0, &file)]).await;
            whole.expect("the whole is taken at last");
            assert_eq!(bench.fetch(hash, 0).await.unwrap(), file);
        });
        Ok(())
    });
    checked.unwrap();
    runtime.block_on(bench.close());
}

const PLAN: &str = "[[models]]\nid = \"m\"\npath = \"m.gguf\"\n[[models]]\nid = \"n\"\npath = \"n\"\n\
                    [suites.accuracy]\ntasks = [\"boolq\"]\ndata = \"data\"\n";

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// What [`PLAN`] names.
fn files(folder: &Path) {
    write(folder, "m.gguf", "model m");
    write(folder, "n/config.json", "{}");
    write(folder, "n/model.safetensors", "weights of n");
    write(folder, "n/.gitattributes", "hidden");
    write(folder, "n/deeper/file", "in a folder");
    write(folder, "data/boolq/validation.jsonl", "{}");
}

fn sets(jobs: &[Job]) -> Vec<&FileSet> {
    jobs.iter().flat_map(Job::file_sets).collect()
}

fn names(set: &FileSet) -> Vec<&str> {
    let files = set.files().iter();
    files.map(|file| file.name.as_str()).collect()
}

#[tokio::test]
async fn a_plan_names_what_its_submitter_has_sent() {
    let here = tempfile::tempdir().unwrap();
    files(here.path());
    let bench = Bench::open(Vec::new()).await;
    let mut registered = Vec::new();
    for path in ["m.gguf", "n", "data/boolq"] {
        let path = here.path().join(path);
        let Described { files, paths } = describe(&path).unwrap();
        for (
            NamedFile {
                hash, size_bytes, ..
            },
            path,
        ) in files.files().iter().zip(paths)
        {
            let contents = fs::read(path).unwrap();
            bench
                .send(vec![begin(*hash, *size_bytes, 0, &contents)])
                .await
                .unwrap();
        }
        registered.push(RegisteredFiles {
            path: path.display().to_string(),
            files: Some(files.into()),
        });
    }
    let jobs = bench
        .submit(PLAN, here.path(), registered.clone())
        .await
        .unwrap();
    let sets = sets(&jobs);
    assert_eq!((jobs.len(), sets.len()), (2, 4));
    assert_eq!(sets[0].single().unwrap().name.as_str(), "m.gguf");
    assert_eq!(names(sets[1]), ["validation.jsonl"]);
    assert_eq!(sets[1].name().as_str(), "boolq");
    assert_eq!(names(sets[2]), ["config.json", "model.safetensors"]);
    // No path of the submitter's is in what agents hear.
    let said = format!("{jobs:?}");
    assert!(!said.contains(&here.path().display().to_string()), "{said}");

    // What was not sent cannot be named.
    let mut unsent = registered;
    unsent[0].files.as_mut().unwrap().files[0].hash = vec![9; 32];
    let refusal = bench.submit(PLAN, here.path(), unsent).await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    assert!(
        refusal.message().contains("m.gguf was not sent"),
        "{refusal}"
    );
    bench.close().await;
}

#[tokio::test]
async fn a_plan_names_what_lies_where_the_coordinator_may_read() {
    let here = tempfile::tempdir().unwrap();
    files(here.path());
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), "secret", "not for agents");
    let bench = Bench::open(vec![here.path().to_owned()]).await;
    // A dry run says the same, and keeps nothing.
    let mut control = ControlClient::new(bench.channel.clone());
    let dry = control
        .dry_run(submission(PLAN, here.path()))
        .await
        .unwrap();
    let dry: Vec<Job> = dry
        .into_inner()
        .jobs
        .into_iter()
        .map(|preview| preview.job.unwrap().try_into().unwrap())
        .collect();
    for file in sets(&dry).iter().flat_map(|set| set.files()) {
        assert_eq!(bench.have_bytes(file.hash).await, Some(0));
    }

    let jobs = bench.submit(PLAN, here.path(), Vec::new()).await.unwrap();
    let found = sets(&jobs);
    assert_eq!(found.len(), 4);
    assert_eq!(sets(&dry), found);
    for file in found.iter().flat_map(|set| set.files()) {
        let fetched = bench.fetch(file.hash, 0).await.unwrap();
        assert_eq!(ContentHash::of(&fetched), file.hash);
    }
    // A file that changed is another one.
    write(here.path(), "m.gguf", "model m, trained for longer");
    let changed = bench.submit(PLAN, here.path(), Vec::new()).await.unwrap();
    assert_ne!(sets(&changed)[0], found[0]);

    // What lies elsewhere is left to the agents.
    let elsewhere = bench
        .submit(PLAN, outside.path(), Vec::new())
        .await
        .unwrap();
    assert!(sets(&elsewhere).is_empty());
    // And no link leads there.
    let link = here.path().join("n/extra");
    std::os::unix::fs::symlink(outside.path().join("secret"), link).unwrap();
    let refusal = bench
        .submit(PLAN, here.path(), Vec::new())
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    assert!(refusal.message().contains("leads out of"), "{refusal}");
    bench.close().await;
}

#[tokio::test]
async fn a_coordinator_without_a_place_for_files_says_so() {
    let service = ArtefactsService::new(None, CancellationToken::new());
    let request = wire::FetchRequest {
        hash: vec![0; 32],
        offset: 0,
    };
    let refusal = service.fetch(Request::new(request)).await.map(|_| ());
    assert_eq!(refusal.unwrap_err().code(), Code::FailedPrecondition);
}

#[test]
fn files_that_make_no_set_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let refusal = describe(&empty).unwrap_err();
    assert!(matches!(refusal, RegisterError::Set { .. }), "{refusal}");
    let missing = describe(&dir.path().join("missing")).unwrap_err();
    assert!(missing.to_string().contains("missing"), "{missing}");
    write(dir.path(), "odd/a\nb", "x");
    let odd = describe(&dir.path().join("odd")).unwrap_err();
    assert!(matches!(odd, RegisterError::Set { .. }), "{odd}");
    // A folder is known by its name however it is pointed at.
    write(dir.path(), "model/config.json", "{}");
    let by_dots = describe(&dir.path().join("model/../model/.")).unwrap();
    assert_eq!(by_dots.files.name().as_str(), "model");
}
