//! Who may depend on whom: `cargo metadata` against ARCHITECTURE.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// Workspace crates each workspace crate may use.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("tritmark-proto", &[]),
    ("tritmark-engine", &[]),
    ("tritmark-suites", &["tritmark-engine", "tritmark-proto"]),
    ("tritmark-agent", &["tritmark-suites", "tritmark-proto"]),
    ("tritmark-coordinator", &["tritmark-proto"]),
    ("tritmark-reports", &["tritmark-proto"]),
    (
        "tritmark",
        &[
            "tritmark-agent",
            "tritmark-coordinator",
            "tritmark-engine",
            "tritmark-proto",
            "tritmark-reports",
            "tritmark-suites",
        ],
    ),
    // Nothing may depend on it.
    (
        "tritmark-testkit",
        &[
            "tritmark-agent",
            "tritmark-coordinator",
            "tritmark-proto",
            "tritmark-suites",
        ],
    ),
    // No part of a product either.
    ("xtask", &[]),
];

/// Crates that must not be anywhere below a workspace crate.
const FORBIDDEN: [(&str, &[&str]); 4] = [
    ("tritmark-engine", &["tokio", "tonic", "polars", "sqlx"]),
    ("tritmark-suites", &["polars", "sqlx", "plotters", "ureq"]),
    ("tritmark-agent", &["polars", "sqlx", "plotters", "ureq"]),
    ("tritmark-coordinator", &["plotters", "tokenizers"]),
];

/// Returns the platform that tests are built for here.
fn host() -> String {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .arg("-vV")
        .output()
        .expect("rustc can be started");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("rustc says for what it compiles")
        .to_owned()
}

/// Every package's normal and build dependencies, by package id; names by id.
struct Graph {
    names: BTreeMap<String, String>,
    below: BTreeMap<String, Vec<String>>,
    members: BTreeSet<String>,
}

impl Graph {
    fn read() -> Self {
        // Of other systems' packages nothing need be on this machine.
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked", "--offline"])
            .args(["--filter-platform", &host()])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo can be started");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        let text = |value: &Value| value.as_str().expect("it is a text").to_owned();
        let list = |value: &Value| value.as_array().expect("it is a list").clone();
        let names = list(&metadata["packages"])
            .iter()
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let members = list(&metadata["workspace_members"])
            .iter()
            .map(text)
            .collect();
        let below = list(&metadata["resolve"]["nodes"])
            .iter()
            .map(|node| {
                let deps = list(&node["deps"])
                    .iter()
                    .filter(|dep| {
                        let kinds = list(&dep["dep_kinds"]);
                        kinds.iter().any(|kind| kind["kind"] != "dev")
                    })
                    .map(|dep| text(&dep["pkg"]))
                    .collect();
                (text(&node["id"]), deps)
            })
            .collect();
        Self {
            names,
            below,
            members,
        }
    }

    fn id(&self, name: &str) -> &str {
        self.members
            .iter()
            .find(|id| self.names[*id] == name)
            .unwrap_or_else(|| panic!("{name} is in the workspace"))
    }

    /// Names of everything below a package.
    fn all_below(&self, id: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            for dep in &self.below[id] {
                if seen.insert(dep.as_str()) {
                    open.push(dep);
                }
            }
        }
        seen.into_iter().map(|id| self.names[id].as_str()).collect()
    }
}

#[test]
fn crates_depend_on_each_other_one_way() {
    let graph = Graph::read();
    let members: BTreeSet<_> = graph.members.iter().map(|id| &graph.names[id]).collect();
    let listed: BTreeSet<_> = ALLOWED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(
        members,
        listed.iter().collect(),
        "ARCHITECTURE.md and this test list every crate"
    );
    for (name, allowed) in ALLOWED {
        for dep in &graph.below[graph.id(name)] {
            let dep_name = graph.names[dep].as_str();
            assert!(
                !graph.members.contains(dep) || allowed.contains(&dep_name),
                "{name} must not depend on {dep_name}"
            );
        }
    }
}

#[test]
fn heavy_crates_stay_where_they_belong() {
    let graph = Graph::read();
    for (name, forbidden) in FORBIDDEN {
        let below = graph.all_below(graph.id(name));
        for crate_name in forbidden {
            let hit = below
                .iter()
                .find(|dep| *dep == crate_name || dep.starts_with(&format!("{crate_name}-")));
            assert_eq!(hit, None, "{name} must not depend on {crate_name}");
        }
    }
}

#[test]
fn there_is_one_version_of_what_must_be_shared() {
    let graph = Graph::read();
    for name in [
        "tonic",
        "prost",
        "tokio",
        "object_store",
        "polars",
        "rustls",
    ] {
        let n_versions = graph.names.values().filter(|found| *found == name).count();
        assert_eq!(n_versions, 1, "{name}");
    }
}
