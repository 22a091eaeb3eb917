//! Each fault by itself, as the two ends see it.

use tokio::time::timeout;

use super::{
    script::{Step, chaos},
    *,
};

const SOON: Duration = Duration::from_secs(10);

/// A pair of ends with a proxy between them.
async fn ends() -> (Proxy, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let target = listener.local_addr().expect("an address");
    let proxy = Proxy::start(target, 1).await.expect("a port");
    let near = TcpStream::connect(proxy.address())
        .await
        .expect("a connection");
    let (far, _) = listener.accept().await.expect("a connection");
    (proxy, near, far)
}

async fn hear(end: &mut TcpStream, n: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; n];
    timeout(SOON, end.read_exact(&mut bytes)).await??;
    Ok(bytes)
}

/// Nothing is heard for a time in which a good network would have brought it.
async fn hear_nothing(end: &mut TcpStream) {
    let mut byte = [0];
    let heard = timeout(Duration::from_millis(60), end.read(&mut byte)).await;
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test]
async fn a_good_network_changes_nothing_and_passes_the_end_on() {
    let (proxy, mut near, mut far) = ends().await;
    near.write_all(b"up").await.expect("it is sent");
    assert_eq!(hear(&mut far, 2).await.expect("it is heard"), b"up");
    far.write_all(b"down").await.expect("it is sent");
    assert_eq!(hear(&mut near, 4).await.expect("it is heard"), b"down");
    near.shutdown().await.expect("it ends");
    assert_eq!(far.read(&mut [0]).await.expect("an end"), 0);
    // The other direction is still open.
    far.write_all(b"bye").await.expect("it is sent");
    assert_eq!(hear(&mut near, 3).await.expect("it is heard"), b"bye");
    proxy.close().await;
}

#[tokio::test]
async fn delay_is_in_one_direction_alone() {
    let (proxy, mut near, mut far) = ends().await;
    let mut network = Network::default();
    network.up.delay = Duration::from_millis(200);
    proxy.set(network);
    let start = Instant::now();
    near.write_all(b"late").await.expect("it is sent");
    assert_eq!(hear(&mut far, 4).await.expect("it is heard"), b"late");
    assert!(start.elapsed() >= Duration::from_millis(200));
    far.write_all(b"now").await.expect("it is sent");
    let start = Instant::now();
    assert_eq!(hear(&mut near, 3).await.expect("it is heard"), b"now");
    assert!(start.elapsed() < Duration::from_millis(200));
}

#[tokio::test]
async fn a_stalled_way_brings_everything_later_and_a_swallowing_one_nothing() {
    let (proxy, mut near, mut far) = ends().await;
    proxy.set(Network::both(Way {
        stalls: true,
        ..Way::default()
    }));
    near.write_all(b"slow").await.expect("it is sent");
    hear_nothing(&mut far).await;
    proxy.set(Network::default());
    assert_eq!(hear(&mut far, 4).await.expect("it is heard"), b"slow");

    proxy.set(Network::both(Way {
        swallows: true,
        ..Way::default()
    }));
    near.write_all(b"lost").await.expect("it is sent");
    hear_nothing(&mut far).await;
    proxy.set(Network::default());
    hear_nothing(&mut far).await;
}

#[tokio::test]
async fn a_narrow_way_takes_its_time() {
    let (proxy, mut near, mut far) = ends().await;
    proxy.set(Network::both(Way {
        bytes_per_s: 100_000,
        ..Way::default()
    }));
    let start = Instant::now();
    let sent = vec![7; 3 * CHUNK_BYTES];
    near.write_all(&sent).await.expect("it is sent");
    assert_eq!(hear(&mut far, sent.len()).await.expect("heard"), sent);
    assert!(start.elapsed() >= Duration::from_millis(250));
}

#[tokio::test]
async fn connections_are_closed_reset_and_refused() {
    let (proxy, mut near, mut far) = ends().await;
    proxy.end(End::Close);
    assert_eq!(far.read(&mut [0]).await.expect("a proper end"), 0);
    assert_eq!(near.read(&mut [0]).await.expect("a proper end"), 0);

    let (proxy, mut near, mut far) = ends().await;
    near.write_all(b"x").await.expect("it is sent");
    hear(&mut far, 1).await.expect("it is heard");
    proxy.end(End::Reset);
    for end in [&mut near, &mut far] {
        let error = end.read(&mut [0]).await.expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    proxy.set(Network {
        refuses: true,
        ..Network::default()
    });
    let mut refused = TcpStream::connect(proxy.address())
        .await
        .expect("the kernel takes it");
    let heard = timeout(SOON, refused.read(&mut [0])).await.expect("an end");
    assert!(matches!(heard, Ok(0) | Err(_)), "{heard:?}");
}

#[test]
fn a_seed_repeats_its_faults_and_seeds_differ() {
    let longest = Duration::from_secs(1);
    let one = chaos(1, 50, longest);
    assert_eq!(one, chaos(1, 50, longest));
    assert_ne!(one, chaos(2, 50, longest));
    assert!(one.contains(&Step::End(End::Reset)));
    let swallows = |step: &&Step| matches!(step, Step::Network(network, _) if network.up.swallows);
    assert!(one.iter().any(|step| swallows(&step)));
}
