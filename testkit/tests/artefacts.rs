//! A model on its way to a real agent over a line that is cut again and again.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tritmark_agent::{AgentConfig, WorkerCommand};
use tritmark_coordinator::{Config, Coordinator, artefacts::ArtefactsConfig, objects::Objects};
use tritmark_proto::{
    artefact::ContentHash,
    wire::{self, control_client::ControlClient},
};
use tritmark_testkit::{
    fleet,
    proxy::{End, Network, Proxy, Way},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tritmark-testkit");
const LIMIT: Duration = Duration::from_mins(3);

/// Size of the model, and how much of it may come a second while the line is slow.
const MODEL_BYTES: usize = 12 << 20;
const SLOW_BYTES_PER_S: u64 = 3 << 20;

/// Returns how large a file is; 0 where there is none.
fn len(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

async fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "waited in vain until {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_goes_on_after_each_cut_and_the_job_is_done() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut model = vec![0; MODEL_BYTES];
    for (n, word) in model.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&tritmark_testkit::random::hash(&[n as u64]).to_le_bytes());
    }
    let models = dir.path().join("models");
    fs::create_dir(&models).expect("a folder");
    fs::write(models.join("m.gguf"), &model).expect("a file");

    let mut config = Config::new(dir.path().join("store.sqlite"));
    config.artefacts = Some(ArtefactsConfig {
        objects: Objects::folder(&dir.path().join("objects")).expect("a folder"),
        staging: dir.path().join("staging"),
        readable: vec![models.clone()],
        keep: None,
    });
    let coordinator = Coordinator::open(config).await.expect("it opens");
    let stop = coordinator.stop_token();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let url = format!("http://{address}");
    let served = tokio::spawn(async move {
        coordinator.serve(listener).await.expect("it serves");
        coordinator.close().await;
    });

    let channel = Channel::from_shared(url.clone()).expect("a URL");
    let mut control = ControlClient::new(channel.connect().await.expect("it is there"));
    let submitted = control.submit_plan(wire::SubmitPlanRequest {
        plan_toml: "[[models]]\nid = \"m\"\npath = \"m.gguf\"\n\
                    [suites.latency]\nn_prompt = [4]\nn_gen = [4]\nprobe = false\n"
            .to_owned(),
        plan_name: "cut".to_owned(),
        base_dir: models.display().to_string(),
        ..wire::SubmitPlanRequest::default()
    });
    submitted.await.expect("the plan is taken");
    // From now on the only copies are among the objects and on the agent.
    fs::remove_dir_all(&models).expect("it goes");

    let proxy = Proxy::start(address, 1).await.expect("a proxy");
    let slow = Way {
        bytes_per_s: SLOW_BYTES_PER_S,
        ..Way::default()
    };
    proxy.set(Network {
        down: slow,
        ..Network::default()
    });
    let state = dir.path().join("agent");
    let root = fleet::machine_root(&state, "cut").expect("a folder");
    let mut config = AgentConfig::new(format!("http://{}", proxy.address()), &state)
        .expect("this program has a path");
    config.worker = WorkerCommand {
        program: PathBuf::from(PROGRAM),
        args: vec!["worker".into()],
    };
    config.sysfs_root = root;
    config.lock_path = state.join("machine.lock");
    let drain = CancellationToken::new();
    let agent = tokio::spawn(tritmark_agent::run(config, drain.clone()));

    let hash = ContentHash::of(&model).to_string();
    let partial = state.join("files/partial").join(&hash);
    let whole = MODEL_BYTES as u64;
    let mut had = 0;
    for n in 1..=3 {
        let enough = whole * n / 5;
        wait_until("more of the model has come", || len(&partial) >= enough).await;
        proxy.end(if n == 2 { End::Close } else { End::Reset });
        let has = len(&partial);
        assert!(
            has >= had && has < whole,
            "{has} of {whole} bytes after {had}"
        );
        had = has;
    }
    // What had come is kept while nobody can be reached.
    proxy.set(Network {
        refuses: true,
        ..Network::default()
    });
    sleep(Duration::from_millis(300)).await;
    assert!(len(&partial) >= had);
    proxy.set(Network::default());

    fleet::wait_for_all(&url, LIMIT)
        .await
        .expect("the run ends");
    let runs = fleet::runs(&url).await.expect("they are listed");
    assert_eq!((runs[0].n_succeeded, runs[0].n_jobs), (1, 1), "{runs:?}");
    let jobs = control.list_jobs(wire::ListJobsRequest {
        run_id: runs[0].run_id.clone(),
    });
    let jobs = jobs.await.expect("they are listed").into_inner().jobs;
    assert_eq!(jobs[0].attempt, 1, "no cut cost an attempt");
    let blob = fs::read(state.join("files/blobs").join(&hash)).expect("it is kept");
    assert!(blob == model);
    assert!(!partial.exists());
    drain.cancel();
    agent.await.expect("no panic").expect("it leaves");
    stop.cancel();
    served.await.expect("no panic");
}
