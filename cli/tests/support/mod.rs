//! What the tests of the binary share: how it is started and how its results are read.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use tritmark_proto::record::Answer;
use tritmark_reports::{bundle::Bundle, frame::ItemRow};

/// A folder of its own for one test, with plans, outputs and a machine lock.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a folder can be made"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a plan and returns its path.
    pub(crate) fn plan(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file can be written");
        path
    }

    /// Returns the binary with an environment of this lab alone.
    pub(crate) fn tritmark<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tritmark"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TRITMARK_") {
                command.env_remove(name);
            }
        }
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("TRITMARK_LOCK", self.path("machine.lock"))
            // What a loaded machine's calibration finds is no business of these tests.
            .env("TRITMARK_NO_CALIBRATION", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Finished {
        let output = self
            .tritmark(args)
            .output()
            .expect("the binary can be started");
        Finished::of(&output)
    }

    /// Starts the binary and lets it run; what it says goes to `<log>` in the lab.
    pub(crate) fn start<S: AsRef<std::ffi::OsStr>>(
        &self,
        log: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Running {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path(log))
            .expect("a file can be written");
        let child = self
            .tritmark(args)
            .stdout(log.try_clone().expect("a handle can be copied"))
            .stderr(log)
            .spawn()
            .expect("the binary can be started");
        Running(child)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts an exit code, showing what was said.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }
}

/// A process that runs; killed when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Ends the process as a power cut would.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it can be waited for");
    }

    /// Waits for the end and returns the exit code.
    pub(crate) fn wait(mut self, limit: Duration) -> Option<i32> {
        wait_until(limit, "the process ends", || {
            self.0.try_wait().expect("it can be asked").is_some()
        });
        self.0.wait().expect("it can be waited for").code()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("it can be asked").is_some()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Polls until `is_so`; panics after `limit`.
#[track_caller]
pub(crate) fn wait_until(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < limit, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts a coordinator and returns it with its address.
pub(crate) fn coordinator_up(lab: &Lab, state: &Path, listen: &str) -> (Running, String) {
    coordinator_up_with(lab, state, listen, &[])
}

/// As [`coordinator_up`], with further arguments.
pub(crate) fn coordinator_up_with(
    lab: &Lab,
    state: &Path,
    listen: &str,
    more: &[&str],
) -> (Running, String) {
    let n_files = std::fs::read_dir(lab.path("."))
        .expect("it is there")
        .count();
    let log = format!("coordinator-{n_files}.log");
    let mut args: Vec<&std::ffi::OsStr> = vec![
        "coordinator".as_ref(),
        "up".as_ref(),
        "--listen".as_ref(),
        listen.as_ref(),
        "--state".as_ref(),
        state.as_os_str(),
    ];
    args.extend(more.iter().map(std::ffi::OsStr::new));
    let running = lab.start(&log, args);
    let mut url = String::new();
    wait_until(Duration::from_secs(30), "the coordinator serves", || {
        let said = lab.read(&log);
        let line = said.lines().find(|line| line.starts_with("http://"));
        url.push_str(line.unwrap_or_default());
        !url.is_empty()
    });
    (running, url)
}

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the repository is there")
}

/// The folder of published data, or `None` and a loud line.
pub(crate) fn published_data(test: &str) -> Option<PathBuf> {
    match std::env::var_os("TRITMARK_DATA") {
        Some(path) if !path.is_empty() => Some(PathBuf::from(path)),
        _ => {
            eprintln!("NOT RUN: {test} needs TRITMARK_DATA");
            None
        }
    }
}

/// The bundled models of a plan: full precision and ternary.
pub(crate) fn bundled_models() -> String {
    let models = repository().join("models");
    format!(
        r#"
[[models]]
id = "llama-tiny"
path = "{0}/llama-tiny"

[[models]]
id = "bitnet-tiny"
path = "{0}/bitnet-tiny.i2_s.gguf"
baseline = "llama-tiny"
"#,
        models.display()
    )
}

/// An accuracy suite over the bundled items.
pub(crate) fn bundled_accuracy(tasks: &[&str]) -> String {
    format!(
        "[suites.accuracy]\ntasks = {tasks:?}\ndata = \"{}\"\n",
        repository().join("data/mini").display()
    )
}

/// Reads a bundle.
pub(crate) fn bundle(dir: &Path) -> Bundle {
    Bundle::read(dir).unwrap_or_else(|error| panic!("{}: {error:?}", dir.display()))
}

/// Everything of a run that must be the same however often it was interrupted: which values there
/// are, and for items the values themselves, to the bit.
pub(crate) type Results = BTreeMap<String, Vec<u64>>;

/// Returns a run's results; panics where one is there twice.
#[track_caller]
pub(crate) fn results(bundle: &Bundle) -> Results {
    let mut results = Results::new();
    let mut add = |key: String, value: Vec<u64>| {
        let before = results.insert(key.clone(), value);
        assert!(before.is_none(), "{key} is there twice");
    };
    for row in &bundle.measurements {
        let key = format!(
            "job {} {} {} {:?} {:?} {:?} {}",
            row.job_index,
            row.suite,
            row.metric,
            row.phase,
            row.workload,
            row.repetition,
            match &row.outcome {
                tritmark_proto::record::Outcome::Reading(reading) => reading.source.clone(),
                tritmark_proto::record::Outcome::Skipped { reason } => reason.clone(),
            }
        );
        add(key, Vec::new());
    }
    for row in &bundle.tokens {
        let key = format!(
            "job {} token {:?} {} {}",
            row.job_index, row.workload, row.repetition, row.token_index
        );
        add(key, vec![u64::from(row.token_id)]);
    }
    for ItemRow {
        job_index, item, ..
    } in &bundle.items
    {
        let key = format!("job {job_index} item {} {}", item.task, item.index);
        let mut bits: Vec<u64> = item
            .choices()
            .iter()
            .map(|choice| choice.loglikelihood.to_bits())
            .collect();
        match &item.answer {
            Answer::Choice(_) => {}
            Answer::Generated(answer) => bits.extend(answer.text.bytes().map(u64::from)),
            Answer::Rolling(answer) => bits.push(answer.loglikelihood.to_bits()),
        }
        add(key, bits);
    }
    results
}

/// Writes an adapter of one linear, every value of its matrices the same.
pub(crate) fn write_adapter(folder: &Path, hidden_size: usize, value: f32) {
    const RANK: usize = 2;
    let module = "base_model.model.model.layers.0.self_attn.q_proj";
    let bytes = RANK * hidden_size * 4;
    let header = serde_json::json!({
        format!("{module}.lora_A.weight"):
            { "dtype": "F32", "shape": [RANK, hidden_size], "data_offsets": [0, bytes] },
        format!("{module}.lora_B.weight"):
            { "dtype": "F32", "shape": [hidden_size, RANK], "data_offsets": [bytes, 2 * bytes] },
    })
    .to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.into_bytes());
    for _ in 0..2 * RANK * hidden_size {
        file.extend(value.to_le_bytes());
    }
    let config = serde_json::json!({
        "peft_type": "LORA", "r": RANK, "lora_alpha": 4, "target_modules": ["q_proj"],
    });
    std::fs::create_dir_all(folder).expect("a folder to write to");
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).expect("room");
    std::fs::write(folder.join("adapter_model.safetensors"), file).expect("room");
}
