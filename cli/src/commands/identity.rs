//! Who may speak to a coordinator: `coordinator init`, `enroll`, `revoke`, `identities` and
//! `audit` at its side, `agent enroll` and `login` at the other.

use std::path::{Path, PathBuf};

use serde_json::json;
use tritmark_agent::identity::{self as own, Credentials};
use tritmark_coordinator::identity::{
    AuditEntry, FOLDER, IdentityError, NewToken, Office, Policy, StoredIdentity,
};
use tritmark_proto::identity::to_hex;

use crate::{
    args::{
        AgentEnroll, CoordinatorAudit, CoordinatorEnroll, CoordinatorIdentities, CoordinatorInit,
        CoordinatorRevoke, CoordinatorState, Login, Redeem,
    },
    commands::coordinator::store_at,
    exit::{Exit, Fault, OrExit as _, Outcome},
    out,
};

pub(crate) async fn init(args: CoordinatorInit) -> Outcome {
    let CoordinatorInit {
        state,
        names,
        ca_days,
        server_days,
        agent_days,
        client_days,
    } = args;
    let folder = state.state.join(FOLDER);
    let policy = Policy {
        names,
        ca_days,
        server_days,
        agent_days,
        client_days,
    };
    let store = store_at(&state.state, state.store.as_deref())?;
    let office = Office::create(&folder, &policy, store.shared())
        .await
        .map_err(|error| refused(error, "cannot make the authority"))?;
    out::line(&to_hex(&office.authority().fingerprint()))?;
    eprintln!(
        "the authority is in {}: whoever has ca.key can let anybody in",
        folder.display()
    );
    Ok(Exit::Pass)
}

async fn open(state: &CoordinatorState) -> Outcome<Office> {
    let folder = state.state.join(FOLDER);
    if !folder.exists() {
        return Err(Fault::usage(format!(
            "there is no authority in {}: `tritmark coordinator init` makes one",
            folder.display()
        )));
    }
    let store = store_at(&state.state, state.store.as_deref())?;
    Office::open(&folder, store.shared())
        .await
        .map_err(|error| refused(error, "cannot use the authority"))
}

pub(crate) async fn enroll(args: CoordinatorEnroll) -> Outcome {
    let CoordinatorEnroll {
        state,
        role,
        labels,
        name,
        expires,
        print,
    } = args;
    let office = open(&state).await?;
    let new = NewToken {
        role,
        name,
        labels: labels.into_iter().collect(),
        valid: expires,
    };
    let said = format!("by command: {new:?}");
    let (token, expires_unix_s) = office
        .create_token(new)
        .await
        .map_err(|error| refused(error, "cannot make a token"))?;
    audit(&office, "coordinator enroll", &said).await?;
    if print.json {
        out::json(&json!({ "token": token.to_string(), "expires_unix_s": expires_unix_s }))?;
    } else {
        out::line(&token.to_string())?;
    }
    Ok(Exit::Pass)
}

pub(crate) async fn revoke(args: CoordinatorRevoke) -> Outcome {
    let CoordinatorRevoke { who, reason, state } = args;
    let office = open(&state).await?;
    let serials = office
        .revoke(&who, &reason)
        .await
        .map_err(|error| refused(error, "nothing is revoked"))?;
    let said = format!("by command: {}: {reason}", serials.join(", "));
    audit(&office, "coordinator revoke", &said).await?;
    for serial in serials {
        out::line(&serial)?;
    }
    Ok(Exit::Pass)
}

/// Writes down what a command at the coordinator's side did.
async fn audit(office: &Office, what: &str, detail: &str) -> Outcome<()> {
    office
        .audit_command(what, detail)
        .await
        .or_exit(Exit::Internal, || "cannot write the audit log")
}

pub(crate) async fn identities(args: CoordinatorIdentities) -> Outcome {
    let office = open(&args.state).await?;
    let identities = office
        .store()
        .identities()
        .await
        .or_exit(Exit::Internal, || "cannot read the identities")?;
    if args.print.json {
        let list: Vec<_> = identities.iter().map(identity_json).collect();
        out::json(&json!(list))?;
        return Ok(Exit::Pass);
    }
    let rows = identities.iter().map(row).collect();
    out::table(
        &["name", "role", "labels", "serial", "valid until", "state"],
        rows,
    )?;
    Ok(Exit::Pass)
}

fn row(identity: &StoredIdentity) -> Vec<String> {
    let labels: Vec<_> = identity
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    vec![
        identity.name.clone(),
        identity.role.to_string(),
        labels.join(" "),
        identity.serial.clone(),
        date(identity.not_after_unix_s),
        state_of(identity).to_owned(),
    ]
}

fn state_of(identity: &StoredIdentity) -> &'static str {
    let now = jiff::Timestamp::now().as_second();
    if identity.revoked_unix_s.is_some() {
        "revoked"
    } else if identity.not_after_unix_s < now {
        "expired"
    } else {
        "valid"
    }
}

fn identity_json(identity: &StoredIdentity) -> serde_json::Value {
    json!({
        "name": identity.name,
        "role": identity.role.name(),
        "labels": identity.labels,
        "serial": identity.serial,
        "agent_id": identity.agent_id,
        "not_before_unix_s": identity.not_before_unix_s,
        "not_after_unix_s": identity.not_after_unix_s,
        "revoked_unix_s": identity.revoked_unix_s,
        "state": state_of(identity),
    })
}

pub(crate) async fn audit_log(args: CoordinatorAudit) -> Outcome {
    let office = open(&args.state).await?;
    let entries = office
        .store()
        .audit_log(args.last)
        .await
        .or_exit(Exit::Internal, || "cannot read the audit log")?;
    for (id, entry) in entries {
        let AuditEntry {
            at_unix_ns,
            event,
            peer,
            serial,
            address,
            what,
            detail,
        } = entry;
        if args.print.json {
            out::json_line(&json!({
                "id": id, "at_unix_ns": at_unix_ns, "event": event.name(), "peer": peer,
                "serial": serial, "address": address, "what": what, "detail": detail,
            }))?;
        } else {
            let at = out::moment(at_unix_ns);
            let address = address.unwrap_or_else(|| "-".to_owned());
            let event = event.name();
            out::line(&format!(
                "{id} {at} {event} {peer} {address} {what} {detail}"
            ))?;
        }
    }
    Ok(Exit::Pass)
}

pub(crate) async fn agent_enroll(args: AgentEnroll) -> Outcome {
    let AgentEnroll { redeem, state } = args;
    let Redeem {
        coordinator,
        token,
        name,
    } = redeem;
    let name = name.unwrap_or_else(host_name);
    let credentials = tritmark_agent::enroll_agent(&coordinator, &token, &name, &state)
        .await
        .or_exit(Exit::Usage, || "the agent is not enrolled")?;
    enrolled(&credentials, &state.join(own::FOLDER))
}

pub(crate) async fn login(args: Login) -> Outcome {
    let Login { redeem, identity } = args;
    let Redeem {
        coordinator,
        token,
        name,
    } = redeem;
    let name = name.unwrap_or_else(host_name);
    let folder = match identity {
        Some(folder) => folder,
        None => default_folder(&coordinator)
            .ok_or_else(|| Fault::usage("there is no home folder: give --identity DIR"))?,
    };
    let credentials = own::enroll(&coordinator, &token, &name, None, &folder)
        .await
        .or_exit(Exit::Usage, || "not logged in")?;
    enrolled(&credentials, &folder)
}

fn enrolled(credentials: &Credentials, folder: &Path) -> Outcome {
    let about = &credentials.about;
    out::line(&format!(
        "{} {} until {}",
        about.role,
        about.name,
        date(about.not_after_unix_s)
    ))?;
    eprintln!("the credentials are in {}", folder.display());
    Ok(Exit::Pass)
}

/// Returns the credentials for a coordinator: those in `named`, else those of `tritmark login`.
pub(crate) fn credentials(url: &str, named: Option<&Path>) -> Outcome<Option<Credentials>> {
    let folder = match named {
        Some(folder) => folder.to_owned(),
        None => match default_folder(url) {
            Some(folder) => folder,
            None => return Ok(None),
        },
    };
    let found =
        Credentials::load(&folder).or_exit(Exit::Usage, || "the credentials cannot be used")?;
    match (found, named) {
        (None, Some(folder)) => Err(Fault::usage(format!(
            "there are no credentials in {}",
            folder.display()
        ))),
        (found, _) => Ok(found),
    }
}

/// Returns where the credentials for a coordinator lie: one folder for each host and port.
fn default_folder(url: &str) -> Option<PathBuf> {
    let folder = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host: String = host
        .trim_end_matches('/')
        .chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' => c.to_ascii_lowercase(),
            _ => '_',
        })
        .collect();
    // A host of dots alone would lead elsewhere.
    Some(
        config
            .join("tritmark/identities")
            .join(format!("on_{host}")),
    )
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name
        .trim()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c))
        .take(63)
        .collect();
    if name.is_empty() {
        "unnamed".to_owned()
    } else {
        name
    }
}

fn date(unix_s: i64) -> String {
    out::moment(unix_s.saturating_mul(1_000_000_000))
}

fn refused(error: IdentityError, what: &'static str) -> Fault {
    let exit = match &error {
        IdentityError::Database { .. } | IdentityError::Migrate { .. } | IdentityError::Row(_) => {
            Exit::Internal
        }
        _ => Exit::Usage,
    };
    Fault {
        exit,
        error: anyhow::Error::new(error).context(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_coordinator_has_its_own_folder_of_credentials() {
        let name = |url| {
            let folder = default_folder(url)?;
            Some(folder.file_name()?.to_str()?.to_owned())
        };
        if std::env::var_os("HOME").is_none() {
            return;
        }
        assert_eq!(
            name("https://Bench.example:7701/").as_deref(),
            Some("on_bench.example_7701")
        );
        assert_eq!(name("https://[::1]:7701").as_deref(), Some("on____1__7701"));
        assert_eq!(name("https://../..").as_deref(), Some("on_.._.."));
    }
}
