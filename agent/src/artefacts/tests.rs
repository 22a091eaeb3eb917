//! Fetching from a coordinator that each test plays itself, and the cache.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, Streaming, transport::Server};
use tritmark_proto::{
    artefact::{ContentHash, NamedFile},
    bundle::FailureClass,
    wire::{
        self, Piece,
        artefacts_server::{Artefacts, ArtefactsServer},
    },
};

use super::*;
use crate::testing::{accuracy_job, attempt, latency_job};

/// What happens to one stream.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It breaks after so many pieces.
    Cut(usize),
    /// It ends after so many pieces, as if that were all.
    Short(usize),
    /// It is refused.
    Refuse(Code),
    /// One byte is another.
    Spoil,
    /// The first piece begins elsewhere.
    Elsewhere,
    /// The first piece holds nothing.
    Empty,
    /// More comes than there is.
    Long,
}

#[derive(Default)]
struct State {
    files: HashMap<Vec<u8>, Vec<u8>>,
    faults: VecDeque<Fault>,
    /// The offset of each call.
    asked: Vec<u64>,
}

#[derive(Clone, Default)]
struct Coordinator(Arc<Mutex<State>>);

const PIECE: usize = 100;

#[tonic::async_trait]
impl Artefacts for Coordinator {
    type FetchStream = tokio_stream::Iter<std::vec::IntoIter<Result<Piece, Status>>>;

    async fn fetch(
        &self,
        request: Request<wire::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let wire::FetchRequest { hash, offset } = request.into_inner();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.push(offset);
        let fault = state.faults.pop_front();
        let file = state.files.get(&hash).cloned();
        let mut file = file.ok_or_else(|| Status::not_found("there is no such file"))?;
        if let Some(Fault::Refuse(code)) = fault {
            return Err(Status::new(code, "not now"));
        }
        if let Some(Fault::Spoil) = fault {
            file[0] ^= 1;
            let last = file.len() - 1;
            file[last] ^= 1;
        }
        if let Some(Fault::Long) = fault {
            file.push(0);
        }
        let mut at = offset;
        let mut pieces = Vec::new();
        for data in file[offset as usize..].chunks(PIECE) {
            pieces.push(Ok(Piece {
                offset: at,
                data: data.to_vec(),
            }));
            at += data.len() as u64;
        }
        match (fault, &mut pieces[..]) {
            (Some(Fault::Cut(n)), _) => {
                pieces.truncate(n);
                pieces.push(Err(Status::unavailable("cut")));
            }
            (Some(Fault::Short(n)), _) => pieces.truncate(n),
            (Some(Fault::Elsewhere), [Ok(first), ..]) => first.offset += 1,
            (Some(Fault::Empty), [Ok(first), ..]) => first.data.clear(),
            _ => {}
        }
        Ok(Response::new(tokio_stream::iter(pieces)))
    }

    async fn missing(
        &self,
        _: Request<wire::MissingRequest>,
    ) -> Result<Response<wire::MissingResponse>, Status> {
        Err(Status::unimplemented("not for agents"))
    }

    async fn upload(
        &self,
        _: Request<Streaming<wire::UploadPiece>>,
    ) -> Result<Response<wire::UploadResponse>, Status> {
        Err(Status::unimplemented("not for agents"))
    }
}

/// A coordinator with files, and an agent's cache.
struct Bench {
    dir: TempDir,
    coordinator: Coordinator,
    address: String,
    server: JoinHandle<()>,
}

impl Bench {
    async fn new() -> Self {
        let coordinator = Coordinator::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let service = ArtefactsServer::new(coordinator.clone());
        let server = tokio::spawn(async move {
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            dir: TempDir::new().unwrap(),
            coordinator,
            address,
            server,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        let state = self.coordinator.0.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the coordinator a file; returns it as a job names it.
    fn file(&self, name: &str, contents: &[u8]) -> NamedFile {
        let hash = ContentHash::of(contents);
        let key = hash.as_bytes().to_vec();
        self.state().files.insert(key, contents.to_vec());
        NamedFile {
            name: name.parse().unwrap(),
            hash,
            size_bytes: contents.len() as u64,
        }
    }

    fn model(&self, name: &str, contents: &[u8]) -> FileSet {
        let file = self.file(name, contents);
        FileSet::new(name.parse().unwrap(), true, vec![file]).unwrap()
    }

    fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    /// The offsets that were asked for since the last question.
    fn asked(&self) -> Vec<u64> {
        std::mem::take(&mut self.state().asked)
    }

    fn fetcher_of(&self, max_bytes: u64) -> Fetcher {
        self.patient(max_bytes, Duration::from_secs(20))
    }

    fn patient(&self, max_bytes: u64, patience: Duration) -> Fetcher {
        let folder = self.dir.path().join("identity");
        let dialer = Dialer::new(self.address.clone(), None, false, folder).unwrap();
        let cache = Cache::open(self.dir.path().join("files"), max_bytes).unwrap();
        Fetcher::new(cache, Arc::new(dialer), patience)
    }

    fn fetcher(&self) -> Fetcher {
        self.fetcher_of(1 << 20)
    }

    fn blobs(&self) -> Vec<String> {
        names(&self.dir.path().join("files/blobs"))
    }

    fn partial(&self, set: &FileSet) -> PathBuf {
        let hash = set.files()[0].hash.to_string();
        self.dir.path().join("files/partial").join(hash)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn job_of(model: &FileSet) -> Job {
    let mut job = latency_job(attempt(0, 1, 1).job, "script");
    job.model.source = ModelSource::Files(model.clone());
    job
}

async fn prepare(fetcher: &Fetcher, model: &FileSet) -> Result<(Job, Option<InUse>), Failure> {
    fetcher
        .prepare(attempt(0, 1, 1), job_of(model), |_, _| {})
        .await
}

fn path_of(job: &Job) -> &Path {
    match &job.model.source {
        ModelSource::Path(path) => path,
        other => panic!("{other:?}"),
    }
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * i + i / 251) as u8).collect()
}

#[tokio::test]
async fn a_job_gets_its_model_and_its_data() {
    let bench = Bench::new().await;
    let model = FileSet::new(
        "bitnet".parse().unwrap(),
        false,
        vec![
            bench.file("config.json", b"{}"),
            bench.file("model.safetensors", &bytes(1234)),
            bench.file("tokenizer.json", b""),
        ],
    );
    let model = model.unwrap();
    let data = FileSet::new(
        "arc_easy".parse().unwrap(),
        false,
        vec![bench.file("test.jsonl", b"{}\n")],
    );
    let adapter = FileSet::new(
        "bitnet".parse().unwrap(),
        false,
        vec![bench.file("adapter_config.json", b"{\"r\": 1}")],
    );
    let mut job = accuracy_job(attempt(0, 1, 1).job, "script");
    job.model.source = ModelSource::Files(model);
    job.model.adapter = Some(Adapter::Files(adapter.unwrap()));
    let SuiteSpec::Accuracy(spec) = &mut job.suite else {
        panic!();
    };
    spec.data = Some(data.unwrap());
    let fetcher = bench.fetcher();
    assert!(fetcher.lacks_files(&job));
    let told = RefCell::new(Vec::new());
    let progress = |done, total| told.borrow_mut().push((done, total));
    let prepared = fetcher
        .prepare(attempt(0, 1, 1), job.clone(), progress)
        .await;
    let (ready, in_use) = prepared.unwrap();
    let folder = path_of(&ready);
    assert_eq!(
        names(folder),
        ["config.json", "model.safetensors", "tokenizer.json"]
    );
    assert_eq!(
        fs::read(folder.join("model.safetensors")).unwrap(),
        bytes(1234)
    );
    let Some(Adapter::Path(beside)) = &ready.model.adapter else {
        panic!();
    };
    assert_eq!(names(beside), ["adapter_config.json"]);
    let SuiteSpec::Accuracy(spec) = &ready.suite else {
        panic!();
    };
    assert_eq!(
        fs::read(spec.data_dir.join("arc_easy/test.jsonl")).unwrap(),
        b"{}\n"
    );
    assert_eq!(spec.data, None);
    let told = told.into_inner();
    assert!(
        told.is_sorted() && told.last() == Some(&(1247, 1247)),
        "{told:?}"
    );
    // All of it is in the agent's own folder, and goes with the job; the files stay.
    assert!(folder.starts_with(bench.dir.path()) && spec.data_dir.starts_with(bench.dir.path()));
    let (folder, data_dir) = (folder.to_owned(), spec.data_dir.clone());
    drop(in_use);
    assert!(!folder.exists() && !data_dir.exists());
    assert_eq!(bench.blobs().len(), 5);
    // The second time nothing is asked for.
    bench.asked();
    assert!(!fetcher.lacks_files(&job));
    fetcher
        .prepare(attempt(0, 2, 2), job, |_, _| {})
        .await
        .unwrap();
    assert_eq!(bench.asked(), [0; 0]);
}

#[tokio::test]
async fn a_job_that_names_paths_is_left_as_it_is() {
    let bench = Bench::new().await;
    let job = latency_job(attempt(0, 1, 1).job, "script");
    let fetcher = bench.fetcher();
    assert!(!fetcher.lacks_files(&job));
    let prepared = fetcher
        .prepare(attempt(0, 1, 1), job.clone(), |_, _| {})
        .await;
    let (same, in_use) = prepared.unwrap();
    assert_eq!(same, job);
    assert!(in_use.is_none());
    assert_eq!(names(&bench.dir.path().join("files/jobs")), [""; 0]);
}

#[tokio::test]
async fn an_agent_may_refuse_paths() {
    let bench = Bench::new().await;
    let fetcher = bench.fetcher().refusing_paths(true);
    let model = bench.model("m.gguf", b"model");
    let sent = job_of(&model);
    let mut with_data = accuracy_job(attempt(0, 1, 1).job, "script");
    with_data.model.source = ModelSource::Files(model.clone());
    let mut with_adapter = job_of(&model);
    with_adapter.model.adapter = Some(Adapter::Path("lora".into()));
    let plain = latency_job(attempt(0, 1, 1).job, "script");
    for job in [plain, with_data, with_adapter] {
        let failure = fetcher
            .prepare(attempt(0, 1, 1), job, |_, _| {})
            .await
            .unwrap_err();
        assert_eq!(failure.class, FailureClass::Infrastructure);
        assert!(
            failure.message.contains("--only-sent"),
            "{}",
            failure.message
        );
    }
    fetcher
        .prepare(attempt(0, 1, 1), sent, |_, _| {})
        .await
        .unwrap();
}

#[tokio::test]
async fn a_cut_file_goes_on_where_it_ended() {
    let bench = Bench::new().await;
    let contents = bytes(950);
    let model = bench.model("m.gguf", &contents);
    bench.faults([
        Fault::Cut(3),
        Fault::Refuse(Code::Unavailable),
        Fault::Cut(0),
        Fault::Short(2),
        Fault::Cut(4),
    ]);
    let (job, _in_use) = prepare(&bench.fetcher(), &model).await.unwrap();
    assert_eq!(fs::read(path_of(&job)).unwrap(), contents);
    assert_eq!(bench.asked(), [0, 300, 300, 300, 500, 900]);
    assert!(!bench.partial(&model).exists());
}

#[tokio::test]
async fn a_file_goes_on_in_the_agents_next_life() {
    let bench = Bench::new().await;
    let contents = bytes(950);
    let model = bench.model("m.gguf", &contents);
    bench.faults([Fault::Cut(4), Fault::Refuse(Code::NotFound)]);
    let failure = prepare(&bench.fetcher(), &model).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Infrastructure);
    assert!(
        failure.message.contains("cannot fetch m.gguf"),
        "{}",
        failure.message
    );
    assert_eq!(fs::read(bench.partial(&model)).unwrap(), contents[..400]);
    bench.asked();
    let (job, _in_use) = prepare(&bench.fetcher(), &model).await.unwrap();
    assert_eq!(fs::read(path_of(&job)).unwrap(), contents);
    assert_eq!(bench.asked(), [400]);

    // What a power cut has spoilt is found out, and everything fetched anew.
    let other = bench.model("n.gguf", &bytes(951));
    fs::write(bench.partial(&other), [9; 500]).unwrap();
    let (job, _in_use) = prepare(&bench.fetcher(), &other).await.unwrap();
    assert_eq!(fs::read(path_of(&job)).unwrap(), bytes(951));
    assert_eq!(bench.asked(), [500, 0]);
    // And what is too long to be a part is none.
    let third = bench.model("o.gguf", &bytes(952));
    fs::write(bench.partial(&third), [9; 953]).unwrap();
    prepare(&bench.fetcher(), &third).await.unwrap();
    assert_eq!(bench.asked(), [0]);
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_are_not_the_jobs_fault() {
    let bench = Bench::new().await;
    let model = bench.model("m.gguf", &bytes(950));
    for (fault, problem) in [
        (Fault::Spoil, "other bytes than"),
        (Fault::Elsewhere, "begins at 1 and not at 0"),
        (Fault::Empty, "0 bytes"),
        (Fault::Long, "beyond the file's 950 bytes"),
        (Fault::Refuse(Code::NotFound), "not now"),
        (Fault::Refuse(Code::PermissionDenied), "not now"),
        (Fault::Refuse(Code::OutOfRange), "not now"),
        (Fault::Refuse(Code::DataLoss), "not now"),
    ] {
        bench.faults([fault]);
        let failure = prepare(&bench.fetcher(), &model).await.unwrap_err();
        assert_eq!(failure.class, FailureClass::Infrastructure, "{fault:?}");
        assert!(
            failure.message.contains(problem),
            "{fault:?}: {}",
            failure.message
        );
        assert_eq!(bench.blobs(), [""; 0], "{fault:?}");
    }
    // Nothing of that is in the way of the right bytes.
    let (job, _in_use) = prepare(&bench.fetcher(), &model).await.unwrap();
    assert_eq!(fs::read(path_of(&job)).unwrap(), bytes(950));
}

#[tokio::test]
async fn patience_ends_where_no_byte_comes() {
    let bench = Bench::new().await;
    let model = bench.model("m.gguf", &bytes(950));
    bench.faults([Fault::Cut(1)].into_iter().chain([Fault::Short(0); 64]));
    let fetcher = bench.patient(1 << 20, Duration::from_millis(500));
    let failure = prepare(&fetcher, &model).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Infrastructure);
    assert!(
        failure.message.contains("no byte came for"),
        "{}",
        failure.message
    );
    // What came stays for the next attempt.
    assert_eq!(fs::read(bench.partial(&model)).unwrap().len(), 100);
}

#[tokio::test]
async fn what_was_not_used_for_longest_makes_room() {
    let bench = Bench::new().await;
    let models: Vec<FileSet> = (0..4)
        .map(|n| bench.model(&format!("m{n}.gguf"), &bytes(300 + n)))
        .collect();
    let hash = |n: usize| models[n].files()[0].hash.to_string();
    let fetcher = bench.fetcher_of(1000);
    for model in &models[..3] {
        prepare(&fetcher, model).await.unwrap();
        // Times of use have to differ.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bench.blobs().len(), 3);
    // The oldest is used once more, so that the second goes.
    prepare(&fetcher, &models[0]).await.unwrap();
    prepare(&fetcher, &models[3]).await.unwrap();
    let mut left = vec![hash(0), hash(2), hash(3)];
    left.sort();
    assert_eq!(bench.blobs(), left);
    // What had come of a file that nobody goes on with goes, too.
    let part = bench.dir.path().join("files/partial").join("a".repeat(64));
    fs::write(&part, [0; 400]).unwrap();
    let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1);
    fs::File::options()
        .write(true)
        .open(&part)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    prepare(&fetcher, &models[1]).await.unwrap();
    assert!(!part.exists());
    assert_eq!(bench.blobs().len(), 3);
}

#[tokio::test]
async fn a_file_in_use_is_never_removed() {
    let bench = Bench::new().await;
    let fetcher = bench.fetcher_of(1000);
    let used = bench.model("used.gguf", &bytes(600));
    let (job, in_use) = prepare(&fetcher, &used).await.unwrap();
    let other = bench.model("other.gguf", &bytes(700));
    let mut second = job_of(&other);
    second.id.index = 1;
    let failure = fetcher
        .prepare(attempt(1, 1, 2), second.clone(), |_, _| {})
        .await
        .unwrap_err();
    assert_eq!(failure.class, FailureClass::Infrastructure);
    assert!(
        failure.message.contains("700 bytes") && failure.message.contains("600 are in use"),
        "{}",
        failure.message
    );
    assert_eq!(fs::read(path_of(&job)).unwrap(), bytes(600));
    drop(in_use);
    fetcher
        .prepare(attempt(1, 2, 3), second, |_, _| {})
        .await
        .unwrap();
    assert_eq!(bench.blobs(), [other.files()[0].hash.to_string()]);

    let large = bench.model("large.gguf", &bytes(1001));
    let failure = prepare(&fetcher, &large).await.unwrap_err();
    assert!(
        failure.message.contains("--cache-size"),
        "{}",
        failure.message
    );
    assert_eq!(bench.blobs().len(), 1, "nothing goes for what cannot fit");
}

#[tokio::test]
async fn one_contents_is_fetched_once_whatever_its_names() {
    let bench = Bench::new().await;
    let set = FileSet::new(
        "twins".parse().unwrap(),
        false,
        vec![bench.file("a", &bytes(300)), bench.file("b", &bytes(300))],
    );
    // There is room for one of them and no more.
    let (job, _in_use) = prepare(&bench.fetcher_of(300), &set.unwrap())
        .await
        .unwrap();
    assert_eq!(names(path_of(&job)), ["a", "b"]);
    assert_eq!(bench.asked(), [0]);
}
