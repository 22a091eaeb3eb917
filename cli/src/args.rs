//! What can be typed, and nothing about what it does.
//!
//! Every flag has an environment mirror where a script would set it: `TRITMARK_` and its name.

mod comparison;
mod engine;
mod fetch;
mod identity;
mod model;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, builder::FalseyValueParser};
use tritmark_agent::Size;

pub(crate) use comparison::{
    Compare, ComparisonFormat, ExportRun, ForeignFormat, Import, ImportFiles, ImportRun,
};
pub(crate) use engine::{Agree, Bench, BenchFormat, Generate, Loading};
pub(crate) use fetch::{Data, DataCommand, DataFetch, ModelFetch};
pub(crate) use identity::{
    AgentEnroll, CoordinatorAudit, CoordinatorEnroll, CoordinatorIdentities, CoordinatorInit,
    CoordinatorRevoke, CoordinatorState, Login, Redeem, VerifyRun,
};
pub(crate) use model::{Convert, Export, I2sLayout, Model, ModelCommand, Program, Verify, Written};

/// The coordinator that clients and agents look for when none is named.
pub(crate) const DEFAULT_COORDINATOR: &str = "http://127.0.0.1:7701";

/// Measures ternary language models: speed, memory, energy and accuracy, beside their
/// full-precision baselines.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 a check failed, 2 usage or a refused plan, \
    4 nothing to show, 5 finished with jobs missing, 70 internal, 75 try again."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Log filter for stderr, e.g. `debug` or `tritmark_agent=trace`.
    #[arg(long, global = true, env = "TRITMARK_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure a plan on this machine and write its report.
    Run(Run),
    /// Serve plans to agents.
    Coordinator(Coordinator),
    /// Measure on this machine for a coordinator.
    Agent(Agent),
    /// Get credentials for a coordinator with a token, as a submitter, viewer or administrator.
    Login(Login),
    /// Hand a plan to a coordinator.
    Submit(Submit),
    /// Follow a run until it has ended.
    Watch(Watch),
    /// List runs, agents, jobs, or what this build knows.
    Ls(Ls),
    /// Cancel a run; what is measured stays.
    Cancel(Cancel),
    /// Let a run's queued jobs wait; those that agents have in hand are finished.
    Pause(Cancel),
    /// Let a paused run go on.
    Resume(Cancel),
    /// Let an agent leave, or take it out of quarantine.
    Agents(Agents),
    /// Write the report of a run or of a bundle folder.
    Report(Report),
    /// Check that a run's results are what its agents signed.
    Verify(VerifyRun),
    /// Set one model's answers against another's, item by item, with a verdict.
    Compare(Compare),
    /// Write a run's items as lm-evaluation-harness or EvalPlus would, or all of it as one file.
    Export(ExportRun),
    /// Make a bundle of one file or of another program's results, or a definition of its task.
    Import(ImportRun),
    /// Say what this machine can measure, and how to make it measure more.
    Doctor(Doctor),
    /// Look into model files, or make one.
    Model(Model),
    /// Bring the data of accuracy tasks here.
    Data(Data),
    /// Continue a text.
    Generate(Generate),
    /// Time a model file directly, in llama-bench's words.
    Bench(Bench),
    /// Prove that every lossless kernel computes what the scalar reference does, bit for bit.
    Agree(Agree),
    /// Print a plan to start from.
    Plan(Plan),
    /// Print a completion script.
    Completions(Completions),
    /// One job in a fresh process; started by an agent.
    #[command(hide = true)]
    Worker,
    /// What the machine can do; started by an agent.
    #[command(hide = true)]
    Calibrate {
        /// Bytes of memory the machine has.
        memory_bytes: u64,
    },
}

/// `tritmark run`.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The plan file.
    #[arg(value_name = "PLAN")]
    pub(crate) plan: PathBuf,
    /// Go on with the run that was interrupted; what it stored is not measured again.
    #[arg(long, env = "TRITMARK_RESUME", value_parser = FalseyValueParser::new(), conflicts_with = "fresh")]
    pub(crate) resume: bool,
    /// Leave an interrupted run as it is and begin a new one.
    #[arg(long, env = "TRITMARK_FRESH", value_parser = FalseyValueParser::new())]
    pub(crate) fresh: bool,
    /// Where to write [default: out/<plan's name>].
    #[arg(long, env = "TRITMARK_OUT", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Evaluate every item, even where the plan has `cache = true`.
    #[arg(long, env = "TRITMARK_NO_CACHE", value_parser = FalseyValueParser::new())]
    pub(crate) no_cache: bool,
    /// Print the jobs and what is known of how long they take, and measure nothing.
    #[arg(long = "dry-run")]
    pub(crate) is_dry: bool,
    /// Print the run's summary as JSON instead of a table.
    #[arg(long, env = "TRITMARK_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
}

/// `tritmark coordinator`.
#[derive(Debug, Args)]
pub(crate) struct Coordinator {
    /// What the coordinator shall do.
    #[command(subcommand)]
    pub(crate) command: CoordinatorCommand,
}

/// `tritmark coordinator …`.
#[derive(Debug, Subcommand)]
pub(crate) enum CoordinatorCommand {
    /// Serve until interrupted.
    Up {
        /// Address to listen on; port 0 takes a free one.
        #[arg(
            long,
            env = "TRITMARK_LISTEN",
            default_value = "127.0.0.1:7701",
            value_name = "ADDR"
        )]
        listen: SocketAddr,
        /// Folder of the store.
        #[arg(
            long,
            env = "TRITMARK_STATE",
            default_value = "tritmark-coordinator",
            value_name = "DIR"
        )]
        state: PathBuf,
        /// The store, instead of one in that folder: `postgres://USER@HOST/DATABASE`, which several
        /// coordinators may share, or the path of an SQLite file.
        #[arg(
            long,
            env = "TRITMARK_STORE",
            hide_env_values = true,
            value_name = "URL"
        )]
        store: Option<String>,
        /// Serve in plain text and ask nobody for a certificate, on any address.
        #[arg(long, env = "TRITMARK_INSECURE", value_parser = FalseyValueParser::new())]
        insecure: bool,
        /// The agents see this machine's files: refuse a plan that names a missing one.
        #[arg(long, env = "TRITMARK_LOCAL_FILES", value_parser = FalseyValueParser::new())]
        local_files: bool,
        /// Where models, data and bundles are kept [default: `objects` in the state folder]:
        /// `file:///folder`, `s3://bucket/prefix`, `gs://…` or `az://…`, set up by the variables those
        /// clouds' own tools read.
        #[arg(long, env = "TRITMARK_OBJECTS", value_name = "URL")]
        objects: Option<String>,
        /// Folder from which models and data that a plan names are handed to agents; may be given more
        /// than once.
        #[arg(
            long = "files-from",
            env = "TRITMARK_FILES_FROM",
            value_delimiter = ',',
            value_name = "DIR"
        )]
        files_from: Vec<PathBuf>,
        /// Days after which a model or data is taken away that no run has named since; who needs it again
        /// sends it again. 0 keeps them for ever. Bundles are always kept.
        #[arg(
            long,
            env = "TRITMARK_KEEP_FILES_DAYS",
            default_value_t = 30,
            value_name = "DAYS"
        )]
        keep_files: u32,
        /// Address to serve /metrics (OpenMetrics), /livez and /readyz on, over HTTP.
        #[arg(long, env = "TRITMARK_METRICS", value_name = "ADDR")]
        metrics: Option<SocketAddr>,
        /// Hours after which machines are calibrated again, besides when they join and after each of
        /// their starts; 0 calibrates none and quarantines nobody.
        #[arg(
            long,
            env = "TRITMARK_CALIBRATE_HOURS",
            default_value_t = 24,
            value_name = "HOURS"
        )]
        calibrate_hours: u32,
        /// Collector to send every job's way to as a trace: OTLP over gRPC.
        #[arg(
            long,
            env = "OTEL_EXPORTER_OTLP_ENDPOINT",
            value_name = "http://HOST:PORT"
        )]
        otlp: Option<String>,
    },
    /// Make a certificate authority, from when on everybody needs a certificate.
    Init(CoordinatorInit),
    /// Print a token with which an agent or a person gets a certificate, once.
    Enroll(CoordinatorEnroll),
    /// Lock somebody out, at once.
    Revoke(CoordinatorRevoke),
    /// List the certificates that were given.
    Identities(CoordinatorIdentities),
    /// Print what was asked of the coordinator and what it refused.
    Audit(CoordinatorAudit),
}

/// `tritmark agent`.
#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// What the agent shall do.
    #[command(subcommand)]
    pub(crate) command: AgentCommand,
}

/// `tritmark agent …`.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Take jobs until interrupted.
    Up(AgentUp),
    /// Get a certificate with a token; the key is made here and stays here.
    Enroll(AgentEnroll),
    /// Tell the agent of a state folder to finish its job and leave, and wait until it has.
    Drain(AgentDrain),
}

/// `tritmark agent drain`.
#[derive(Debug, Args)]
pub(crate) struct AgentDrain {
    /// The agent's state folder.
    #[arg(
        long,
        env = "TRITMARK_STATE",
        default_value = "tritmark-agent",
        value_name = "DIR"
    )]
    pub(crate) state: PathBuf,
    /// Do not wait.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// `tritmark agents`.
#[derive(Debug, Args)]
pub(crate) struct Agents {
    /// What shall become of them.
    #[command(subcommand)]
    pub(crate) command: AgentsCommand,
}

/// `tritmark agents …`.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentsCommand {
    /// Let an agent finish its job and leave.
    Drain(AgentsOne),
    /// Take an agent out of quarantine: its machine is as it shall be.
    Release(AgentsOne),
}

/// One agent of a coordinator.
#[derive(Debug, Args)]
pub(crate) struct AgentsOne {
    /// The agent's id, or its machine's host name if no other agent has it.
    #[arg(value_name = "NAME")]
    pub(crate) agent: String,
    /// How to print.
    #[command(flatten)]
    pub(crate) print: Print,
    /// Whom to tell.
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `tritmark agent up`.
#[derive(Debug, Args)]
pub(crate) struct AgentUp {
    /// The coordinator, e.g. `https://bench.example:7701`.
    #[arg(long, env = "TRITMARK_COORDINATOR", value_name = "URL")]
    pub(crate) coordinator: String,
    /// Folder for what is measured and not yet handed over, and for made models.
    #[arg(
        long,
        env = "TRITMARK_STATE",
        default_value = "tritmark-agent",
        value_name = "DIR"
    )]
    pub(crate) state: PathBuf,
    /// A label for selectors; may be given more than once.
    #[arg(
        long = "label",
        env = "TRITMARK_LABELS",
        value_delimiter = ',',
        value_parser = label,
        value_name = "KEY=VALUE"
    )]
    pub(crate) labels: Vec<(String, String)>,
    /// Command that starts the processes of jobs, e.g. `numactl --membind=0`.
    #[arg(long, env = "TRITMARK_LAUNCHER", value_name = "COMMAND")]
    pub(crate) launcher: Option<String>,
    /// MiB of items that are kept between runs, for plans with `cache = true`; 0 keeps none.
    #[arg(
        long,
        env = "TRITMARK_ITEM_CACHE_MIB",
        default_value_t = 1024,
        value_name = "MIB"
    )]
    pub(crate) item_cache_mib: u32,
    /// Do not measure for a few seconds what the machine can do when the coordinator asks.
    #[arg(long, env = "TRITMARK_NO_CALIBRATION", value_parser = FalseyValueParser::new())]
    pub(crate) no_calibration: bool,
    /// Room for models and data that the coordinator sends; what was not used for longest goes first.
    #[arg(
        long,
        env = "TRITMARK_CACHE_SIZE",
        default_value = "200GiB",
        value_name = "SIZE"
    )]
    pub(crate) cache_size: Size,
    /// Refuse jobs that name paths of this machine: open only what the coordinator sent.
    #[arg(long, env = "TRITMARK_ONLY_SENT", value_parser = FalseyValueParser::new())]
    pub(crate) only_sent: bool,
    /// Whom to trust.
    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// Which coordinators may be spoken to.
#[derive(Debug, Default, Args)]
pub(crate) struct Trust {
    /// Certificates to trust instead of the authority's or the system's, PEM.
    #[arg(long, env = "TRITMARK_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Allow plain text to another machine.
    #[arg(long, env = "TRITMARK_INSECURE", value_parser = FalseyValueParser::new())]
    pub(crate) insecure: bool,
}

/// Where the coordinator is.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The coordinator.
    #[arg(
        long,
        env = "TRITMARK_COORDINATOR",
        default_value = DEFAULT_COORDINATOR,
        value_name = "URL"
    )]
    pub(crate) coordinator: String,
    /// Folder of the credentials [default: where `tritmark login` keeps them].
    #[arg(long, env = "TRITMARK_IDENTITY", value_name = "DIR")]
    pub(crate) identity: Option<PathBuf>,
    /// Whom to trust.
    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// How a command prints what it found.
#[derive(Debug, Args)]
pub(crate) struct Print {
    /// Print JSON.
    #[arg(long, env = "TRITMARK_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
}

/// `tritmark submit`.
#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// The plan file.
    #[arg(value_name = "PLAN")]
    pub(crate) plan: PathBuf,
    /// Send the models and data that the plan names, as far as the coordinator lacks them; then agents
    /// need none of its paths.
    #[arg(long, env = "TRITMARK_UPLOAD", value_parser = FalseyValueParser::new())]
    pub(crate) upload: bool,
    /// Stay and follow the run.
    #[arg(long)]
    pub(crate) watch: bool,
    /// Higher goes first, from -1000 to 1000, instead of what the plan says.
    #[arg(
        long,
        env = "TRITMARK_PRIORITY",
        allow_negative_numbers = true,
        value_name = "N"
    )]
    pub(crate) priority: Option<i32>,
    /// When what is queued still is given up: after 90s, 45m, 12h or 3d, or at an RFC 3339 time,
    /// instead of what the plan says.
    #[arg(long, env = "TRITMARK_EXPIRES", value_name = "WHEN")]
    pub(crate) expires: Option<String>,
    /// Print the jobs, where each would go and what is known of how long it takes, and submit nothing.
    #[arg(long, conflicts_with = "watch")]
    pub(crate) dry_run: bool,
    /// How to print.
    #[command(flatten)]
    pub(crate) print: Print,
    /// Where to.
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `tritmark watch`.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The run's id.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Print every event as a line of JSON.
    #[arg(long, env = "TRITMARK_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
    /// Where it runs.
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `tritmark ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// What to list.
    #[command(subcommand)]
    pub(crate) what: LsWhat,
}

/// `tritmark ls …`.
#[derive(Debug, Subcommand)]
pub(crate) enum LsWhat {
    /// Runs of a coordinator.
    Runs(LsRemote),
    /// Agents of a coordinator.
    Agents(LsRemote),
    /// Jobs of a run.
    Jobs(LsJobs),
    /// Suites and accuracy tasks of this build.
    Suites(Print),
    /// Kernels this CPU can run, the best of each instruction set's first.
    Kernels(Print),
    /// Published shapes that `model synth` can make.
    Shapes(Print),
}

/// A list that a coordinator gives.
#[derive(Debug, Args)]
pub(crate) struct LsRemote {
    /// How to print.
    #[command(flatten)]
    pub(crate) print: Print,
    /// Whom to ask.
    #[command(flatten)]
    pub(crate) target: Target,
}

/// The jobs of a run.
#[derive(Debug, Args)]
pub(crate) struct LsJobs {
    /// The run's id.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// As for the other lists.
    #[command(flatten)]
    pub(crate) list: LsRemote,
}

/// `tritmark cancel`, `pause` and `resume`.
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The run's id.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Whom to tell.
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `tritmark report`.
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// A run's id, a bundle folder, or the output folder of `tritmark run`.
    #[arg(value_name = "RUN|DIR")]
    pub(crate) source: String,
    /// Where to write [default: out/<run's name>-<run's id>, or the folder the bundle lies in].
    #[arg(long, env = "TRITMARK_OUT", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Where the run is, if it is not a folder.
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `tritmark doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// How to print.
    #[command(flatten)]
    pub(crate) print: Print,
}

/// `tritmark plan`.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Print the commented example, which is the reference of every key.
    #[arg(long, required_unless_present = "check", conflicts_with = "check")]
    pub(crate) example: bool,
    /// Check a plan and list its jobs without running it.
    #[arg(long, value_name = "PLAN")]
    pub(crate) check: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, env = "TRITMARK_JSON", value_parser = FalseyValueParser::new(), requires = "check")]
    pub(crate) json: bool,
}

/// `tritmark completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_label_needs_a_key_and_an_equals_sign() {
        assert_eq!(label("rack=7"), Ok(("rack".to_owned(), "7".to_owned())));
        assert_eq!(label("note=a=b"), Ok(("note".to_owned(), "a=b".to_owned())));
        assert!(label("rack").is_err());
        assert!(label("=7").is_err());
    }

    #[test]
    fn every_public_command_and_flag_says_what_it_does() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
                assert!(sub.get_about().is_some(), "{}", sub.get_name());
                check(sub);
            }
        }
        check(&Cli::command());
    }
}
