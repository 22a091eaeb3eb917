//! Arguments of the commands about who may speak to a coordinator.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use tritmark_proto::identity::{Role, Token};

use super::{Print, Target, label};

/// Where a coordinator keeps its state.
#[derive(Debug, Args)]
pub(crate) struct CoordinatorState {
    /// Folder of the coordinator's state.
    #[arg(
        long,
        visible_alias = "dir",
        env = "TRITMARK_STATE",
        default_value = "tritmark-coordinator",
        value_name = "DIR"
    )]
    pub(crate) state: PathBuf,
    /// The coordinator's store, where it is a PostgreSQL data base: then the identities are in it too,
    /// and the folder has the authority alone.
    #[arg(
        long,
        env = "TRITMARK_STORE",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) store: Option<String>,
}

/// `tritmark coordinator init`.
#[derive(Debug, Args)]
pub(crate) struct CoordinatorInit {
    /// Where to.
    #[command(flatten)]
    pub(crate) state: CoordinatorState,
    /// A host name or an address under which others reach the coordinator; may be given more than
    /// once.
    #[arg(long = "name", value_name = "HOST", required = true)]
    pub(crate) names: Vec<String>,
    /// Days that the authority is valid.
    #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = days())]
    pub(crate) ca_days: u32,
    /// Days that the server's certificate is valid; it renews itself.
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = days())]
    pub(crate) server_days: u32,
    /// Days that an agent's certificate is valid; agents renew theirs.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = days())]
    pub(crate) agent_days: u32,
    /// Days that any other certificate is valid.
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = days())]
    pub(crate) client_days: u32,
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=36_500)
}

/// `tritmark coordinator enroll`.
#[derive(Debug, Args)]
pub(crate) struct CoordinatorEnroll {
    /// Where the authority is.
    #[command(flatten)]
    pub(crate) state: CoordinatorState,
    /// What the one who enrolls may do: agent, submitter, viewer or admin.
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Role,
    /// A label that selectors may rely on, for agents; may be given more than once.
    #[arg(long = "label", value_parser = label, value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    /// The name; the one who enrolls chooses otherwise.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// How long the token can be redeemed, e.g. 90s, 15m, 1h, 2d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    pub(crate) expires: Duration,
    /// How to print.
    #[command(flatten)]
    pub(crate) print: Print,
}

/// `tritmark coordinator revoke`.
#[derive(Debug, Args)]
pub(crate) struct CoordinatorRevoke {
    /// A name, for all its certificates, or a certificate's serial.
    #[arg(value_name = "NAME|SERIAL")]
    pub(crate) who: String,
    /// Why, for the audit log.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Where the authority is.
    #[command(flatten)]
    pub(crate) state: CoordinatorState,
}

/// `tritmark coordinator identities`.
#[derive(Debug, Args)]
pub(crate) struct CoordinatorIdentities {
    /// Where the authority is.
    #[command(flatten)]
    pub(crate) state: CoordinatorState,
    /// How to print.
    #[command(flatten)]
    pub(crate) print: Print,
}

/// `tritmark coordinator audit`.
#[derive(Debug, Args)]
pub(crate) struct CoordinatorAudit {
    /// Entries to print, the newest ones.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) last: u32,
    /// Where the authority is.
    #[command(flatten)]
    pub(crate) state: CoordinatorState,
    /// How to print.
    #[command(flatten)]
    pub(crate) print: Print,
}

/// What redeeming a token takes.
#[derive(Debug, Args)]
pub(crate) struct Redeem {
    /// The coordinator, e.g. `https://bench.example:7701`.
    #[arg(long, env = "TRITMARK_COORDINATOR", value_name = "URL")]
    pub(crate) coordinator: String,
    /// The token that `tritmark coordinator enroll` printed; better in the environment, where
    /// other users do not see it.
    #[arg(
        long,
        env = "TRITMARK_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(crate) token: Token,
    /// The name to take, where the token gives none [default: the machine's].
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// `tritmark agent enroll`.
#[derive(Debug, Args)]
pub(crate) struct AgentEnroll {
    /// What with.
    #[command(flatten)]
    pub(crate) redeem: Redeem,
    /// The agent's state folder, the one that `agent up` is given.
    #[arg(
        long,
        env = "TRITMARK_STATE",
        default_value = "tritmark-agent",
        value_name = "DIR"
    )]
    pub(crate) state: PathBuf,
}

/// `tritmark login`.
#[derive(Debug, Args)]
pub(crate) struct Login {
    /// What with.
    #[command(flatten)]
    pub(crate) redeem: Redeem,
    /// Where to keep the credentials [default: a folder of the coordinator's in the user's
    /// configuration].
    #[arg(long, env = "TRITMARK_IDENTITY", value_name = "DIR")]
    pub(crate) identity: Option<PathBuf>,
}

/// `tritmark verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyRun {
    /// A run's id, a bundle folder, or the output folder of `tritmark run`.
    #[arg(value_name = "RUN|DIR")]
    pub(crate) source: String,
    /// The authority that must have enrolled the agents, PEM [default: any].
    #[arg(long, value_name = "FILE")]
    pub(crate) authority: Option<PathBuf>,
    /// How to print.
    #[command(flatten)]
    pub(crate) print: Print,
    /// Where the run is, if it is not a folder.
    #[command(flatten)]
    pub(crate) target: Target,
}

/// Reads a number with `s`, `m`, `h` or `d`.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and s, m, h or d, e.g. 1h".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    text[..text.len() - 1]
        .parse()
        .ok()
        .and_then(|n: u64| n.checked_mul(seconds))
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(time("1h"), Ok(Duration::from_hours(1)));
        assert_eq!(time("2d"), Ok(Duration::from_hours(48)));
        for wrong in ["", "h", "1", "-1h", "1y", "18446744073709551615d", "1é"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
