//! Which role may make which call: one table, which a test holds to the services' descriptors.

use tritmark_proto::identity::Role;

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Anybody who reaches the server, with a certificate or without.
    Anyone,
    /// Anybody with a valid certificate.
    Known,
    /// These roles.
    Roles(&'static [Role]),
}

impl Who {
    pub(super) fn allows(self, role: Option<Role>) -> bool {
        match (self, role) {
            (Self::Anyone, _) | (Self::Known, Some(_)) => true,
            (Self::Roles(roles), Some(role)) => roles.contains(&role),
            (Self::Known | Self::Roles(_), None) => false,
        }
    }
}

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// `/package.Service/Method`.
    pub(super) path: &'static str,
    /// Who may make it.
    pub(super) who: Who,
    /// Whether it may change something, so that it belongs in the audit log.
    pub(super) changes: bool,
    /// Whether the one who calls sends more than one message.
    pub(super) streams: bool,
}

const AGENT: Who = Who::Roles(&[Role::Agent]);
const READ: Who = Who::Roles(&[Role::Viewer, Role::Submitter, Role::Admin]);
const WRITE: Who = Who::Roles(&[Role::Submitter, Role::Admin]);
const ADMIN: Who = Who::Roles(&[Role::Admin]);

const fn reads(path: &'static str, who: Who) -> Rule {
    Rule {
        path,
        who,
        changes: false,
        streams: false,
    }
}

const fn changes(path: &'static str, who: Who) -> Rule {
    Rule {
        changes: true,
        ..reads(path, who)
    }
}

const fn streams(rule: Rule) -> Rule {
    Rule {
        streams: true,
        ..rule
    }
}

/// Every call there is.
pub(super) const RULES: [Rule; 24] = [
    streams(changes("/tritmark.v1.AgentLink/Link", AGENT)),
    changes("/tritmark.v1.Control/SubmitPlan", WRITE),
    reads("/tritmark.v1.Control/WatchRun", READ),
    reads("/tritmark.v1.Control/ListRuns", READ),
    reads("/tritmark.v1.Control/ListAgents", READ),
    reads("/tritmark.v1.Control/ListJobs", READ),
    changes("/tritmark.v1.Control/CancelRun", WRITE),
    reads("/tritmark.v1.Control/DryRun", WRITE),
    changes("/tritmark.v1.Control/PauseRun", WRITE),
    changes("/tritmark.v1.Control/ResumeRun", WRITE),
    changes("/tritmark.v1.Control/DrainAgent", ADMIN),
    changes("/tritmark.v1.Control/ReleaseAgent", ADMIN),
    reads("/tritmark.v1.Control/FetchResults", READ),
    reads("/tritmark.v1.Artefacts/Fetch", AGENT),
    reads("/tritmark.v1.Artefacts/Missing", WRITE),
    streams(changes("/tritmark.v1.Artefacts/Upload", WRITE)),
    changes("/tritmark.v1.Enrollment/Enroll", Who::Anyone),
    changes("/tritmark.v1.Enrollment/Renew", Who::Known),
    changes("/tritmark.v1.Identities/CreateToken", ADMIN),
    changes("/tritmark.v1.Identities/Revoke", ADMIN),
    reads("/tritmark.v1.Identities/ListIdentities", ADMIN),
    reads("/grpc.health.v1.Health/Check", Who::Known),
    reads("/grpc.health.v1.Health/Watch", Who::Known),
    streams(reads(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Who::Known,
    )),
];

/// Returns the rule of a call; what has none is refused.
pub(super) fn rule(path: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.path == path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// Every method of every service that a coordinator serves, and whether its caller streams.
    fn served() -> BTreeMap<String, bool> {
        [
            tritmark_proto::wire::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        ]
        .into_iter()
        .flat_map(|bytes| FileDescriptorSet::decode(bytes).unwrap().file)
        .flat_map(|file| {
            let package = file.package().to_owned();
            file.service.into_iter().flat_map(move |service| {
                let prefix = format!("/{package}.{}", service.name());
                service.method.into_iter().map(move |method| {
                    (
                        format!("{prefix}/{}", method.name()),
                        method.client_streaming(),
                    )
                })
            })
        })
        .collect()
    }

    #[test]
    fn every_method_of_every_service_has_its_rule() {
        let ruled: BTreeMap<String, bool> = RULES
            .iter()
            .map(|rule| (rule.path.to_owned(), rule.streams))
            .collect();
        assert_eq!(ruled.len(), RULES.len(), "one rule a method");
        assert_eq!(ruled, served());
    }

    #[test]
    fn only_enrollment_is_open_to_strangers() {
        let open: Vec<_> = RULES
            .iter()
            .filter(|rule| rule.who.allows(None))
            .map(|rule| rule.path)
            .collect();
        assert_eq!(open, ["/tritmark.v1.Enrollment/Enroll"]);
    }

    #[test]
    fn an_agent_can_neither_submit_nor_read_and_a_viewer_changes_nothing() {
        let may = |role, path| rule(path).unwrap().who.allows(Some(role));
        for rule in RULES {
            let is_own = rule.who == AGENT || rule.who == Who::Known || rule.who == Who::Anyone;
            assert_eq!(may(Role::Agent, rule.path), is_own, "{}", rule.path);
            if rule.changes && matches!(rule.who, Who::Roles(_)) {
                assert!(!may(Role::Viewer, rule.path), "{}", rule.path);
            }
        }
        assert!(may(Role::Submitter, "/tritmark.v1.Control/SubmitPlan"));
        assert!(!may(Role::Submitter, "/tritmark.v1.Identities/Revoke"));
    }
}
