//! The server as other machines reach it: real TLS over loopback, and everything that must not get
//! through. Each test ends with a good agent that is served.

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use rcgen::KeyPair;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tonic::{
    Code, Request, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as TlsIdentity},
};
use tritmark_proto::{
    identity::{Claim, Role, SIGNING_PROOF_CONTEXT},
    wire::{
        self, agent_link_client::AgentLinkClient, agent_message::Kind as FromAgent,
        control_client::ControlClient, coordinator_message::Kind as ToAgentKind,
        enrollment_client::EnrollmentClient,
    },
};
use uuid::Uuid;

use super::*;
use crate::{
    identity::{AuditEntry, Authority, CertificateRequest, Enrollment, NewToken, Policy, Validity},
    testing::{agent_id, machine},
};

mod attacks;
mod certificates;
mod roles;

/// Waits no longer than this for what must happen.
const LIMIT: Duration = Duration::from_secs(20);

/// A coordinator with an authority, on a port of its own.
struct Fleet {
    folder: TempDir,
    office: Arc<Office>,
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

/// A key and its certificate.
#[expect(clippy::struct_field_names, reason = "that they are PEM is the point")]
#[derive(Clone)]
struct Card {
    certificate_pem: String,
    key_pem: String,
    ca_pem: String,
}

fn csr() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let der = request.der().to_vec();
    (key, der)
}

/// What agent `n` redeems a token with.
fn agent_enrollment(n: u32, secret: [u8; 32], csr_der: Vec<u8>) -> Enrollment {
    use ed25519_dalek::Signer as _;
    let signing = ed25519_dalek::SigningKey::from_bytes(&[n as u8; 32]);
    let proof = signing.sign(&[SIGNING_PROOF_CONTEXT, &csr_der].concat());
    Enrollment {
        secret,
        csr_der,
        name: format!("agent-{n}"),
        agent_id: Some(agent_id(n).parse().unwrap()),
        signing: Some((*signing.verifying_key().as_bytes(), proof.to_bytes())),
    }
}

/// Limits under which tests that are not about rates never wait.
fn roomy() -> Limits {
    Limits {
        calls: Rate::new(1e6, 1e6),
        enrollments: Rate::new(1e6, 1e6),
        logged_refusals: Rate::new(1e6, 1e6),
        ..Limits::default()
    }
}

impl Fleet {
    async fn open(limits: Limits) -> Self {
        let folder = TempDir::new().unwrap();
        let identity = folder.path().join(crate::identity::FOLDER);
        let policy = Policy::new(vec!["localhost".into(), "127.0.0.1".into()]);
        Office::create(&identity, &policy, None).await.unwrap();
        let mut config = Config::new(folder.path().join("store.sqlite"));
        config.identity = Some(identity);
        config.limits = limits;
        let coordinator = Coordinator::open(config).await.unwrap();
        let office = Arc::clone(coordinator.office.as_ref().unwrap());
        let stop = coordinator.stop_token();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            coordinator.serve(listener).await.unwrap();
            coordinator.close().await;
        });
        Self {
            folder,
            office,
            address,
            stop,
            served,
        }
    }

    async fn close(self) {
        self.good_agent_is_served().await;
        self.stop.cancel();
        self.served.await.unwrap();
    }

    fn identity_folder(&self) -> PathBuf {
        self.folder.path().join(crate::identity::FOLDER)
    }

    fn ca_pem(&self) -> String {
        self.office.authority().certificate_pem().to_owned()
    }

    async fn token(&self, role: Role, valid: Duration) -> [u8; 32] {
        let labels = match role {
            Role::Agent => BTreeMap::from([("room".to_owned(), "2".to_owned())]),
            _ => BTreeMap::new(),
        };
        let new = NewToken {
            role,
            name: None,
            labels,
            valid,
        };
        self.office.create_token(new).await.unwrap().0.secret
    }

    /// Lets somebody in. Agents are numbered; of other roles there is one.
    async fn card(&self, role: Role, n: u32) -> Card {
        let secret = self.token(role, Duration::from_mins(1)).await;
        let (key, csr_der) = csr();
        let enrollment = match role {
            Role::Agent => agent_enrollment(n, secret, csr_der),
            _ => Enrollment {
                secret,
                csr_der,
                name: format!("{role}-{n}"),
                agent_id: None,
                signing: None,
            },
        };
        let identity = self.office.enroll(enrollment).await.unwrap();
        Card {
            certificate_pem: identity.certificate_pem,
            key_pem: key.serialize_pem(),
            ca_pem: self.ca_pem(),
        }
    }

    /// Returns a card that any authority signed with any claims and validity.
    fn forged(&self, authority: &Authority, claims: &[Claim], validity: Validity) -> Card {
        let (key, csr_der) = csr();
        let request = CertificateRequest::parse(&csr_der).unwrap();
        let issued = authority.issue_client(&request, claims, validity).unwrap();
        Card {
            certificate_pem: issued.certificate_pem,
            key_pem: key.serialize_pem(),
            ca_pem: self.ca_pem(),
        }
    }

    fn endpoint(&self, card: Option<&Card>) -> Endpoint {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.ca_pem()));
        if let Some(card) = card {
            assert_eq!(card.ca_pem, self.ca_pem());
            tls = tls.identity(TlsIdentity::from_pem(&card.certificate_pem, &card.key_pem));
        }
        Endpoint::from_shared(format!("https://localhost:{}", self.address.port()))
            .unwrap()
            .tls_config(tls)
            .unwrap()
    }

    async fn channel(&self, card: Option<&Card>) -> Channel {
        self.endpoint(card).connect().await.unwrap()
    }

    /// Makes a call with a card; connecting may fail, which comes back as a status too.
    async fn list_runs(&self, card: &Card) -> Result<(), Status> {
        let channel = self
            .endpoint(Some(card))
            .connect()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        ControlClient::new(channel)
            .list_runs(wire::ListRunsRequest {})
            .await
            .map(drop)
    }

    async fn link(
        &self,
        channel: Channel,
        n: u32,
    ) -> Result<
        (
            mpsc::Sender<wire::AgentMessage>,
            Streaming<wire::CoordinatorMessage>,
        ),
        Status,
    > {
        let (say, said) = mpsc::channel(16);
        let register = wire::Register {
            agent_id: agent_id(n),
            version: "0.1.0".into(),
            machine: Some(machine(&format!("machine-{n}")).into()),
            labels: [("room", "9"), ("shelf", "3")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            running: None,
            suites: Vec::new(),
            ..wire::Register::default()
        };
        say.send(message(FromAgent::Register(register)))
            .await
            .unwrap();
        let heard = AgentLinkClient::new(channel)
            .link(ReceiverStream::new(said))
            .await?
            .into_inner();
        Ok((say, heard))
    }

    /// An agent with a certificate registers and is answered.
    async fn good_agent_is_served(&self) {
        let card = self.card(Role::Agent, 99).await;
        let serve = async {
            let channel = self.channel(Some(&card)).await;
            let (_say, mut heard) = self.link(channel, 99).await.unwrap();
            let first = heard.message().await.unwrap().unwrap().kind.unwrap();
            assert!(matches!(first, ToAgentKind::Registered(_)), "{first:?}");
        };
        tokio::time::timeout(LIMIT, serve)
            .await
            .expect("a good agent is served");
    }

    async fn audit(&self) -> Vec<AuditEntry> {
        let log = self.office.store().audit_log(10_000).await.unwrap();
        log.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Waits until the audit log has an entry.
    async fn audited(&self, what: &str, is_it: impl Fn(&AuditEntry) -> bool) {
        let until = Instant::now() + LIMIT;
        loop {
            let log = self.audit().await;
            if log.iter().any(&is_it) {
                return;
            }
            assert!(Instant::now() < until, "no {what} in {log:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn message(kind: FromAgent) -> wire::AgentMessage {
    wire::AgentMessage { kind: Some(kind) }
}

/// Sends and receives bytes as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        use bytes::BufMut as _;
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        use bytes::Buf as _;
        let mut bytes = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}

/// Makes any call with any messages and returns how it ended: its first answer is enough.
async fn call<S>(channel: &Channel, path: &'static str, messages: S) -> Result<(), Status>
where
    S: Stream<Item = Vec<u8>> + Send + 'static,
{
    let mut client = tonic::client::Grpc::new(channel.clone());
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let path = ::http::uri::PathAndQuery::from_static(path);
    let answer = async {
        let mut answers = client
            .streaming(Request::new(messages), path, Raw)
            .await?
            .into_inner();
        answers.message().await.map(drop)
    };
    tokio::time::timeout(LIMIT, answer)
        .await
        .expect("every call is answered")
}
