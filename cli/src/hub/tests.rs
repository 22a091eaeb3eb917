use super::{
    download::Fetched,
    testing::{COMMIT, Reply, Request, Server, served},
    *,
};

/// The file that is fetched, with its SHA-256 as `sha256sum` tells it.
fn file() -> (Vec<u8>, String) {
    let bytes: Vec<u8> = (0..300_000_u32)
        .map(|i| (i.wrapping_mul(i) >> 7) as u8)
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs::write(&path, &bytes).unwrap();
    let sha256 = checksum::Found::of(&path).unwrap().sha256;
    (bytes, sha256)
}

fn revision() -> Revision {
    Revision {
        kind: Kind::Dataset,
        repo: "own/set".to_owned(),
        commit: COMMIT.to_owned(),
        files: vec!["main/x.bin".to_owned()],
    }
}

fn fetch(hub: &Hub, folder: &Path) -> Result<Fetched, HubError> {
    hub.fetch(&revision(), "main/x.bin", folder, &mut |_| {})
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join("main")).unwrap();
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

#[test]
fn a_revision_is_a_commit_with_its_files() {
    let server = Server::start(|_| {
        let files = r#"{"rfilename":"README.md"},{"rfilename":"main/test/0000.parquet"}"#;
        Reply::new(
            200,
            format!(r#"{{"sha":"{COMMIT}","siblings":[{files}]}}"#).as_bytes(),
        )
    });
    let hub = server.hub(None);
    let revision = hub
        .revision(Kind::Dataset, "own/set", "refs/convert/parquet")
        .unwrap();
    assert_eq!(revision.commit, COMMIT);
    assert_eq!(
        revision.matching("main/test/*.parquet"),
        ["main/test/0000.parquet"]
    );
    assert_eq!(revision.matching("README.md"), ["README.md"]);
    assert!(revision.matching("*.parquet").is_empty());
    let asked = server.seen("GET");
    assert_eq!(
        asked[0].path,
        "/api/datasets/own/set/revision/refs%2Fconvert%2Fparquet"
    );
    hub.revision(Kind::Model, "own/set", "main").unwrap();
    assert_eq!(
        server.seen("GET")[1].path,
        "/api/models/own/set/revision/main"
    );
    assert!(hub.revision(Kind::Model, "../set", "main").is_err());
}

#[test]
fn a_large_file_is_taken_from_where_the_hub_sends_to_and_checked() {
    let (bytes, sha256) = file();
    let content = bytes.clone();
    let storage = Server::start(move |request| served(request, &content, "storage"));
    let (at, linked) = (format!("{}/signed?x=1", storage.url), sha256.clone());
    let server = Server::start(move |_| {
        Reply::new(302, b"")
            .with("Location", at.clone())
            .with("X-Linked-Etag", format!("\"{linked}\""))
            .with("X-Linked-Size", "300000")
    });
    let folder = tempfile::tempdir().unwrap();
    let mut last = None;
    let fetched = server
        .hub(Some("secret"))
        .fetch(&revision(), "main/x.bin", folder.path(), &mut |progress| {
            last = Some(progress);
        })
        .unwrap();
    assert_eq!(fs::read(&fetched.path).unwrap(), bytes);
    assert_eq!(fetched.sha256, sha256);
    assert!(fetched.is_verified && !fetched.was_there);
    let whole = Progress {
        done: 300_000,
        total: Some(300_000),
    };
    assert_eq!(last, Some(whole));
    let path = format!("/datasets/own/set/resolve/{COMMIT}/main/x.bin");
    let asked = server.seen("HEAD");
    assert_eq!(asked[0].path, path);
    assert_eq!(asked[0].header("authorization"), "Bearer secret");
    // The storage is another host.
    assert_eq!(storage.seen("GET")[0].header("authorization"), "");
    let again = fetch(&server.hub(None), folder.path()).unwrap();
    assert!(again.was_there);
    assert_eq!(storage.seen("GET").len(), 1);
}

#[test]
fn what_breaks_off_is_gone_on_with() {
    let (bytes, sha256) = file();
    let (content, etag) = (bytes.clone(), sha256.clone());
    let mut n_cut = 0;
    let server = Server::start(move |request| {
        let mut reply = served(request, &content, &etag);
        if request.method == "GET" && n_cut < 3 {
            n_cut += 1;
            reply.cut = 50_000;
        }
        reply
    });
    let folder = tempfile::tempdir().unwrap();
    let fetched = fetch(&server.hub(None), folder.path()).unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), bytes);
    let starts: Vec<_> = server.seen("GET").iter().map(Request::wanted).collect();
    assert_eq!(starts.len(), 4);
    assert_eq!(starts[0], None);
    assert!(
        starts[1] > Some(0) && starts[2] > starts[1] && starts[3] > starts[2],
        "{starts:?}"
    );
    assert_eq!(names(folder.path()), ["x.bin"]);
}

#[test]
fn what_another_process_left_is_gone_on_with() {
    let (bytes, sha256) = file();
    let (content, etag) = (bytes.clone(), sha256.clone());
    let server = Server::start(move |request| served(request, &content, &etag));
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("main")).unwrap();
    let part = folder
        .path()
        .join(format!("main/x.bin.{}.part", &sha256[..12]));
    fs::write(part, &bytes[..123_456]).unwrap();
    let fetched = fetch(&server.hub(None), folder.path()).unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), bytes);
    assert_eq!(server.seen("GET")[0].wanted(), Some(123_456));
}

#[test]
fn a_server_without_ranges_begins_anew() {
    let (bytes, sha256) = file();
    let (content, etag) = (bytes.clone(), sha256.clone());
    let mut n = 0;
    let server = Server::start(move |_| {
        n += 1;
        let mut reply = Reply::new(200, &content).with("ETag", format!("\"{etag}\""));
        // The second one is the first that sends a body.
        reply.cut = if n == 2 { 100_000 } else { usize::MAX };
        reply
    });
    let folder = tempfile::tempdir().unwrap();
    let fetched = fetch(&server.hub(None), folder.path()).unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), bytes);
}

#[test]
fn bytes_with_another_checksum_are_thrown_away() {
    let (bytes, _) = file();
    let server = Server::start(move |request| served(request, &bytes, &"0".repeat(64)));
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(&server.hub(None), folder.path()).unwrap_err();
    assert!(matches!(error, HubError::Checksum { .. }), "{error}");
    assert!(names(folder.path()).is_empty());
    // The same with git's hash of small files.
    let server = Server::start(|request| served(request, b"hello\n", &"0".repeat(40)));
    let error = fetch(&server.hub(None), folder.path()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("ce013625030ba8dba906f756967f9e9ca394464a"),
        "{error}"
    );
}

#[test]
fn a_file_without_checksum_is_never_gone_on_with() {
    let server = Server::start(|request| served(request, b"new", "no-hash"));
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("main")).unwrap();
    fs::write(folder.path().join("main/x.bin.unknown.part"), "ol").unwrap();
    let fetched = fetch(&server.hub(None), folder.path()).unwrap();
    assert!(!fetched.is_verified);
    assert_eq!(fs::read(fetched.path).unwrap(), b"new");
}

#[test]
fn who_may_not_read_is_told_what_to_do() {
    let server = Server::start(|request| {
        if request.header("authorization") == "Bearer right" {
            served(
                request,
                b"hello\n",
                "ce013625030ba8dba906f756967f9e9ca394464a",
            )
        } else {
            Reply::new(401, b"")
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(&server.hub(None), folder.path()).unwrap_err();
    assert!(error.to_string().contains("(401); set HF_TOKEN"), "{error}");
    assert!(fetch(&server.hub(Some("right")), folder.path()).is_ok());
    assert!(!format!("{:?}", server.hub(Some("right"))).contains("right"));
}

#[test]
fn what_is_not_there_is_missing() {
    let server = Server::start(|_| Reply::new(404, b""));
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(&server.hub(None), folder.path()).unwrap_err();
    assert!(matches!(error, HubError::Missing { .. }), "{error}");
    let error = server
        .hub(None)
        .revision(Kind::Model, "a/b", "main")
        .unwrap_err();
    assert!(matches!(error, HubError::Missing { .. }), "{error}");
}

#[test]
fn a_renamed_repository_is_followed() {
    let server = Server::start(|request| match request.path.strip_prefix("/new") {
        Some(_) => served(
            request,
            b"hello\n",
            "ce013625030ba8dba906f756967f9e9ca394464a",
        ),
        None => Reply::new(307, b"").with("Location", format!("/new{}", request.path)),
    });
    let folder = tempfile::tempdir().unwrap();
    let fetched = fetch(&server.hub(None), folder.path()).unwrap();
    assert_eq!(fetched.bytes, 6);
    let server = Server::start(|_| Reply::new(302, b"").with("Location", "/round"));
    let error = fetch(&server.hub(None), folder.path()).unwrap_err();
    assert!(
        error.to_string().contains("redirects more than 5 times"),
        "{error}"
    );
}

#[test]
fn a_hub_that_is_busy_is_asked_again_and_given_up_in_the_end() {
    let mut n = 0;
    let server = Server::start(move |request| {
        n += 1;
        if n < 3 {
            return Reply::new(503, b"");
        }
        served(
            request,
            b"hello\n",
            "ce013625030ba8dba906f756967f9e9ca394464a",
        )
    });
    let folder = tempfile::tempdir().unwrap();
    fetch(&server.hub(None), folder.path()).unwrap();
    let server = Server::start(|_| Reply::new(503, b""));
    let error = server
        .hub(None)
        .revision(Kind::Model, "a/b", "main")
        .unwrap_err();
    assert!(error.is_temporary());
    let error = fetch(&server.hub(None), &folder.path().join("other")).unwrap_err();
    assert!(error.is_temporary(), "{error}");
    // Twice by the first, once by the revision, then each try of the last.
    assert_eq!(server.seen("HEAD").len(), 5);
}

#[test]
fn offline_nothing_is_asked() {
    let server = Server::start(|_| Reply::new(200, b""));
    let url = server.url.clone();
    let hub = Hub::from_env(|name| match name {
        "HF_ENDPOINT" => Some(url.clone()),
        "HF_HUB_OFFLINE" => Some("1".to_owned()),
        _ => None,
    });
    let error = hub.revision(Kind::Model, "a/b", "main").unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    assert!(server.seen("GET").is_empty());
}

#[test]
fn a_token_is_taken_from_the_hubs_folder() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("token"), "from-file\n").unwrap();
    let home = home.path().to_str().unwrap().to_owned();
    let token = |own: Option<&str>| {
        let own = own.map(str::to_owned);
        Hub::from_env(|name| match name {
            "HF_HOME" => Some(home.clone()),
            "HF_TOKEN" => own.clone(),
            _ => None,
        })
        .token
    };
    assert_eq!(token(None).as_deref(), Some("from-file"));
    assert_eq!(token(Some(" ")).as_deref(), Some("from-file"));
    assert_eq!(token(Some("own")).as_deref(), Some("own"));
}

#[test]
fn a_list_of_files_that_is_none_is_refused() {
    let read = |text: &str| read_revision(Kind::Model, "a/b", text).unwrap_err();
    assert!(read("<html>").contains("expected value"));
    assert!(read("{}").contains("`sha`"));
    assert!(read(&format!(r#"{{"sha":"{COMMIT}"}}"#)).contains("`siblings`"));
    assert!(read(&format!(r#"{{"sha":"{COMMIT}","siblings":[7]}}"#)).contains("`rfilename`"));
    assert!(read(r#"{"sha":"../../../../../../../../../../../etc/abcd"}"#).contains("`sha`"));
}

#[test]
fn an_answer_in_plain_text_is_not_taken_for_one_that_was_encrypted() {
    let answer = http::Response::builder()
        .status(302)
        .header("location", "http://x/y");
    let answer = answer.body(ureq::Body::builder().data("")).unwrap();
    let error = redirect("https://hub/a", &answer).unwrap_err();
    assert!(error.to_string().contains("not encrypted"), "{error}");
    assert!(redirect("http://hub/a", &answer).unwrap().is_some());
}
