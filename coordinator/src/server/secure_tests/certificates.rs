//! Certificates that must not be taken, tokens that must not serve twice, and rotation.

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use super::*;

const DAY: i64 = 86_400;

fn claims(role: Role) -> Vec<Claim> {
    vec![Claim::Role {
        role,
        name: "forged".into(),
    }]
}

fn from_to(from_days: i64, to_days: i64) -> Validity {
    let now = now_unix_s();
    Validity {
        not_before_unix_s: now + from_days * DAY,
        not_after_unix_s: now + to_days * DAY,
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_good_is_refused() {
    let fleet = Fleet::open(roomy()).await;
    let elsewhere = TempDir::new().unwrap();
    let stranger = Authority::create(&elsewhere.path().join("ca"), 10).unwrap();
    let own = fleet.office.authority();
    let admin = claims(Role::Admin);
    let uris_of_nobody = [Claim::AgentId(Uuid::from_u128(7))];
    for (card, reason) in [
        (
            fleet.forged(&stranger, &admin, from_to(-1, 1)),
            "UnknownIssuer",
        ),
        (fleet.forged(own, &admin, from_to(-2, -1)), "xpired"),
        (fleet.forged(own, &admin, from_to(1, 2)), "not valid yet"),
        (
            fleet.forged(own, &uris_of_nobody, from_to(-1, 1)),
            "ApplicationVerificationFailure",
        ),
    ] {
        fleet.list_runs(&card).await.expect_err(reason);
        fleet
            .audited(reason, |entry| {
                entry.what == "TLS handshake" && entry.detail.contains(reason)
            })
            .await;
    }
    // The forging is what fails, not the test's way of asking.
    fleet
        .list_runs(&fleet.forged(own, &admin, from_to(-1, 1)))
        .await
        .unwrap();
    fleet.close().await;
}

#[tokio::test]
async fn a_server_certificate_is_no_client_certificate() {
    let fleet = Fleet::open(roomy()).await;
    let pem = std::fs::read_to_string(fleet.office.server_file()).unwrap();
    let (chain, key) = pem.split_at(pem.find("-----BEGIN PRIVATE KEY").unwrap());
    let card = Card {
        certificate_pem: chain.to_owned(),
        key_pem: key.to_owned(),
        ca_pem: fleet.ca_pem(),
    };
    fleet.list_runs(&card).await.unwrap_err();
    fleet.close().await;
}

#[tokio::test]
async fn revoking_cuts_open_streams_and_refuses_new_ones() {
    let fleet = Fleet::open(roomy()).await;
    let (one, two) = (
        fleet.card(Role::Agent, 1).await,
        fleet.card(Role::Agent, 2).await,
    );
    let (_say, mut heard) = fleet
        .link(fleet.channel(Some(&one)).await, 1)
        .await
        .unwrap();
    heard.message().await.unwrap().unwrap();
    let (say_two, mut heard_two) = fleet
        .link(fleet.channel(Some(&two)).await, 2)
        .await
        .unwrap();
    heard_two.message().await.unwrap().unwrap();

    assert_eq!(
        fleet
            .office
            .revoke("agent-1", "stolen")
            .await
            .unwrap()
            .len(),
        1
    );
    let ended = tokio::time::timeout(LIMIT, heard.message())
        .await
        .expect("the open stream ends");
    ended.expect_err("it ends with a fault");
    fleet
        .audited("cut", |entry| {
            entry.what == "open connection" && entry.peer == "agent-1"
        })
        .await;
    let again = async {
        let channel = fleet.endpoint(Some(&one)).connect().await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        fleet.link(channel, 1).await.map(drop)
    };
    again.await.expect_err("a revoked agent does not come in");
    fleet
        .audited("refusal", |entry| {
            entry.what == "TLS handshake" && entry.detail.contains("Revoked")
        })
        .await;

    // The other agent's stream has not ended: what it says wrongly is answered.
    say_two
        .send(message(FromAgent::Register(wire::Register::default())))
        .await
        .unwrap();
    let status = heard_two.message().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    // A name that was revoked is free again.
    fleet.card(Role::Agent, 1).await;
    fleet.close().await;
}

async fn redeem(fleet: &Fleet, enrollment: Enrollment) -> Result<wire::Credentials, Status> {
    let Enrollment {
        secret,
        csr_der,
        name,
        agent_id,
        signing,
    } = enrollment;
    let (signing_key, signing_proof) = signing.unwrap();
    EnrollmentClient::new(fleet.channel(None).await)
        .enroll(wire::EnrollRequest {
            token_secret: secret.to_vec(),
            csr_der,
            name,
            agent_id: agent_id.unwrap().to_string(),
            signing_key: signing_key.to_vec(),
            signing_proof: signing_proof.to_vec(),
        })
        .await
        .map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_token_lets_one_in_and_no_second() {
    let fleet = Fleet::open(roomy()).await;
    let secret = fleet.token(Role::Agent, Duration::from_mins(1)).await;
    // Two at once, under different names: one of them comes first.
    let (a, b) = tokio::join!(
        redeem(&fleet, agent_enrollment(1, secret, csr().1)),
        redeem(&fleet, agent_enrollment(2, secret, csr().1)),
    );
    let (good, late) = if a.is_ok() { (a, b) } else { (b, a) };
    assert_eq!(good.unwrap().role, "agent");
    assert_eq!(late.unwrap_err().code(), Code::PermissionDenied);
    let replayed = redeem(&fleet, agent_enrollment(3, secret, csr().1)).await;
    assert_eq!(replayed.unwrap_err().code(), Code::PermissionDenied);
    let guessed = redeem(&fleet, agent_enrollment(3, [7; 32], csr().1)).await;
    assert_eq!(guessed.unwrap_err().code(), Code::PermissionDenied);

    let brief = fleet.token(Role::Agent, Duration::from_secs(1)).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let expired = redeem(&fleet, agent_enrollment(3, brief, csr().1)).await;
    let expired = expired.unwrap_err();
    assert!(expired.message().contains("expired"), "{expired}");
    fleet
        .audited("refused token", |entry| {
            entry.event == crate::identity::AuditEvent::Denied
                && entry.what == "/tritmark.v1.Enrollment/Enroll"
        })
        .await;
    fleet.close().await;
}

#[tokio::test]
async fn a_wrong_request_does_not_use_the_token_up() {
    let fleet = Fleet::open(roomy()).await;
    let secret = fleet.token(Role::Agent, Duration::from_mins(1)).await;
    let good = || agent_enrollment(1, secret, csr().1);
    let wrong = [
        Enrollment {
            csr_der: b"no request".to_vec(),
            ..good()
        },
        // A signing key that is another's: the proof is over another request.
        Enrollment {
            signing: agent_enrollment(2, secret, csr().1).signing,
            ..good()
        },
        Enrollment {
            name: "../../etc".into(),
            ..good()
        },
    ];
    for enrollment in wrong {
        let status = redeem(&fleet, enrollment).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    redeem(&fleet, good()).await.unwrap();
    fleet.close().await;
}

#[tokio::test]
async fn a_certificate_is_renewed_with_the_one_before() {
    let fleet = Fleet::open(roomy()).await;
    let card = fleet.card(Role::Viewer, 1).await;
    let (key, csr_der) = csr();
    let renewed = EnrollmentClient::new(fleet.channel(Some(&card)).await)
        .renew(wire::RenewRequest { csr_der })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((&*renewed.name, &*renewed.role), ("viewer-1", "viewer"));
    let new = Card {
        certificate_pem: renewed.certificate_pem,
        key_pem: key.serialize_pem(),
        ca_pem: renewed.ca_pem,
    };
    fleet.list_runs(&new).await.unwrap();
    // The name's revocation is for both.
    assert_eq!(fleet.office.revoke("viewer-1", "").await.unwrap().len(), 2);
    fleet.close().await;
}

/// Returns the certificate that the server shows now.
async fn shown(fleet: &Fleet) -> CertificateDer<'static> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(fleet.ca_pem().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(
        tokio_rustls::rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    let stream = TcpStream::connect(fleet.address).await.unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
        .unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain[0].clone().into_owned()
}

#[tokio::test]
async fn the_server_certificate_changes_while_a_stream_is_open() {
    let fleet = Fleet::open(roomy()).await;
    let card = fleet.card(Role::Agent, 1).await;
    let (say, mut heard) = fleet
        .link(fleet.channel(Some(&card)).await, 1)
        .await
        .unwrap();
    heard.message().await.unwrap().unwrap();
    let before = shown(&fleet).await;

    let names = ["localhost".to_owned()];
    let fresh = fleet
        .office
        .authority()
        .issue_server(&names, Validity::days(1))
        .unwrap();
    let path = fleet.office.server_file();
    // A file that is not whole leaves the old certificate in use.
    let half = fleet.identity_folder().join("half");
    std::fs::write(&half, &fresh[..fresh.len() / 2]).unwrap();
    std::fs::rename(&half, &path).unwrap();
    tokio::time::sleep(2 * WATCH_PERIOD).await;
    assert_eq!(shown(&fleet).await, before);
    let whole = fleet.identity_folder().join("whole");
    std::fs::write(&whole, &fresh).unwrap();
    std::fs::rename(&whole, &path).unwrap();
    let until = Instant::now() + LIMIT;
    while shown(&fleet).await == before {
        assert!(Instant::now() < until, "the new certificate is shown");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // The old stream lives: a message that is not due is answered.
    say.send(message(FromAgent::Register(wire::Register::default())))
        .await
        .unwrap();
    let status = heard.message().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    fleet.close().await;
}
