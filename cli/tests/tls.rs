//! Agents and coordinator across TLS: a coordinator behind a proxy that ends TLS, as README.md has
//! it, with certificates made for the test; and what is refused without TLS.

mod support;

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use support::{Lab, Running, bundle, bundled_accuracy, bundled_models, wait_until};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};

const LIMIT: Duration = Duration::from_mins(2);

/// A certificate authority: what it signs with, and the file of those who trust it.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(lab: &Lab, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.self_signed(&key).expect("a certificate can be made");
        let file = lab.path(&format!("{name}.pem"));
        fs::write(&file, certificate.pem()).expect("a file can be written");
        Self {
            issuer: Issuer::new(params, key),
            file,
        }
    }

    fn pem(&self) -> String {
        self.file.to_str().expect("it is text").to_owned()
    }

    /// Returns what a server of this name speaks HTTP/2 over TLS with.
    fn server(&self, host: &str) -> ServerConfig {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = CertificateParams::new([host.to_owned()])
            .expect("it is a name")
            .signed_by(&key, &self.issuer)
            .expect("a certificate can be signed");
        let chain = vec![CertificateDer::from(certificate)];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("it is a key");
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("key and certificate fit");
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

/// Ends TLS before a coordinator that speaks plain text on this machine.
struct Proxy {
    address: SocketAddr,
    counts: Arc<Counts>,
    // Its threads end with it.
    _runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct Counts {
    secured: AtomicUsize,
    refused: AtomicUsize,
}

impl Proxy {
    fn start(config: ServerConfig, coordinator: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread can be started");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let counts = Arc::new(Counts::default());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        runtime.spawn(serve(listener, acceptor, coordinator, Arc::clone(&counts)));
        Self {
            address,
            counts,
            _runtime: runtime,
        }
    }

    fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.address.port())
    }

    fn secured(&self) -> usize {
        self.counts.secured.load(Ordering::SeqCst)
    }

    fn refused(&self) -> usize {
        self.counts.refused.load(Ordering::SeqCst)
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    coordinator: SocketAddr,
    counts: Arc<Counts>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, counts) = (acceptor.clone(), Arc::clone(&counts));
        tokio::spawn(async move {
            let Ok(mut secure) = acceptor.accept(stream).await else {
                counts.refused.fetch_add(1, Ordering::SeqCst);
                return;
            };
            counts.secured.fetch_add(1, Ordering::SeqCst);
            if let Ok(mut plain) = TcpStream::connect(coordinator).await {
                // Either side may go at any time; the other is told by the closed stream.
                let _ = tokio::io::copy_bidirectional(&mut secure, &mut plain).await;
            }
        });
    }
}

/// A coordinator of this lab, and where it serves.
fn coordinator(lab: &Lab) -> (Running, String) {
    let args = ["coordinator", "up", "--listen", "127.0.0.1:0"];
    let running = lab.start("coordinator.log", args);
    let mut url = String::new();
    wait_until(LIMIT, "the coordinator serves", || {
        let said = lab.read("coordinator.log");
        let line = said.lines().find(|line| line.starts_with("http://"));
        url.push_str(line.unwrap_or_default());
        !url.is_empty()
    });
    (running, url)
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://")
        .parse()
        .expect("the coordinator said its address")
}

fn agent(lab: &Lab, url: &str, authority: &Authority) -> Running {
    let ca = authority.pem();
    let args = ["agent", "up", "--coordinator", url, "--ca", &ca];
    lab.start("agent.log", args)
}

fn n_agents(lab: &Lab, url: &str) -> usize {
    let said = lab
        .run(["ls", "agents", "--coordinator", url, "--json"])
        .expect(0);
    let agents: serde_json::Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    agents.as_array().expect("it is a list").len()
}

#[test]
fn an_agent_measures_for_a_coordinator_behind_tls() {
    let lab = Lab::new();
    let authority = Authority::new(&lab, "fleet");
    let (_coordinator, url) = coordinator(&lab);
    let proxy = Proxy::start(authority.server("localhost"), address(&url));
    let _agent = agent(&lab, &proxy.url("localhost"), &authority);
    let plan = lab.plan(
        "tls.toml",
        &format!(
            "{}{}limit = 2\n",
            bundled_models(),
            bundled_accuracy(&["boolq"])
        ),
    );
    let [url, ca] = [proxy.url("localhost"), authority.pem()];
    let secure = ["--coordinator", &url, "--ca", &ca];
    let run = lab
        .run(
            ["submit", plan.to_str().expect("it is text")]
                .iter()
                .chain(&secure),
        )
        .expect(0)
        .stdout;
    let run = run.trim();
    let watched = lab.run(["watch", run].iter().chain(&secure)).expect(0);
    assert!(
        watched.stdout.contains("2 of 2 jobs done"),
        "{}",
        watched.stdout
    );
    let report = ["report", run, "--out", "fetched"];
    lab.run(report.iter().chain(&secure)).expect(0);
    assert_eq!(bundle(&lab.path("fetched/bundle")).items.len(), 4);
    // The agent and three commands.
    assert_eq!((proxy.secured(), proxy.refused()), (4, 0));
}

#[test]
fn an_agent_does_not_speak_to_whom_it_cannot_trust() {
    let lab = Lab::new();
    let authority = Authority::new(&lab, "fleet");
    let stranger = Authority::new(&lab, "stranger");
    let (_coordinator, url) = coordinator(&lab);
    let proxy = Proxy::start(authority.server("localhost"), address(&url));
    for (host, trusts, said) in [
        ("localhost", &stranger, "UnknownIssuer"),
        // The right authority, but the certificate is another host's.
        ("127.0.0.1", &authority, "certificate not valid for name"),
    ] {
        let before = proxy.refused();
        let mut agent = agent(&lab, &proxy.url(host), trusts);
        wait_until(LIMIT, "the agent has refused", || {
            proxy.refused() > before && lab.read("agent.log").contains(said)
        });
        // It goes on trying: a certificate can be renewed.
        assert!(!agent.has_ended(), "{}", lab.read("agent.log"));
    }
    assert_eq!(proxy.secured(), 0);
    assert_eq!(n_agents(&lab, &url), 0);

    let [secure, ca] = [proxy.url("localhost"), stranger.pem()];
    let said = lab
        .run(["ls", "agents", "--coordinator", &secure, "--ca", &ca])
        .expect(75);
    assert!(said.stderr.contains("UnknownIssuer"), "{}", said.stderr);
}

#[test]
fn an_agent_that_asks_for_tls_does_not_fall_back_to_plain_text() {
    let lab = Lab::new();
    let authority = Authority::new(&lab, "fleet");
    let (_coordinator, url) = coordinator(&lab);
    let secure = url.replace("http://", "https://");
    let _agent = agent(&lab, &secure, &authority);
    wait_until(LIMIT, "the agent has failed to connect", || {
        lab.read("agent.log").contains("not connected")
    });
    assert_eq!(n_agents(&lab, &url), 0);
}

#[test]
fn plain_text_between_machines_has_to_be_allowed() {
    let lab = Lab::new();
    // An address for documentation: nothing is sent there.
    let elsewhere = "http://192.0.2.1:7701";
    for command in [["agent", "up"], ["ls", "runs"]] {
        let said = lab
            .run(command.iter().chain(&["--coordinator", elsewhere]))
            .expect(2);
        assert!(
            said.stderr.contains(elsewhere) && said.stderr.contains("plain text"),
            "{}",
            said.stderr
        );
    }
    let said = lab
        .run(["coordinator", "up", "--listen", "0.0.0.0:0"])
        .expect(2);
    assert!(said.stderr.contains("--insecure"), "{}", said.stderr);

    let allowed = ["coordinator", "up", "--listen", "0.0.0.0:0", "--insecure"];
    let _coordinator = lab.start("open.log", allowed);
    wait_until(LIMIT, "the coordinator serves", || {
        lab.read("open.log").contains("http://0.0.0.0:")
    });
}
