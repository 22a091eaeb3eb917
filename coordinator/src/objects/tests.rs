//! A folder and a bucket do alike.

use super::{s3::S3, *};

/// A place for objects that goes with the test.
enum Place {
    Folder(tempfile::TempDir),
    Bucket(S3),
}

impl Place {
    async fn all() -> [Self; 2] {
        [
            Self::Folder(tempfile::tempdir().unwrap()),
            Self::Bucket(S3::start().await),
        ]
    }

    fn open(&self) -> Objects {
        match self {
            Self::Folder(dir) => {
                let place = format!("file://{}", dir.path().join("a/b").display());
                Objects::open_with(&place, []).unwrap()
            }
            Self::Bucket(s3) => Objects::open_with("s3://bench/lab/one", s3.settings()).unwrap(),
        }
    }
}

/// Bytes that repeat nowhere nearby.
fn bytes(n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    blake3::Hasher::new()
        .update(b"objects")
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

async fn keys(objects: &Objects) -> Vec<String> {
    let list = objects.store.list(Some(&objects.prefix));
    let keys = list.map_ok(|meta| meta.location.to_string());
    let mut keys: Vec<String> = keys.try_collect().await.unwrap();
    keys.sort();
    keys
}

#[tokio::test]
async fn what_is_kept_is_found_by_its_hash() {
    for place in Place::all().await {
        let objects = place.open();
        let contents = bytes(100_000);
        let hash = ContentHash::of(&contents);
        assert_eq!(objects.size_bytes(hash).await.unwrap(), None);
        assert_eq!(objects.put(contents.clone().into()).await.unwrap(), hash);
        assert_eq!(objects.size_bytes(hash).await.unwrap(), Some(100_000));
        assert_eq!(objects.read(hash).await.unwrap(), contents);
        for range in [0..1, 0..100_000, 99_999..100_000, 12..77_777] {
            let part = objects.range(hash, range.clone()).await.unwrap();
            assert_eq!(part, contents[range.start as usize..range.end as usize]);
        }
        // Beyond its end there is nothing to be had.
        objects.range(hash, 99_990..100_010).await.unwrap_err();
        objects.range(hash, 100_001..100_002).await.unwrap_err();
        let text = hash.to_string();
        let prefix = objects.prefix.to_string();
        let key = format!("{prefix}/blobs/{}/{text}", &text[..2]);
        assert_eq!(keys(&objects).await, [key.trim_start_matches('/')]);
        // Opened once more, it is still there.
        assert_eq!(place.open().read(hash).await.unwrap(), contents);
    }
}

#[tokio::test]
async fn a_file_is_kept_in_one_piece_or_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for place in Place::all().await {
        let objects = place.open();
        // Empty, small, the largest of one piece, and one of three parts.
        for n in [0, 5, 8 << 20, (20 << 20) + 3] {
            let contents = bytes(n);
            fs_write(&path, &contents);
            let hash = ContentHash::of(&contents);
            objects.put_file(hash, &path, n as u64).await.unwrap();
            assert!(objects.read(hash).await.unwrap() == contents, "{n} bytes");
        }
        if let Place::Bucket(s3) = &place {
            let asked = s3.bucket().asked.clone();
            let parts = asked.iter().filter(|asked| asked.contains("partNumber="));
            assert_eq!(parts.count(), 3, "{asked:#?}");
            assert_eq!(s3.bucket().n_open_uploads(), 0);
        }
    }
}

fn fs_write(path: &Path, contents: &[u8]) {
    std::fs::write(path, contents).unwrap();
}

#[tokio::test]
async fn a_file_that_is_not_what_its_hash_says_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for place in Place::all().await {
        let objects = place.open();
        for n in [5, (20 << 20) + 3] {
            fs_write(&path, &bytes(n));
            let hash = ContentHash::of(b"something else");
            let refusal = objects.put_file(hash, &path, n as u64).await.unwrap_err();
            assert!(matches!(refusal, ObjectsError::Changed { .. }), "{refusal}");
            assert_eq!(objects.size_bytes(hash).await.unwrap(), None);
        }
        // Longer than it was said to be.
        let refusal = objects.put_file(ContentHash::of(&[]), &path, 7).await;
        assert!(refusal.is_err());
        assert_eq!(keys(&objects).await, [""; 0]);
        if let Place::Bucket(s3) = &place {
            assert_eq!(s3.bucket().n_open_uploads(), 0, "given up, not left lying");
        }
    }
}

#[tokio::test]
async fn an_object_that_was_changed_is_not_handed_on() {
    for place in Place::all().await {
        let objects = place.open();
        let hash = objects.put(Bytes::from_static(b"measured")).await.unwrap();
        let key = objects.blob(hash);
        let forged = object_store::PutPayload::from_static(b"invented");
        objects.store.put(&key, forged).await.unwrap();
        let refusal = objects.read(hash).await.unwrap_err();
        assert!(refusal.to_string().contains(&hash.to_string()), "{refusal}");
    }
}

#[tokio::test]
async fn what_is_put_down_of_a_run_is_found_by_its_id() {
    for place in Place::all().await {
        let objects = place.open();
        let run = RunId::generate();
        assert_eq!(objects.run_text(run).await.unwrap(), None);
        for text in ["one", "another"] {
            objects.put_run_text(run, text.into()).await.unwrap();
            assert_eq!(objects.run_text(run).await.unwrap().unwrap(), text);
        }
    }
}

#[tokio::test]
async fn a_bucket_that_is_busy_is_asked_again() {
    let s3 = S3::start().await;
    let objects = Objects::open_with("s3://bench", s3.settings()).unwrap();
    s3.bucket().n_faults = 2;
    let hash = objects.put(Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(s3.bucket().n_faults, 0);
    assert_eq!(objects.read(hash).await.unwrap(), "x");
}

#[tokio::test]
async fn a_bucket_asks_for_credentials() {
    let s3 = S3::start().await;
    let mut settings = s3.settings();
    settings[2].1 = "a stranger".to_owned();
    let objects = Objects::open_with("s3://bench", settings).unwrap();
    let refusal = objects.put(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(refusal, ObjectsError::Object { .. }), "{refusal}");
    assert!(s3.bucket().objects.is_empty());
}

#[test]
fn what_is_no_place_is_named() {
    for place in [
        "",
        "bucket",
        "file://",
        "ftp://host/x",
        "http://host",
        "memory://",
    ] {
        let refusal = Objects::open_with(place, []).unwrap_err().to_string();
        assert!(refusal.contains(&format!("`{place}`")), "{refusal}");
    }
}
