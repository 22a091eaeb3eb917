//! The border to `driver.py`: requests in, answers out.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{EvalPlusError, Status};
use crate::sandbox::{Limits, Program, Ran, Sandbox};

const DRIVER: &str = include_str!("driver.py");

/// Returns the blake3 hash of the rules that are written in Python, hex.
pub(super) fn hash() -> String {
    blake3::hash(DRIVER.as_bytes()).to_hex().to_string()
}

/// EvalPlus's limit of the address space.
const MEMORY_BYTES: u64 = 4 << 30;

/// Outputs of one problem, in Python's own form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Expected {
    /// Base64 of a compressed pickle. Read in the sandbox and nowhere else.
    pub(super) outputs: String,
    /// CPU time of each test, seconds.
    pub(super) times: Vec<f64>,
}

/// A verdict on one set of tests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Scored {
    pub(super) status: Status,
    pub(super) passed: Vec<bool>,
}

/// What came of a request.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) ran: Ran,
    lines: Vec<Value>,
}

impl Answers {
    /// Takes an answer that has a field of this name.
    pub(super) fn with<T: DeserializeOwned>(&self, field: &str) -> Option<T> {
        let line = self.lines.iter().find(|line| line.get(field).is_some())?;
        T::deserialize(line).ok()
    }
}

/// Asks the driver. `cpu` is what the whole process may take on the reference machine.
pub(super) fn ask(
    sandbox: &Sandbox,
    mut request: Value,
    lines: &[&str],
    cpu: Duration,
) -> Result<Answers, EvalPlusError> {
    let nonce = nonce();
    request["nonce"] = json!(nonce);
    let mut stdin = request.to_string().into_bytes();
    stdin.push(b'\n');
    for line in lines {
        stdin.extend_from_slice(line.as_bytes());
        stdin.push(b'\n');
    }
    let limits = Limits {
        cpu,
        wall: cpu * 10 + Duration::from_secs(30),
        memory_bytes: MEMORY_BYTES,
        output_bytes: 256 << 20,
        ..Limits::default()
    };
    let ran = sandbox
        .run(&Program::new(DRIVER, limits).stdin(stdin))
        .map_err(EvalPlusError::Sandbox)?;
    let lines = ran
        .stdout
        .bytes
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|line| line.get("nonce").and_then(Value::as_str) == Some(&nonce))
        .collect();
    Ok(Answers { ran, lines })
}

/// Returns a word that no solution can have been written with.
fn nonce() -> String {
    let word = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}
