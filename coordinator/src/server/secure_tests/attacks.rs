//! Peers that send too much, too slowly, or what makes no sense.

use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use super::*;

/// What an HTTP/2 connection begins with, and settings that ask for nothing.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn secured(fleet: &Fleet) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(fleet.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(
        tokio_rustls::rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(fleet.address).await.unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
        .unwrap()
}

/// Reads until the other end closes, which it must.
async fn is_closed(stream: &mut (impl AsyncRead + Unpin)) {
    let mut sink = Vec::new();
    let end = tokio::time::timeout(LIMIT, stream.read_to_end(&mut sink)).await;
    // An abrupt end is one, too.
    let _ = end.expect("the connection is closed");
}

/// Sends the head of a `ClientHello` of 512 bytes, then a byte now and then.
async fn trickle(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"\x16\x03\x01\x02\x00").await?;
    loop {
        stream.write_all(&[1]).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn impatient() -> Limits {
    Limits {
        handshake_within: Duration::from_millis(300),
        first_request_within: Duration::from_millis(500),
        request_within: Duration::from_millis(300),
        keepalive: Duration::from_millis(300),
        keepalive_within: Duration::from_millis(300),
        ..roomy()
    }
}

#[tokio::test]
async fn what_is_no_tls_is_refused() {
    let fleet = Fleet::open(impatient()).await;
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        PREFACE,
        &[0x16; 4096],
        b"\x16\x03\x01\xff\xff",
    ] {
        let mut stream = TcpStream::connect(fleet.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        is_closed(&mut stream).await;
    }
    fleet
        .audited("refusal", |entry| entry.what == "TLS handshake")
        .await;
    fleet.close().await;
}

#[tokio::test]
async fn a_handshake_that_trickles_is_ended() {
    let fleet = Fleet::open(impatient()).await;
    let stream = TcpStream::connect(fleet.address).await.unwrap();
    tokio::time::timeout(LIMIT, trickle(stream))
        .await
        .expect("the connection is closed")
        .unwrap_err();
    fleet
        .audited("timeout", |entry| entry.detail.contains("not done in time"))
        .await;
    fleet.close().await;
}

#[tokio::test]
async fn a_connection_without_a_request_is_ended() {
    let fleet = Fleet::open(impatient()).await;
    // Nothing at all, half a preface, and half of a frame.
    for bytes in [
        &b""[..],
        &PREFACE[..10],
        &[PREFACE, b"\0\0\x40\x01"].concat(),
    ] {
        let mut stream = secured(&fleet).await;
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        is_closed(&mut stream).await;
    }
    fleet.close().await;
}

#[tokio::test]
async fn a_frame_that_never_ends_is_cut_by_the_keepalive() {
    let fleet = Fleet::open(impatient()).await;
    let mut stream = secured(&fleet).await;
    // HPACK, literal and without Huffman: POST, https, path, authority, content-type, te.
    let path = b"/grpc.health.v1.Health/Check";
    let mut block = vec![0x83, 0x87, 0x04, path.len() as u8];
    block.extend_from_slice(path);
    block.extend_from_slice(b"\x01\x09localhost");
    block.extend_from_slice(b"\x00\x0ccontent-type\x10application/grpc");
    block.extend_from_slice(b"\x00\x02te\x08trailers");
    let mut bytes = PREFACE.to_vec();
    bytes.extend_from_slice(&[0, 0, block.len() as u8, 1, 0x5, 0, 0, 0, 1]);
    bytes.extend_from_slice(&block);
    // Then 9 of 16384 bytes of a further frame.
    bytes.extend_from_slice(b"\0\x40\0\x01\x04\0\0\0\x03stalled..");
    stream.write_all(&bytes).await.unwrap();
    stream.flush().await.unwrap();
    is_closed(&mut stream).await;
    // It had made a request, so that it was not the first request's deadline that ended it.
    fleet
        .audited("the request", |entry| {
            entry.what == "/grpc.health.v1.Health/Check"
        })
        .await;
    fleet.close().await;
}

#[tokio::test]
async fn a_request_that_never_ends_is_given_up() {
    let fleet = Fleet::open(impatient()).await;
    let card = fleet.card(Role::Admin, 1).await;
    let channel = fleet.channel(Some(&card)).await;
    for rule in policy::RULES
        .iter()
        .filter(|rule| !rule.streams && rule.who.allows(Some(Role::Admin)))
    {
        let ended = call(&channel, rule.path, futures::stream::pending()).await;
        let status = ended.expect_err(rule.path);
        assert_eq!(
            status.code(),
            Code::DeadlineExceeded,
            "{}: {status}",
            rule.path
        );
    }
    fleet.close().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused() {
    let fleet = Fleet::open(roomy()).await;
    let mut cards = BTreeMap::new();
    for role in [Role::Admin, Role::Agent] {
        cards.insert(role, fleet.channel(Some(&fleet.card(role, 1).await)).await);
    }
    for rule in policy::RULES {
        let role = if rule.who.allows(Some(Role::Admin)) {
            Role::Admin
        } else {
            Role::Agent
        };
        // A field that nobody knows, so that its size alone is wrong.
        let n = MAX_LINK_MESSAGE + 1;
        let mut bytes = b"\xfa\x7f".to_vec();
        prost::encoding::encode_varint(n as u64, &mut bytes);
        bytes.resize(bytes.len() + n, 0);
        let ended = call(&cards[&role], rule.path, futures::stream::iter([bytes])).await;
        // Reflection ends its stream without a word.
        if ended.is_ok() && rule.path.ends_with("/ServerReflectionInfo") {
            continue;
        }
        let status = ended.expect_err(rule.path);
        assert!(
            matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted),
            "{}: {status}",
            rule.path
        );
    }
    fleet.close().await;
}

#[tokio::test]
async fn bytes_that_make_no_sense_are_answered_and_harm_nobody() {
    let fleet = Fleet::open(roomy()).await;
    let mut channels = BTreeMap::new();
    for role in [Role::Admin, Role::Agent] {
        channels.insert(role, fleet.channel(Some(&fleet.card(role, 1).await)).await);
    }
    let mut runner = TestRunner::deterministic();
    let messages = proptest::collection::vec(proptest::collection::vec(0_u8.., 0..200), 1..3);
    for rule in policy::RULES {
        let role = if rule.who.allows(Some(Role::Admin)) {
            Role::Admin
        } else {
            Role::Agent
        };
        for _ in 0..24 {
            let messages = messages.new_tree(&mut runner).unwrap().current();
            // What comes back is the service's to say; that something does is what is tested.
            let _ = call(&channels[&role], rule.path, futures::stream::iter(messages)).await;
        }
    }
    fleet.close().await;
}

#[tokio::test]
async fn who_calls_too_often_is_told_so_and_others_are_served() {
    let fleet = Fleet::open(Limits {
        calls: Rate::new(1.0, 5.0),
        ..roomy()
    })
    .await;
    let card = fleet.card(Role::Viewer, 1).await;
    let mut control = ControlClient::new(fleet.channel(Some(&card)).await);
    let mut codes = Vec::new();
    for _ in 0..20 {
        let ended = control.list_runs(wire::ListRunsRequest {}).await;
        codes.push(ended.err().map(|status| status.code()));
    }
    assert_eq!(codes[..5], [None; 5]);
    assert!(
        codes[5..].contains(&Some(Code::ResourceExhausted)),
        "{codes:?}"
    );
    let other = fleet.card(Role::Viewer, 2).await;
    fleet.list_runs(&other).await.unwrap();
    fleet.close().await;
}

#[tokio::test]
async fn one_identity_has_so_many_connections() {
    let fleet = Fleet::open(Limits {
        connections_per_identity: 2,
        ..roomy()
    })
    .await;
    let card = fleet.card(Role::Viewer, 1).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let channel = fleet.channel(Some(&card)).await;
        let mut control = ControlClient::new(channel);
        control.list_runs(wire::ListRunsRequest {}).await.unwrap();
        open.push(control);
    }
    fleet.list_runs(&card).await.unwrap_err();
    drop(open);
    let until = Instant::now() + LIMIT;
    while fleet.list_runs(&card).await.is_err() {
        assert!(Instant::now() < until, "a place is free again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fleet.close().await;
}

#[tokio::test]
async fn refusals_cannot_flood_the_logs() {
    let fleet = Fleet::open(Limits {
        logged_refusals: Rate::new(0.001, 10.0),
        ..roomy()
    })
    .await;
    let channel = fleet.channel(None).await;
    for _ in 0..200 {
        let nothing = futures::stream::iter([Vec::new()]);
        let status = call(&channel, "/tritmark.v1.Control/ListRuns", nothing).await;
        assert_eq!(status.unwrap_err().code(), Code::Unauthenticated);
    }
    fleet.audited("refusal", |entry| entry.peer == "-").await;
    let n = fleet.audit().await.len();
    assert!((1..=10).contains(&n), "{n}");
    fleet.close().await;
}
