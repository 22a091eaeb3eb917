//! Roles, and what an agent may say of itself.

use tritmark_proto::wire::artefacts_client::ArtefactsClient;

use super::*;

#[tokio::test]
async fn each_role_makes_its_own_calls_and_no_others() {
    let fleet = Fleet::open(roomy()).await;
    let mut cards = vec![(None, None)];
    for role in Role::ALL {
        cards.push((Some(role), Some(fleet.card(role, 1).await)));
    }
    for (role, card) in &cards {
        let channel = fleet.channel(card.as_ref()).await;
        for rule in policy::RULES {
            let ended = call(&channel, rule.path, futures::stream::iter([Vec::new()])).await;
            let code = ended.err().map_or(Code::Ok, |status| status.code());
            let wanted = match role {
                None => Code::Unauthenticated,
                Some(_) => Code::PermissionDenied,
            };
            let is_refused = matches!(code, Code::Unauthenticated | Code::PermissionDenied);
            if rule.who.allows(*role) {
                assert!(!is_refused, "{role:?} {}: {code:?}", rule.path);
            } else {
                assert_eq!(code, wanted, "{role:?} {}", rule.path);
                fleet
                    .audited("refusal", |entry| {
                        entry.event == crate::identity::AuditEvent::Denied
                            && entry.what == rule.path
                            && role.is_none_or(|role| entry.peer == format!("{role}-1"))
                    })
                    .await;
            }
        }
    }
    fleet.close().await;
}

#[tokio::test]
async fn a_call_that_does_not_exist_is_none() {
    let fleet = Fleet::open(roomy()).await;
    let card = fleet.card(Role::Admin, 1).await;
    let path = "/tritmark.v1.Control/Shutdown";
    let nothing = || futures::stream::iter([Vec::new()]);
    let known = call(&fleet.channel(Some(&card)).await, path, nothing()).await;
    assert_eq!(known.unwrap_err().code(), Code::Unimplemented);
    let stranger = call(&fleet.channel(None).await, path, nothing()).await;
    assert_eq!(stranger.unwrap_err().code(), Code::Unauthenticated);
    fleet.close().await;
}

#[tokio::test]
async fn an_agent_is_who_its_certificate_says() {
    let fleet = Fleet::open(roomy()).await;
    let (one, two) = (
        fleet.card(Role::Agent, 1).await,
        fleet.card(Role::Agent, 2).await,
    );
    let (_say, mut heard) = fleet
        .link(fleet.channel(Some(&one)).await, 2)
        .await
        .unwrap();
    let status = heard.message().await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let (_say, mut heard) = fleet
        .link(fleet.channel(Some(&two)).await, 2)
        .await
        .unwrap();
    heard.message().await.unwrap().unwrap();

    // What it was enrolled with wins over what it says.
    let viewer = fleet.card(Role::Viewer, 1).await;
    let agents = ControlClient::new(fleet.channel(Some(&viewer)).await)
        .list_agents(wire::ListAgentsRequest {})
        .await
        .unwrap()
        .into_inner()
        .agents;
    let agent = agents
        .iter()
        .find(|agent| agent.agent_id == agent_id(2))
        .unwrap();
    assert_eq!(
        (&*agent.labels["room"], &*agent.labels["shelf"]),
        ("2", "3")
    );
    fleet.close().await;
}

#[tokio::test]
async fn an_agent_cannot_speak_for_anothers_attempt() {
    let fleet = Fleet::open(roomy()).await;
    let submitter = fleet.card(Role::Submitter, 1).await;
    let plan = "[[models]]\nid = \"m\"\npath = \"m.gguf\"\n[suites.latency]\nn_prompt = [16]\nn_gen = [3]\n";
    ControlClient::new(fleet.channel(Some(&submitter)).await)
        .submit_plan(wire::SubmitPlanRequest {
            plan_toml: plan.into(),
            plan_name: "p".into(),
            base_dir: "/".into(),
            ..wire::SubmitPlanRequest::default()
        })
        .await
        .unwrap();
    let one = fleet.card(Role::Agent, 1).await;
    let (say, mut heard) = fleet
        .link(fleet.channel(Some(&one)).await, 1)
        .await
        .unwrap();
    let attempt = loop {
        if let ToAgentKind::Assign(assign) = heard.message().await.unwrap().unwrap().kind.unwrap() {
            break assign.attempt.unwrap();
        }
    };
    let two = fleet.card(Role::Agent, 2).await;
    let (other, mut other_heard) = fleet
        .link(fleet.channel(Some(&two)).await, 2)
        .await
        .unwrap();
    other_heard.message().await.unwrap().unwrap();
    let finished = |n_records| {
        message(FromAgent::Finished(wire::JobFinished {
            attempt: Some(attempt.clone()),
            n_records,
            at_unix_ns: 0,
            failure: None,
            signed: None,
        }))
    };
    other.send(finished(0)).await.unwrap();
    let status = other_heard.message().await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    // Its owner goes on as if nothing had been.
    say.send(finished(0)).await.unwrap();
    let answer = heard.message().await.unwrap().unwrap().kind.unwrap();
    assert!(
        matches!(&answer, ToAgentKind::Ack(ack) if ack.finished),
        "{answer:?}"
    );
    fleet.close().await;
}

#[tokio::test]
async fn what_changes_something_is_in_the_audit_log() {
    let fleet = Fleet::open(roomy()).await;
    let admin = fleet.card(Role::Admin, 1).await;
    let channel = fleet.channel(Some(&admin)).await;
    let mut identities = wire::identities_client::IdentitiesClient::new(channel.clone());
    let token = identities
        .create_token(wire::CreateTokenRequest {
            role: "viewer".into(),
            valid_seconds: 60,
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner()
        .token;
    let run = "018f6b1e-0000-7000-8000-000000000001";
    let status = ControlClient::new(channel)
        .cancel_run(wire::CancelRunRequest { run_id: run.into() })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let log = fleet.audit().await;
    let told: Vec<_> = log
        .iter()
        .map(|entry| {
            (
                entry.event.name(),
                &*entry.peer,
                &*entry.what,
                &*entry.detail,
            )
        })
        .collect();
    let create = "/tritmark.v1.Identities/CreateToken";
    let cancel = "/tritmark.v1.Control/CancelRun";
    let no_run = format!("NotFound: there is no run {run}");
    assert_eq!(
        told,
        [
            ("call", "admin-1", create, ""),
            ("outcome", "admin-1", create, "done: token for viewer"),
            ("call", "admin-1", cancel, ""),
            ("outcome", "admin-1", cancel, &*no_run),
        ]
    );
    assert!(
        log.iter()
            .all(|entry| !token.contains(&entry.detail) || entry.detail.is_empty())
    );
    fleet.close().await;
}

#[tokio::test]
async fn files_go_from_submitters_to_agents_and_no_other_way() {
    let fleet = Fleet::open(roomy()).await;
    // This coordinator has no place for files, as whoever passes the guard is told.
    let (no, yes) = (Code::PermissionDenied, Code::FailedPrecondition);
    for (role, fetch, missing, upload) in [
        (Role::Agent, yes, no, no),
        (Role::Viewer, no, no, no),
        (Role::Submitter, no, yes, yes),
        (Role::Admin, no, yes, yes),
    ] {
        let card = fleet.card(role, 3).await;
        let mut client = ArtefactsClient::new(fleet.channel(Some(&card)).await);
        let request = wire::FetchRequest {
            hash: vec![0; 32],
            offset: 0,
        };
        let said = client.fetch(request).await.map(|_| ()).unwrap_err();
        assert_eq!(said.code(), fetch, "{role}: {said}");
        let request = wire::MissingRequest { hashes: Vec::new() };
        let said = client.missing(request).await.map(|_| ()).unwrap_err();
        assert_eq!(said.code(), missing, "{role}: {said}");
        let pieces = tokio_stream::iter([wire::UploadPiece::default()]);
        let said = client.upload(pieces).await.map(|_| ()).unwrap_err();
        assert_eq!(said.code(), upload, "{role}: {said}");
    }
    fleet.close().await;
}
