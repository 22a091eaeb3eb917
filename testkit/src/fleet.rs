//! Coordinators and agents as processes that can be killed, and what people do with them.

use std::{
    error::Error,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tritmark_coordinator::{
    Config,
    store::{self, Location, Store},
};
use tritmark_proto::wire::{self, control_client::ControlClient};

/// Anything that goes wrong in a fleet.
pub type AnyError = Box<dyn Error + Send + Sync>;

/// Names how many milliseconds a job of a real agent's simulated worker takes.
pub const WORK_MS: &str = "TRITMARK_TESTKIT_WORK_MS";

/// Names the store the fault suite runs on: `postgres` for a private one, or a URL; SQLite files where it
/// is not set.
pub const STORE: &str = "TRITMARK_TEST_STORE";

/// Jobs of one model of a simulated plan.
const JOBS_A_MODEL: u32 = 10;

/// Returns the settings of a coordinator on that store.
pub fn coordinator_config(store: &str) -> Result<Config, AnyError> {
    Ok(Config::new(store.parse::<Location>()?))
}

/// Opens a store by its path or URL.
pub async fn open_store(store: &str) -> Result<Arc<dyn Store>, AnyError> {
    Ok(store::open(&store.parse()?).await?)
}

/// Makes the files by which an agent takes itself to be on a machine of that name.
pub fn machine_root(folder: &Path, machine: &str) -> io::Result<PathBuf> {
    let root = folder.join("root");
    fs::create_dir_all(root.join("etc"))?;
    fs::create_dir_all(root.join("proc"))?;
    fs::write(root.join("etc/machine-id"), format!("{machine}\n"))?;
    fs::write(root.join("proc/meminfo"), "MemTotal: 1048576 kB\n")?;
    Ok(root)
}

/// A plan of so many jobs: seven of ten measure latency, three accuracy.
///
/// # Panics
/// If that is no multiple of 10.
pub fn plan(name: &str, n_jobs: u32) -> String {
    assert!(n_jobs.is_multiple_of(JOBS_A_MODEL), "a model has ten jobs");
    let models: Vec<String> = (0..n_jobs / JOBS_A_MODEL)
        .map(|n| format!("[[models]]\nid = \"m{n}\"\npath = \"/models/m{n}\"\n"))
        .collect();
    let models = models.concat();
    format!(
        "name = \"{name}\"\n{models}\
         [suites.latency]\nn_prompt = [1]\nn_gen = [1, 2, 3, 4, 5, 6, 7]\nrepetitions = 4\n\
         [suites.accuracy]\ntasks = [\"arc_challenge\", \"arc_easy\", \"boolq\"]\n\
         data = \"/data\"\nlimit = 6\n"
    )
}

/// Submits a plan of so many jobs; returns the run's id.
pub async fn submit(url: &str, name: &str, n_jobs: u32) -> Result<String, AnyError> {
    let request = wire::SubmitPlanRequest {
        plan_toml: plan(name, n_jobs),
        plan_name: name.to_owned(),
        base_dir: "/".to_owned(),
        ..wire::SubmitPlanRequest::default()
    };
    let mut control = ControlClient::connect(url.to_owned()).await?;
    Ok(control.submit_plan(request).await?.into_inner().run_id)
}

/// Returns each run as it stands.
pub async fn runs(url: &str) -> Result<Vec<wire::RunSummary>, AnyError> {
    let mut control = ControlClient::connect(url.to_owned()).await?;
    let request = wire::ListRunsRequest::default();
    Ok(control.list_runs(request).await?.into_inner().runs)
}

/// Waits until every run has ended; a coordinator that is away may come back.
pub async fn wait_for_all(url: &str, limit: Duration) -> Result<(), AnyError> {
    let until = Instant::now() + limit;
    loop {
        let listed = runs(url).await;
        if let Ok(runs) = &listed
            && !runs.is_empty()
            && runs.iter().all(|run| run.ended_unix_ns.is_some())
        {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("runs did not end within {limit:?}: {listed:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A process that is killed when it is dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts a program; what it says goes to the end of a file.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let said = log.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(said)
            .stderr(log)
            .spawn()?;
        Ok(Self(child))
    }

    /// Kills it at once, as `kill -9` does.
    pub fn kill(mut self) {
        self.end();
    }

    /// Waits for it to end by itself; its exit code, if it has one.
    pub fn wait(&mut self, limit: Duration) -> io::Result<Option<i32>> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status.code());
            }
            if Instant::now() > until {
                return Err(io::Error::other("it does not end"));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Tells whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    fn end(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A folder with everything of one fleet, and the program it is made of.
#[derive(Debug)]
pub struct Fleet {
    folder: PathBuf,
    program: PathBuf,
    /// Path or URL of the store.
    pub store: String,
    /// Where its coordinator listens, over all its lives.
    pub address: SocketAddr,
}

impl Fleet {
    /// A fleet in an empty folder; `program` is this crate's.
    pub fn new(folder: &Path, program: &str, store: String) -> io::Result<Self> {
        fs::create_dir_all(folder.join("journals"))?;
        // The port is free again at once; nobody else on this machine asks for it by number.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        Ok(Self {
            folder: folder.to_owned(),
            program: PathBuf::from(program),
            store,
            address,
        })
    }

    /// Returns the coordinator's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the folder of the agents' journals.
    pub fn journals(&self) -> PathBuf {
        self.folder.join("journals")
    }

    /// Returns the end of a log, for a failed test.
    pub fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Starts the coordinator; it may take some time to listen.
    pub fn coordinator<S: AsRef<OsStr>>(
        &self,
        more: impl IntoIterator<Item = S>,
    ) -> io::Result<Process> {
        let mut command = Command::new(&self.program);
        command
            .arg("coordinator")
            .args(["--listen", &self.address.to_string()])
            .args(["--store", &self.store])
            .args(more);
        Process::start(&mut command, &self.folder.join("coordinator.log"))
    }

    /// Starts the agent of that name, on a machine of its own; `url` is the coordinator's or a proxy's.
    pub fn agent(&self, name: &str, url: &str, work: Duration) -> io::Result<Process> {
        let mut command = Command::new(&self.program);
        command.args(self.agent_args(name, url));
        command.env(WORK_MS, work.as_millis().to_string());
        Process::start(&mut command, &self.folder.join(format!("{name}.log")))
    }

    /// Starts the agent of that name with its state on a small file system of its own, where this may be
    /// mounted; else the process ends at once.
    pub fn agent_with_small_disk(
        &self,
        name: &str,
        url: &str,
        work: Duration,
    ) -> io::Result<Process> {
        let state = self.folder.join(name);
        fs::create_dir_all(&state)?;
        let mount = "mount -t tmpfs -o size=256k none \"$1\" && shift && exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                mount,
                "sh",
            ])
            .arg(&state)
            .arg(&self.program)
            .args(self.agent_args(name, url))
            .env(WORK_MS, work.as_millis().to_string());
        Process::start(&mut command, &self.folder.join(format!("{name}.log")))
    }

    /// Fills the small disk of an agent to the last byte; returns how many bytes that took.
    pub fn fill_disk(&self, agent: &Process, name: &str) -> io::Result<u64> {
        let mut ballast = File::create(self.ballast(agent, name))?;
        let mut n_bytes = 0;
        let block = [0; 512];
        while ballast.write_all(&block).is_ok() {
            n_bytes += block.len() as u64;
        }
        Ok(n_bytes)
    }

    /// Makes room again.
    pub fn free_disk(&self, agent: &Process, name: &str) -> io::Result<()> {
        fs::remove_file(self.ballast(agent, name))
    }

    /// A file on an agent's disk, as it sees it.
    fn ballast(&self, agent: &Process, name: &str) -> PathBuf {
        let state = self.folder.join(name).join("ballast");
        let inside = state.strip_prefix("/").unwrap_or(&state);
        PathBuf::from(format!("/proc/{}/root", agent.0.id())).join(inside)
    }

    fn agent_args(&self, name: &str, url: &str) -> Vec<String> {
        let state = self.folder.join(name);
        let journal = self.journals().join(format!("{name}.journal"));
        [
            "agent",
            "--coordinator",
            url,
            "--state",
            &state.to_string_lossy(),
            "--machine",
            name,
            "--journal",
            &journal.to_string_lossy(),
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

/// Returns how many agents are connected.
pub async fn agents(url: &str) -> Result<u32, AnyError> {
    let mut control = ControlClient::connect(url.to_owned()).await?;
    let request = wire::ListAgentsRequest::default();
    let agents = control.list_agents(request).await?.into_inner().agents;
    let connected = agents.iter().filter(|agent| agent.connected).count();
    Ok(u32::try_from(connected)?)
}

/// Returns the size of an SQLite store on disk; of a data base only its server knows.
pub fn store_bytes(store: &str) -> Option<u64> {
    if store.contains("://") {
        return None;
    }
    let wal = format!("{store}-wal");
    let size = |path: &str| fs::metadata(path).map_or(0, |file| file.len());
    Some(size(store) + size(&wal))
}
